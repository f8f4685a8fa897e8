"""The report's page, used as a reader does: in a headless Chromium, opened from disk."""

import json

import pytest
from browser import chromium, needs_browser, requests
from report_runs import VTAB, make_run, make_vtab, sweep_entry

from src.tools.report import __main__ as command
from src.tools.report.page import embedded

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>&\"'"


def test_embedded_json_cannot_end_its_script_element():
    content = {"name": "</script><!--<script>&\u2028"}
    text = embedded(content)
    assert not set("<>&") & set(text)
    assert json.loads(text) == content


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of three methods on VTAB-1k with a gap, names that are markup, and a mark; its file."""
    folder = tmp_path_factory.mktemp("page")
    lora = dict(MODEL__TRANSFER_TYPE="lora", MODEL__LORA__RANK=4, DATA__VERSION=EVIL)
    make_vtab(folder / "runs", {"linear": (0.5, {}), "lora": (0.6, lora)}, seeds=(42, 44))
    old = {"git": "b" * 40}
    make_vtab(folder / "runs", {"ssf": (0.7, dict(MODEL__TRANSFER_TYPE="ssf", environment=old))}, (42,), VTAB[:5])
    evil = "x</script><b>'&"
    keys = dict(DATA__NAME="folder", DATA__DATAPATH=f"/data/{evil.replace('/', '')}", environment={"device": EVIL})
    make_run(folder / "runs", 0.5, sweep=sweep_entry("evil", "final", EVIL, {"method": EVIL}, {}), **keys)
    assert command.main([str(folder / "runs"), "--to", str(folder / "to"), "--title", f"Title {EVIL}"]) == 0
    return folder / "to" / "report.html"


@pytest.fixture(scope="module")
def driver(page, tmp_path_factory):
    """The page open in Chromium."""
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        driver.get(page.as_uri())
        yield driver


@pytest.fixture
def opened(driver, page):
    driver.get(page.as_uri())
    return Page(driver)


class Page:
    """The first table of the page, and what can be done to it."""

    def __init__(self, driver) -> None:
        self.driver = driver
        self.section = self.all("section.table")[0]

    def all(self, selector, within=None):
        return (within or self.driver).find_elements("css selector", selector)

    def first(self):
        """What stands in the rows' first cells, of those that can be seen."""
        return [cell.text.split("\n")[0] for cell in self.all("tbody tr > :first-child", self.section) if cell.text]

    def column(self, name):
        heads = [head.get_attribute("textContent") for head in self.all("thead th", self.section)]
        return heads.index(name)

    def cell(self, row, name):
        return self.all(f"tbody tr:nth-child({row}) > :nth-child({self.column(name) + 1})", self.section)[0]

    def sort(self, name):
        button = self.all("thead button", self.section)[self.column(name)]
        self.driver.execute_script("arguments[0].scrollIntoView({inline: 'center', block: 'center'})", button)
        button.click()
        return self.first()

    def point(self, cell):
        from selenium.webdriver import ActionChains

        self.driver.execute_script("arguments[0].scrollIntoView({inline: 'center', block: 'center'})", cell)
        ActionChains(self.driver).move_to_element(cell).perform()
        return self.all("#about")[0].text


@pytest.mark.browser
@needs_browser
class TestInChromium:
    def test_a_click_on_a_column_sorts_by_its_numbers_and_gaps_stay_last(self, opened):
        assert opened.first()[:2] == ["linear", "lora"]
        best = sorted(("linear", "lora"), key=lambda m: float(opened.cell(1 + (m == "lora"), "kitti").text.split()[0]))
        assert opened.sort("kitti")[:2] == best[::-1]
        assert opened.first()[2].startswith("ssf")  # it has no kitti
        assert opened.sort("kitti")[:2] == best
        assert opened.first()[2].startswith("ssf")
        assert opened.sort("kitti")[:2] == ["linear", "lora"]

    def test_a_column_is_sorted_by_its_numbers_not_by_their_texts(self, opened):
        opened.sort("trained with head, M")
        values = [float(opened.cell(row, "trained with head, M").get_attribute("data-sort")) for row in (1, 2)]
        assert values == sorted(values, reverse=True)

    def test_sorting_works_from_the_keyboard(self, opened):
        from selenium.webdriver.common.keys import Keys

        opened.all("thead button", opened.section)[0].send_keys(Keys.ENTER, Keys.ENTER)
        assert [row[:3] for row in opened.first()] == ["ssf", "lor", "lin"]
        assert opened.all("thead th", opened.section)[0].get_attribute("aria-sort") == "descending"

    def test_the_filter_hides_rows(self, opened):
        box = opened.all("input[type=search]", opened.section)[0]
        box.send_keys("LORA")
        assert opened.first() == ["lora"]
        assert opened.all(".count", opened.section)[0].text == "1 of 3 rows"
        box.send_keys(" vitb16")
        assert opened.first() == ["lora"]
        box.clear()
        box.send_keys("4")  # of the names only, not of the figures
        assert opened.first() == []
        box.clear()
        box.send_keys(" ")
        assert len(opened.first()) == 3

    def test_columns_can_be_hidden(self, opened):
        opened.all(".tools summary", opened.section)[0].click()
        column = opened.column("dtd")
        assert opened.cell(1, "dtd").is_displayed()
        opened.all(f"input[data-column='{column}']", opened.section)[0].click()
        assert not opened.cell(1, "dtd").is_displayed()
        assert not opened.all("thead th", opened.section)[column].is_displayed()
        assert opened.cell(1, "pets").is_displayed()

    def test_pointing_at_a_cell_shows_its_runs_and_their_config(self, opened):
        said = opened.point(opened.cell(2, "pets"))
        for text in ("n = 2", "95 % interval", "42", "44", "MODEL.LORA.RANK", "squash", "2.12.1", EVIL):
            assert text in said, text
        assert "code version bbbbbbbbbb" in opened.point(opened.cell(3, "pets"))
        assert "missing: " in opened.point(opened.cell(3, "kitti"))

    def test_focus_shows_the_same_and_escape_closes_it(self, opened):
        from selenium.webdriver.common.keys import Keys

        opened.all("tbody th", opened.section)[0].send_keys(Keys.ARROW_DOWN)
        cell = opened.driver.switch_to.active_element
        assert cell.text.startswith("lora")
        assert "MODEL.LORA.RANK" in opened.all("#about")[0].text
        cell.send_keys(Keys.ESCAPE)
        assert not opened.all("#about")[0].is_displayed()

    def test_names_are_never_markup(self, opened):
        assert opened.driver.title == f"Title {EVIL}"
        assert any(cell.text == EVIL for cell in opened.all("tbody th"))
        assert not opened.all("main script, main b, th img, td img, header img")
        for cell in opened.all("[data-more]")[-4:]:
            opened.point(cell)
        assert not opened.all("#about script, #about img, main b")

    def test_pictures_are_in_the_page(self, opened):
        pictures = opened.all("figure img")
        assert pictures
        assert all(opened.driver.execute_script("return arguments[0].naturalWidth", image) > 100 for image in pictures)

    def test_dark_mode_changes_the_paper(self, opened):
        shades = []
        for scheme in ("light", "dark"):
            features = [{"name": "prefers-color-scheme", "value": scheme}]
            opened.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
            shades.append(opened.driver.execute_script("return getComputedStyle(document.body).backgroundColor"))
        assert shades == ["rgb(255, 255, 255)", "rgb(21, 24, 28)"]

    def test_nothing_is_asked_for_but_the_file_and_nothing_goes_wrong(self, opened):
        urls = requests(opened.driver)
        assert urls
        assert all(url.startswith(("file:", "data:")) for url in urls), urls
        assert opened.driver.get_log("browser") == []
