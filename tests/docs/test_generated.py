"""The generated pages have everything that the code has."""

import re
import sys

import pytest
from paths import ROOT

from src import cli
from src.configs.reference import all_keys
from src.models import listing
from src.models.vit_models import METHODS, config_name


@pytest.fixture(scope="module")
def generated():
    """docs/generated.py, without the time that counting parameters takes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "docs")
        patch.setattr(listing, "_count", lambda *_: "1,234")
        import generated

        generated.table()
        yield generated
    del sys.modules["generated"]


@pytest.fixture(scope="module")
def pages(generated):
    return generated.pages()


def test_every_key_has_its_row_with_its_comment(pages):
    for name, key in all_keys().items():
        (row,) = re.findall(rf"^\| `{re.escape(name)}` \|.*", pages["reference/keys.md"], flags=re.M)
        cells = re.split(r"(?<!\\)\|", row)
        assert len(cells) == 6, row
        assert key.comment.split()[0].strip("`") in cells[4].replace("\\", "")
        assert all(f"`{choice}`" in cells[3] for choice in key.choices if choice)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_page_and_a_row_that_leads_there(generated, pages, name):
    page = pages[f"methods/{name}.md"]
    assert METHODS[name].paper in page
    assert "1,234" in page
    assert all(f"| `{key}` |" in page for key in all_keys() if key.startswith(f"MODEL.{config_name(name)}."))
    assert f"[`{name}`]({name}.md)" in generated.methods_table()


def test_every_command_has_its_help(pages):
    for name in cli.COMMANDS:
        assert f"## {name}\n" in pages["reference/commands.md"]
        assert f"usage: vitune {name}" in pages["reference/commands.md"]


def test_commands_of_method_pages_are_understood(pages):
    from commands import vitune

    from src.configs.config import load_cfg

    for name in METHODS:
        (command,) = re.findall(r"^vitune (.*)$", pages[f"methods/{name}.md"], flags=re.M)
        args = vitune(command.split())
        load_cfg(args.config_file, args.opts)


def test_every_shipped_config_of_a_method_is_on_a_page(pages):
    text = "".join(page for path, page in pages.items() if path.startswith("methods/"))
    for path in (ROOT / "configs" / "methods").glob("*.yaml"):
        assert f"- `methods/{path.stem}`: " in text


def test_pages_and_readme_show_the_matrix_as_it_was_found(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    import matrix

    found = matrix.matrix.read()
    assert matrix.PAGE.read_text(encoding="utf-8") == matrix.page(found)
    readme = matrix.README.read_text(encoding="utf-8")
    assert "| Eva | " in readme
    assert readme == matrix.readme(readme, found)


def test_links_to_files_become_links_to_the_pages_made_of_them(generated, pages):
    text = "[weights](../../../pretrained/README.md#where) and [paper](https://arxiv.org) and [page](method.md)"
    expected = text.replace("../../../pretrained/README.md", "../pretrained.md")
    assert generated.linked_to_pages(text, "adding/backbone.md") == expected
    assert all((ROOT / file).is_file() for file in generated.MADE_OF)
    assert set(generated.MADE_OF.values()) <= pages.keys()
