"""The pages of the documentation that are generated: methods, config keys, commands, and files that stand elsewhere."""

import functools
import inspect
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import takewhile
from pathlib import Path

import nbformat
import yaml
from torch import nn

from src import cli
from src.configs.config import get_cfg
from src.configs.keys import Key
from src.configs.reference import all_keys
from src.models import listing
from src.models.method import Method
from src.models.vit_backbones.zoo import MODEL_ZOO
from src.models.vit_models import FREQFIT_METHODS, METHODS, SHORTHANDS, config_name
from src.tools.command import make_parser
from src.tools.list.backbones import STATISTICS, pixels
from src.utils.table import Table

ROOT = Path(__file__).parents[1]


# Files of the repository that pages link to, where a checkout has no such page -> the page that is made of each.
MADE_OF = {
    "VTAB_SETUP.md": "vtab.md",
    "pretrained/README.md": "pretrained.md",
    "docs/five-minutes.ipynb": "five-minutes.md",
    "docs/fit.ipynb": "fit-notebook.md",
    "src/configs/tree.py": "reference/keys.md",
    "src/cli.py": "reference/commands.md",
    "src/models/methods/freqfit.py": "methods/freqfit.md",
    "src/models/methods/scale_shift.py": "methods/scale_shift.md",
}


def linked_to_pages(markdown: str, page: str) -> str:
    """A page's Markdown with links to the files in MADE_OF as links to pages.

    Args:
        page: its path below docs/pages.
    """
    folder = (ROOT / "docs" / "pages" / page).parent

    def to_page(link: re.Match) -> str:
        file = os.path.relpath(folder / link[1], ROOT)
        made = ROOT / "docs" / "pages" / MADE_OF.get(file, "")
        return f"]({os.path.relpath(made, folder)}" if file in MADE_OF else link[0]

    return re.sub(r"\]\(([^)#\s]+)", to_page, markdown)


def pages() -> dict[str, str]:
    """Path below docs/pages -> Markdown."""
    return {
        "vtab.md": (ROOT / "VTAB_SETUP.md").read_text(),
        "pretrained.md": (ROOT / "pretrained" / "README.md").read_text(),
        "five-minutes.md": notebook_page(ROOT / "docs" / "five-minutes.ipynb"),
        "fit-notebook.md": notebook_page(ROOT / "docs" / "fit.ipynb"),
        "reference/keys.md": keys_page(),
        "reference/commands.md": commands_page(),
        **{f"methods/{name}.md": method_page(name) for name in METHODS},
    }


# --- backbones


def backbones_table() -> str:
    """The model zoo: what ``vitune list backbones`` prints, without what is on this disk."""
    columns = ("DATA.FEATURE", "file", "architecture", "pixels", "mean, std", "pooled", "licence")
    rows = []
    for name, row in MODEL_ZOO.items():
        statistics = STATISTICS.get(row.mean_std, "its own")
        rows.append((f"`{name}`", f"`{row.files[0]}`", row.arch, pixels(row), statistics, row.pool, row.licence))
    return Table(columns, rows, "lllrlll").markdown()


# --- methods


def method_names() -> list[str]:
    return list(METHODS)


def methods_table() -> str:
    """The table that ``vitune list methods`` prints, each method linked to its page."""
    short = ["method", table().columns[1], "on ViT-B/16", *table().columns[3:]]
    return re.sub(r"(?m)^\| `([\w-]+)`", r"| [`\1`](\1.md)", replace(table(), columns=short).markdown())


def method_page(name: str) -> str:
    """What the method's file says of it, its row in the table, its keys and the shipped configs that use it."""
    method = METHODS[name]
    module = inspect.getmodule(method)
    names, learns, count, folds, any_backbone, paper = next(row for row in table().rows if f"`{name}`" in row[0])
    facts = {
        "paper": paper or "-",
        "trained on ViT-B/16, without the head": count,
        "starts at the pre-trained model": "yes" if method.starts_pretrained else "no",
        "folds into a plain timm model": folds,
        f"works on {table().columns[4]}": any_backbone,
        "learning rate with `SOLVER.BASE_LR -1` (AdamW)": f"{method.adamw_lr:g}",
        "source": f"`{source_file(module)}`",
    }
    (first, value), *others = facts.items()
    parts = [
        f"# {method.__name__}",
        f"{names}: {learns}.",
        f"```bash\n{command(name)}\n```",
        "\n".join([f"| {first} | {value} |", "|---|---|", *(f"| {fact} | {value} |" for fact, value in others)]),
        "## What it computes",
        *docstrings(method, module),
        "## Keys",
        keys_table(f"MODEL.{config_name(name)}."),
        "## Shipped configs",
        shipped_configs(name),
    ]
    return "\n\n".join(parts) + "\n"


@functools.cache
def table() -> Table:
    return listing.methods_table(get_cfg())


def command(name: str) -> str:
    """One run with the method, on the demo's data."""
    freqfit = {method: value for value, method in FREQFIT_METHODS.items()}
    if name in freqfit:
        return f"vitune train digits MODEL.TRANSFER_TYPE lora FREQFIT {freqfit[name]}"
    return f"vitune train digits MODEL.TRANSFER_TYPE {name}"


def source_file(module) -> str:
    return str(Path(module.__file__).relative_to(ROOT))


def docstrings(method: type[Method], module) -> list[str]:
    """The docstrings of the method's file, its class and its taps."""
    taps = [c for _, c in inspect.getmembers(module, inspect.isclass) if c.__module__ == module.__name__]
    taps = [c for c in taps if issubclass(c, nn.Module) and not issubclass(c, Method)]
    texts = [inspect.cleandoc(module.__doc__ or "")]
    if own := method.__dict__.get("__doc__"):
        texts.append(inspect.cleandoc(own))
    taps.sort(key=lambda c: inspect.getsourcelines(c)[1])
    texts += [f"`{tap.__name__}`: {inspect.cleandoc(tap.__doc__)}" for tap in taps if tap.__doc__]
    return texts


def shipped_configs(name: str) -> str:
    """The configs in configs/methods that use the method, with what their heads say of them."""
    wanted = {name, *(short for short, (method, _) in SHORTHANDS.items() if method == name)}
    lines = []
    for path in sorted((ROOT / "configs" / "methods").glob("*.yaml")):
        text = path.read_text()
        settings = yaml.safe_load(text)
        used = re.sub(r"-\d+\b", "", str(settings.get("MODEL", {}).get("TRANSFER_TYPE", ""))).split("+")
        if wanted & {*used, FREQFIT_METHODS.get(settings.get("FREQFIT", ""))}:
            lines.append(f"- `methods/{path.stem}`: {head_of(text)}")
    return "\n".join(lines) or "None of its own; any config takes it on the command line, as above."


def head_of(config: str) -> str:
    """The comment that a config starts with, without its commands."""
    comment = [line.removeprefix("# ") for line in takewhile(lambda line: line.startswith("#"), config.splitlines())]
    lines = [line for line in comment if not re.match(r" |python |vitune |bash ", line)]
    text = re.sub(r"[.:]? (not run yet|measured)", lambda match: f". {match[1].capitalize()}", " ".join(lines))
    return text.replace("not tuned The", "not tuned. The").rstrip(".") + "."


# --- keys

KEYS_HEAD = ["| key | default | values | what it sets |", "|---|---|---|---|"]
KEYS_TEXT = """# Config keys

Set a key in a YAML file or as `KEY VALUE` on the command line. A misspelt key stops the run and names the nearest ones.
Keys of methods that are not in use have no effect. The last section lists the keys that belong to the machine, which do
not change the name of a run's folder, and those that belong to one task."""
ROLES = {
    "machine": "**of the machine**: where things are and how fast; the result is the same experiment",
    "task": "**of one task**: they mean nothing for another data set",
    "sample": "**of the choice among a task's images**",
}


def keys_table(prefix: str) -> str:
    """The keys of one method, or a sentence where it has none."""
    rows = [key_row(key) for name, key in all_keys().items() if name.startswith(prefix)]
    return "\n".join([*KEYS_HEAD, *rows]) if rows else "It has none."


def key_row(key: Key) -> str:
    parts = key.comment.replace("``", "`").replace("|", "\\|").split("`")
    parts[::2] = [re.sub(r"([*_])", r"\\\1", part).replace("<", "&lt;") for part in parts[::2]]  # not what is code
    values = ", ".join(f"`{shown(choice)}`" for choice in key.choices)
    if key.low is not None or key.high is not None:
        values = key.range + (f" ({key.unit})" if key.unit else "")
    return f"| `{key.name}` | `{shown(key.default)}` | {values or key.form} | {'`'.join(parts)} |"


def shown(value: object) -> str:
    """A value as one writes it on the command line."""
    text = str(value) if isinstance(value, str | bool | float | int) else str(value).replace("'", "")
    return text.replace("|", "\\|") or '""'


def keys_page() -> str:
    """One table for each section; those of methods by their names."""
    sections: dict[str, list[str]] = {}
    for name, key in all_keys().items():
        sections.setdefault(name.rpartition(".")[0] or "Top level", []).append(key_row(key))
    parts = [KEYS_TEXT]
    for section in sorted(sections, key=lambda s: (s.count("."), s != "Top level")):
        parts.append("\n".join([f"## {section}\n", *KEYS_HEAD, *sections[section]]))
    parts.append("\n".join(roles()))
    return "\n\n".join(parts) + "\n"


def roles() -> Iterator[str]:
    """The keys that are not part of every experiment, by what they are part of."""
    yield "## Keys of the machine and of a task\n"
    for role, text in ROLES.items():
        names = ", ".join(f"`{name}`" for name, key in all_keys().items() if key.role == role)
        yield f"- {text}: {names}"


# --- commands and the notebook

COMMANDS_TEXT = """# Commands

`vitune` alone lists the commands. This page is what `vitune COMMAND --help` prints."""


def commands_page() -> str:
    """The help of every command."""
    os.environ["COLUMNS"] = "100"
    parts = [COMMANDS_TEXT]
    for name, (_, summary) in cli.COMMANDS.items():
        tool = cli.tool(name)
        text = make_parser(name, tool.__doc__, tool.add_options).format_help()
        parts.append(f"## {name}\n\n{summary[0].upper()}{summary[1:]}.\n\n```text\n{text}```")
    return "\n\n".join(parts) + "\n"


def notebook_page(path: Path) -> str:
    """A notebook as Markdown: its text and its code; it is kept without outputs."""
    cells = nbformat.read(path, as_version=4).cells
    texts = [c.source if c.cell_type == "markdown" else f"```python\n{c.source}\n```" for c in cells]
    return "\n\n".join(texts) + f"\n\nThis page is the notebook `docs/{path.name}` of the repository.\n"
