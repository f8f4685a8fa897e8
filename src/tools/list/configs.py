"""The table of configs that commands take by name."""

import re
from itertools import takewhile
from pathlib import Path

from ...utils.shipped import command, config_names, shipped
from ...utils.table import Table

OWN = Path("configs")
COMMAND = re.compile(r"^ {2}|\b(python|bash|vitune) ")


def configs_table(word: str = "") -> Table:
    """Configs of the folder ./configs, and those shipped that it has none of the same name for.

    Args:
        word: only those with it in their name or description, whatever the case.

    Raises:
        ValueError: there are none.
    """
    own, ready_made = config_names(OWN), config_names(shipped("configs"))
    if OWN.resolve() == shipped("configs").resolve():  # in a checkout
        own = {}
    rows = []
    for name, file in sorted((ready_made | own).items()):
        text = file.read_text(encoding="utf-8")
        what = description(text)
        if word.lower() in f"{name} {what}".lower():
            rows.append((f"{command(file)} {name}", f"./{OWN}" if name in own else "shipped", what))
    if not rows:
        raise ValueError(f"no config has {word!r} in its name or description; vitune list configs shows all of them")
    return Table(("command", "from", "what it is"), rows, "lll", below={"what it is": ""})


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
