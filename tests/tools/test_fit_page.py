"""fit.html: all of fit.json that there is, nothing that is not, and names that are never markup."""

import copy
import re
from pathlib import Path

import numpy as np
import pytest
from browser import chromium, needs_browser, requests
from PIL import Image

from src.tools.fit.evidence import Answers, doubtful, evidence
from src.tools.fit.findings import findings
from src.tools.fit.images import Images
from src.tools.fit.look import alike, groups_of, look
from src.tools.fit.page import PARTS, page, write_page
from src.tools.fit.page_parts import name
from src.tools.fit.page_plots import interval, reliability

EVIL = "</style></title><script>alert(1)</script><img src=x onerror=alert(2)>&\"'\u202e"
CLASSES = ["cat", f"dog {EVIL}", "gnu"]


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """What a fit writes of 30 pictures with a copy, a broken file, and answers at random; texts hold markup."""
    root, random = tmp_path_factory.mktemp("photos"), np.random.RandomState(0)
    files = [f"{i}.{'jpg' if i % 2 else 'png'}" for i in range(30)]
    for file in files:
        Image.fromarray(random.randint(256, size=(70, 90, 3)).astype(np.uint8)).save(root / file)
    files += ["again.png", "broken.png"]
    (root / "again.png").write_bytes((root / "0.png").read_bytes())
    (root / "broken.png").write_text(EVIL)
    splits = np.array(["train"] * 20 + ["test"] * 12)
    images = Images(root, files, np.arange(32) % 3, splits, CLASSES, notes=[EVIL])
    seen = look(images, tmp_path_factory.mktemp("fit"), 1)
    images = images.take(np.flatnonzero(seen.usable))
    same = alike(seen)
    facts, found = findings(images, seen, same, groups_of(31, same.pairs, []))
    answers = Answers.of_logits(np.arange(20), 3 * random.standard_normal((20, 3)))
    tested = Answers.of_logits(np.arange(20, 31), 3 * random.standard_normal((11, 3)))
    shown = evidence(images, answers)
    shown["per_class"][2]["name"] = "\udcff gnu"  # a fit refuses such names before
    promise = {"expected": 0.812, "low": 0.745, "high": 0.866, "images": 20, "level": 0.95, "rests_on": EVIL}
    trial = {"name": f"lora {EVIL}", "round": 1, "steps": 30, "loss": 1.0, "seconds": 75.2, "trained": 1234, "why": ""}
    network = {"name": f"vit {EVIL}", "size": 32, "parameters": 207424, "why_not": ""}
    heads = {"seconds": 0.5, "neighbours": 0.7, "linear_head": 0.8}
    test = {"top1": 0.7, "low": 0.5, "high": 0.85, "images": 10, "leaked": 1, "top1_with_leaked": 0.75}
    return {
        "version": "0.1.0",
        "request": {"data": EVIL, "minutes": 2.0, "own": ["A", EVIL]},
        "seconds": {"total": 200.4, "look": 1.5},
        "machine": {"device": "cpu", "name": EVIL},
        "data": facts,
        "findings": [vars(one) for one in found],
        "networks": [network | heads, network | {"name": "missing", "why_not": f"no weights {EVIL}"}],
        "plan": {"why_not": ""},
        "roles": {"judging": 7},
        "tried": [trial | {"top1": 0.5}, trial | {"top1": None, "why": f"its loss diverged {EVIL}"}],
        "to_beat": 0.61,
        "choice": {
            "name": "lora", "network": EVIL, "size": 32, "steps": 90, "why": EVIL, "parameters": {"trained": 4321}
        },
        "promise": promise,
        "evidence": shown | {"doubtful_labels": doubtful(images, answers)},
        "test": test | {"as_promised": True, "inside": False, "evidence": evidence(images, tested)},
        "files": {"run": "model", "tuned": "model/tuned.safetensors", "why_no_onnx": EVIL},
        "next": [EVIL, "add images of cat"],
    }  # fmt: skip


def plain(html):
    return re.sub(r"\s+", " ", re.sub("<[^>]*>", " ", html))


def sections(html):
    return re.findall(r'<section id="(\w+)">', html)


def test_all_that_was_found_is_on_the_page(result):
    html = write(result)
    assert sections(html) == [name for name, *_ in PARTS]
    words = plain(html)
    for text in (
        "81.2 %", "by what 20 images showed", "74.5 % to 86.6 %",
        "of 10 test images, 70.0 %", "so near that chance alone explains it",
        "with these it would be 75.0 %", "1 min 15 s", "4,321 trained parameters", "its loss diverged",
        "61.0 % of the 7",
        "3 min 20 s in all", "20 train, 11 test images in 3 classes", "left out: 1 file ", "add images of cat",
        "1 pair, 1 of them the same file; 0 have two labels; 1 have one image among the test images",
    ):  # fmt: skip
        assert text.lower() in words.lower(), text
    shown = result["evidence"]
    for row in shown["per_class"]:
        assert f"{100 * row['recall']:.1f} %" in words
    matrix = re.search(r'<table class="matrix">.*?</table>', html, re.DOTALL)[0]
    counts = [[int(n or 0) for n in re.findall(r"<td[^>]*>(\d*)</td>", line)] for line in matrix.split("<tr>")[2:]]
    assert counts == shown["confusion"]
    assert (
        html.count("<img ")
        == len(shown["errors"])
        + len(shown["doubtful_labels"])
        + len(result["test"]["evidence"]["errors"])
        + 2 * result["data"]["similar"]["pairs"]
    )


def write(result):
    return page(result, Path(result["data"]["root"]))


@pytest.mark.parametrize(
    "part", ["promise", "data", "evidence", "test", "next", "choice", "networks", "tried", "seconds"]
)
def test_what_is_missing_is_left_out(result, part, tmp_path):
    less = {key: value for key, value in result.items() if key != part}
    gone = {
        "data": {"data", "similar"},
        "evidence": {"classes", "confusions", "errors", "doubtful", "calibration"},
        "test": {"test"},
        "next": {"next"},
        "choice": {"choice"},
    }
    assert set(sections(page(result, tmp_path))) - set(sections(page(less, tmp_path))) == gone.get(part, set())
    assert "None" not in plain(page(less, tmp_path))


def test_nothing_and_pictures_that_are_gone(result, tmp_path):
    assert sections(page({}, tmp_path)) == []
    html = page(result, tmp_path)
    assert "<img" not in html
    assert html.count("no picture") > 10


def test_many_classes_have_a_list_of_confusions_instead_of_a_matrix(result, tmp_path):
    many = copy.deepcopy(result)
    counts = 3 * np.eye(40, dtype=int)
    counts[7, 9], counts[1, 2] = 5, 2
    row = many["evidence"]["per_class"][0]
    many["evidence"] |= {"per_class": [row | {"name": f"class {i}"} for i in range(40)], "confusion": counts.tolist()}
    words = plain(page(many, tmp_path))
    assert "class 7 class 9 5 62.5 % class 1 class 2 2 40.0 %" in words


def test_long_names_are_cut_in_the_middle():
    assert name("x" * 90) == f"<bdi>{'x' * 90}</bdi>"
    assert name(f"{'<' * 3000}end") == f'<bdi title="{"&lt;" * 3000}end">{"&lt;" * 45} … {"&lt;" * 27}end</bdi>'


def test_points_stand_where_their_numbers_say():
    svg = interval([("a", 0.9, 0.85, 0.95), ("b", 0.85, 0.8, 1.0)])
    ticks = {int(n): float(x) for x, n in re.findall(r'class="tick" x="([\d.]+)" y="[\d.]+">(\d+)<', svg)}
    assert list(ticks) == [80, 85, 90, 95, 100]
    assert (ticks[80], ticks[90], ticks[100]) == (88, 252, 416)
    assert [float(x) for x in re.findall(r'circle cx="([\d.]+)"', svg)] == [ticks[90], ticks[85]]
    found = re.findall(r'whisker" x1="([\d.]+)" x2="([\d.]+)"', svg)
    assert [tuple(map(float, pair)) for pair in found] == [(ticks[85], ticks[95]), (ticks[80], ticks[100])]
    bins = [{"images": 4, "confidence": 0.2, "accuracy": 0.4}, {"images": 16, "confidence": 1.0, "accuracy": 1.0}]
    circles = re.findall(r'circle cx="([\d.]+)" cy="([\d.]+)" r="([\d.]+)"', reliability(bins))
    assert [tuple(map(float, one)) for one in circles] == [(106, 190, 6), (346, 10, 9)]
    assert "nan" not in interval([("all", 1.0, 1.0, 1.0)])


@pytest.mark.browser
@needs_browser
def test_in_chromium_names_are_text_and_nothing_is_asked_for(result, tmp_path):
    file = write_page(result, tmp_path)
    with chromium(tmp_path / "profile") as driver:

        def ask(script):
            return driver.execute_script(f"return {script}")

        driver.get(file.as_uri())
        assert driver.find_elements("css selector", "script, bdi *, main style, title *") == []
        assert ask("[...document.images].every((i) => i.src.startsWith('data:image/') && i.alt)")
        driver.execute_script("for (const one of document.querySelectorAll('details')) one.open = true;")
        driver.execute_script("for (const one of document.images) one.loading = 'eager';")
        assert ask("Promise.all([...document.images].map((i) => i.decode())).then(() => document.images.length)") > 10
        assert ask("[...document.images].every((i) => i.naturalWidth === 90)")
        names = ask("[...document.querySelectorAll('#classes tbody th')].map((cell) => cell.textContent)")
        assert sorted(names) == sorted(["cat", CLASSES[1].replace("\u202e", "\ufffd"), "? gnu"])
        shades = []
        for scheme in ("light", "dark"):
            features = [{"name": "prefers-color-scheme", "value": scheme}]
            driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
            shades.append(ask("[document.body, document.querySelector('svg text')].map((e) => getComputedStyle(e))"
                              ".map((s) => s.backgroundColor + s.fill)"))  # fmt: skip
        assert shades[0][0] != shades[1][0]
        assert shades[0][1] != shades[1][1]
        phone = {"width": 360, "height": 700, "deviceScaleFactor": 1, "mobile": True}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
        assert ask("document.documentElement.scrollWidth") == 360
        assert {url for url in requests(driver) if not url.startswith("data:")} == {file.as_uri()}
        assert driver.get_log("browser") == []
