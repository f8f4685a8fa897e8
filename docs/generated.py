"""The pages of the documentation that are generated: methods, config keys, commands, and files that stand elsewhere."""

import contextlib
import functools
import importlib
import inspect
import io
import os
import re
from pathlib import Path

import nbformat
import yaml
from torch import nn

from src.configs.config import get_cfg
from src.models.listing import methods_table as printed_table
from src.models.method import Method
from src.models.vit_models import FREQFIT_METHODS, METHODS, SHORTHANDS, config_name

ROOT = Path(__file__).parents[1]


def pages() -> dict[str, str]:
    """Path below docs/pages -> Markdown."""
    return {
        "vtab.md": (ROOT / "VTAB_SETUP.md").read_text(),
        "pretrained.md": (ROOT / "pretrained" / "README.md").read_text(),
        "five-minutes.md": notebook_page(ROOT / "docs" / "five-minutes.ipynb"),
        "reference/keys.md": keys_page(),
        "reference/commands.md": commands_page(),
        **{f"methods/{name}.md": method_page(name) for name in METHODS},
    }


# --- methods


def method_names() -> list[str]:
    return list(METHODS)


def methods_table() -> str:
    """The table, each method linked to its page."""
    return "\n".join(re.sub(r"^\| `([\w-]+)`", r"| [`\1`](\1.md)", line) for line in printed_lines())


def method_page(name: str) -> str:
    """What the method's file says of it, its row in the table, its keys and the shipped configs that use it."""
    method = METHODS[name]
    module = inspect.getmodule(method)
    cells = [cell.strip() for cell in next(r for r in printed_lines() if f"`{name}`" in r.split("|")[1]).split("|")]
    names, learns, count, folds, any_backbone, paper = cells[1:7]
    facts = {
        "paper": paper or "-",
        "trained on ViT-B/16, without the head": count,
        "folds into a plain timm model": folds,
        "works on Swin and ConvNeXt": any_backbone,
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
def printed_lines() -> list[str]:
    """The table that ``vitune list methods`` prints."""
    return printed_table(get_cfg()).splitlines()


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
    """The configs in configs/methods that use the method, with the first line of their head."""
    wanted = {name, *(short for short, (method, _) in SHORTHANDS.items() if method == name)}
    lines = []
    for path in sorted((ROOT / "configs" / "methods").glob("*.yaml")):
        text = path.read_text()
        used = str(yaml.safe_load(text).get("MODEL", {}).get("TRANSFER_TYPE", ""))
        if wanted & {re.sub(r"-\d+$", "", part) for part in used.split("+")}:
            head = re.sub(r":?\s*python train\.py.*", "", text.splitlines()[0].removeprefix("# ")).rstrip(" :,")
            lines.append(f"- `methods/{path.stem}`: {head}")
    return "\n".join(lines) or "None of its own; any config takes it on the command line, as above."


# --- keys

KEYS_HEAD = ["| key | default | what it sets |", "|---|---|---|"]


def all_keys() -> dict[str, dict]:
    """Every config key -> its default and comment."""
    try:
        from src.configs.reference import all_keys as declared
    except ImportError:
        return _keys_in_source()
    return {name: vars(key) | {"range": key.range} for name, key in declared().items()}


def _keys_in_source() -> dict[str, dict]:
    sources = [("", inspect.getsource(get_cfg))]
    sources += [(f"MODEL.{config_name(n)}.", inspect.getsource(m.defaults)) for n, m in METHODS.items()]
    keys = {}
    for prefix, text in sources:
        comment = []
        for line in map(str.strip, text.splitlines()):
            if line.startswith("# "):
                comment.append(line[2:])
            elif match := re.match(r"cfg\.([A-Z_.0-9]+) = (.*?)(  #.*)?$", line):
                keys[prefix + match[1]] = {"default": match[2], "comment": " ".join(comment)}
                comment = []
            else:
                comment = []
    return {name: key for name, key in keys.items() if key["default"] != "CfgNode()"}


def keys_table(prefix: str) -> str:
    rows = [key_row(name, facts) for name, facts in all_keys().items() if name.startswith(prefix)]
    if not rows:
        return "It has none."
    return "\n".join([*KEYS_HEAD, *rows])


def key_row(name: str, facts: dict) -> str:
    text = facts["comment"].replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_")
    if choices := facts.get("choices"):
        text += f" Choices: {', '.join(f'`{choice}`' for choice in choices)}."
    default = str(facts["default"]).replace("|", "\\|") or '""'
    return f"| `{name}` | `{default}` | {text} |"


def keys_page() -> str:
    """One table for each section; those of methods by their names."""
    sections: dict[str, list[str]] = {}
    for name, facts in all_keys().items():
        sections.setdefault(name.rpartition(".")[0] or "Top level", []).append(key_row(name, facts))
    parts = [
        "# Config keys",
        "Set a key in a YAML file or as `KEY VALUE` on the command line. A misspelt key stops the run and names the "
        "nearest ones. Keys of methods that are not in use have no effect.",
    ]
    for section in sorted(sections, key=lambda s: (s.count("."), s != "Top level")):
        parts.append(
            f"## {section}\n\n| key | default | what it sets |\n|---|---|---|\n" + "\n".join(sections[section])
        )
    return "\n\n".join(parts) + "\n"


# --- commands and the notebook

COMMANDS = (
    "seeds tune report predict export merge forgetting wise robustness compare attention filters sensitivity bench "
    "prepare repro demo"
)
TOOLS = {name: "runs" if name == "seeds" else name for name in COMMANDS.split()}


def commands_page() -> str:
    """The --help of every command."""
    os.environ["COLUMNS"] = "100"
    parts = ["# Commands", "What `vitune <command> --help` prints."]
    for name, module in TOOLS.items():
        text = io.StringIO()
        with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
            tool = importlib.import_module(f"src.tools.{module}")
            getattr(tool, "main", None) or (tool := importlib.import_module(f"src.tools.{module}.__main__"))
            tool.main(["--help"])
        parts.append(f"## {name}\n\n```text\n{text.getvalue()}```")
    return "\n\n".join(parts) + "\n"


def notebook_page(path: Path) -> str:
    """A notebook as Markdown: its text and its code; it is kept without outputs."""
    cells = nbformat.read(path, as_version=4).cells
    texts = [c.source if c.cell_type == "markdown" else f"```python\n{c.source}\n```" for c in cells]
    return "\n\n".join(texts) + f"\n\nThis page is the notebook `docs/{path.name}` of the repository.\n"
