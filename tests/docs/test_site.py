"""The documentation site opens from disk and needs no network."""

import os
import re
import shutil
import subprocess
import sys

import pytest
from blocks import PAGES
from browser import chromium, needs_browser, requests
from paths import ROOT

DOCS = ROOT / "docs"
# The site's own settings for two pages: the real ones take half a minute.
SMALL = """
INHERIT: {docs}/mkdocs.yml
docs_dir: pages
site_dir: site
hooks: []
plugins: [search, offline]
nav: [index.md, other.md]
"""


def build(folder, text="[the other page](other.md#below)"):
    """The small site, built as strictly as the whole one; what mkdocs did."""
    (folder / "pages").mkdir()
    shutil.copytree(DOCS / "pages" / "assets", folder / "pages" / "assets")
    (folder / "pages" / "index.md").write_text(f"# Start\n\n{text}\n")
    (folder / "pages" / "other.md").write_text("# Other\n\n## Below\n\nOnly here is a *capybara*.\n")
    (folder / "mkdocs.yml").write_text(SMALL.format(docs=DOCS))
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    env = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("text", ["[a page](missing.md)", "[a heading](other.md#missing)", "[here](#missing)"])
def test_broken_links_and_anchors_are_errors(tmp_path, text):
    done = build(tmp_path, text)
    assert done.returncode
    assert "missing" in done.stderr


@pytest.mark.browser
@needs_browser
def test_search_works_from_disk_and_nothing_comes_from_a_network(tmp_path):
    done = build(tmp_path)
    assert done.returncode == 0, done.stderr
    from selenium.webdriver.support.wait import WebDriverWait

    with chromium(tmp_path / "profile") as driver:
        driver.get((tmp_path / "site" / "index.html").as_uri())
        box = driver.find_element("css selector", "input.md-search__input")
        driver.execute_script("arguments[0].focus()", box)
        box.send_keys("capybara")
        wait = WebDriverWait(driver, 30)
        link = wait.until(lambda driver: driver.find_elements("css selector", "a.md-search-result__link"))[0]
        assert "/site/other.html" in link.get_attribute("href")
        assert all(url.startswith(("file:", "data:", "blob:", "about:")) for url in requests(driver))


def test_pages_show_nothing_from_elsewhere():
    for path in PAGES:
        assert not re.findall(r"!\[[^]]*\]\((?:https?:)?//|<(?:img|script|iframe|link)\b", path.read_text()), path


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_to_files_where_pages_are_read_in_a_checkout(path):
    links = re.findall(r"\]\((?!https?://)([^)#]+)", path.read_text())
    assert [link for link in links if not (path.parent / link).exists()] == []
