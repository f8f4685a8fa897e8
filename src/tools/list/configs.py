"""The table of configs that commands take by name."""

import re
from itertools import takewhile
from pathlib import Path

from ...configs.files import config_names, find_config
from ...utils.shipped import shipped
from ...utils.table import Table

COMMAND = re.compile(r"^ {2}|\b(python|bash|vitune) ")


def configs_table(word: str = "") -> Table:
    """What a name means here: a config in the folder ./configs, else the one that ships with ViTune.

    Args:
        word: only those with it in their name or description, whatever the case.

    Raises:
        ValueError: there are none.
    """
    rows = []
    for name in sorted(config_names()):
        file = find_config(name)
        what = description(file.read_text(encoding="utf-8"))
        if word.lower() in f"{name} {what}".lower():
            is_shipped = file.resolve().is_relative_to(shipped("configs").resolve())
            rows.append((f"{command(file)} {name}", "shipped" if is_shipped else "./configs", what))
    if not rows:
        raise ValueError(f"no config has {word!r} in its name or description; vitune list configs shows all of them")
    return Table(("command", "from", "what it is"), rows, "lll", below={"what it is": ""})


def command(config: Path) -> str:
    """What runs a config: "vitune tune" if it describes a sweep, else "vitune train"."""
    return "vitune tune" if re.search(r"^SWEEP:", config.read_text(encoding="utf-8"), re.MULTILINE) else "vitune train"


def description(text: str) -> str:
    """The first sentence of a config's head, the comment that it begins with, without the command that runs it."""
    comment = takewhile(lambda line: line.startswith("#"), text.splitlines())
    lines = []
    for line in (line.lstrip("#").removeprefix(" ") for line in comment):
        match = COMMAND.search(line)
        lines.append(line[: match.start()] if match else line)
        if match:
            break
    sentence = re.split(r"(?<=[a-z0-9)])\. (?=[A-Z])", " ".join(lines).strip())[0]
    return re.sub(r"(arXiv:[0-9.]+);[^)]*", r"\1", sentence).rstrip(":. ")  # without where the original code is
