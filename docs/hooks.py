"""MkDocs hooks: pages that are made from the code, so that they are always up to date."""

import re
import sys
from pathlib import Path

DOCS = Path(__file__).parent
ROOT = DOCS.parent
sys.path[:0] = [str(DOCS), str(ROOT)]

import generated  # noqa: E402
from mkdocs.structure.files import File, Files  # noqa: E402

METHODS_PAGE = "methods/about.md"
BACKBONES_PAGE = "backbones.md"
CODE_OR_PAPER = re.compile(r"^```.*?^```$|`[^`\n]*`|arXiv:(\d{4}\.\d{5})", re.M | re.S)


def on_config(config):
    """List the page of every method below that of all methods."""
    _add_below(config.nav, METHODS_PAGE, [{name: f"methods/{name}.md"} for name in generated.method_names()])
    return config


def on_files(files: Files, config) -> Files:
    """Add the pages that are not written by hand."""
    for path, text in generated.pages().items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page, **_) -> str:
    """Fill in the tables of methods and of backbones, and link generated pages and, outside of code, papers."""
    markdown = generated.linked_to_pages(markdown, page.file.src_uri)
    if page.file.src_uri == METHODS_PAGE:
        markdown = markdown.replace("<!-- methods table -->", generated.methods_table())
    if page.file.src_uri == BACKBONES_PAGE:
        markdown = markdown.replace("<!-- backbones table -->", generated.backbones_table())
    return CODE_OR_PAPER.sub(
        lambda match: f"[{match[0]}](https://arxiv.org/abs/{match[1]})" if match[1] else match[0], markdown
    )


def _add_below(nav: list, page: str, more: list) -> bool:
    """Append ``more`` to the list that holds ``page``; whether it was found."""
    if page in nav:
        nav.extend(more)
        return True
    inside = [value for item in nav if isinstance(item, dict) for value in item.values() if isinstance(value, list)]
    return any(_add_below(part, page, more) for part in inside)
