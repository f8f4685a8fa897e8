"""YAML and values written by people. Differences from ``yaml.safe_load``:

- a key that occurs twice in a section is reported, with its lines, instead of the last one being taken;
- yes, no, on and off are strings, as in YAML 1.2, so that ``SOLVER: {AMP: off}`` means what it seems to mean;
- size, depth and expanded aliases are limited: no file can exhaust the machine.
"""

import ast
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import Composer
from yaml.constructor import SafeConstructor
from yaml.resolver import Resolver

CHARACTERS = 2**20  # of a file, before and after expanding its aliases
DEPTH = 50

if yaml.__with_libyaml__:
    from yaml.cyaml import CParser as _Parser
else:

    class _Parser(yaml.reader.Reader, yaml.scanner.Scanner, yaml.parser.Parser):
        def __init__(self, stream: str | bytes):
            yaml.reader.Reader.__init__(self, stream)
            yaml.scanner.Scanner.__init__(self)
            yaml.parser.Parser.__init__(self)


def lines_of(places: list[int]) -> str:
    """``line 3``, or ``lines 3, 5 and 9``."""
    *others, last = sorted(set(places))
    return f"lines {', '.join(map(str, others))} and {last}" if others else f"line {last}"


@dataclass
class Document:
    """A parsed YAML text.

    Attributes:
        content: as from ``yaml.safe_load``; of a repeated key, the last value.
        twice: one sentence per repeated key.
        lines: the lines of every value, by its path of keys joined by dots: ``{"SOLVER.BASE_LR": [3]}``; several if a
            path is written in different ways (``SOLVER: {BASE_LR: 1}`` and ``SOLVER.BASE_LR: 1``).
    """

    content: Any = None
    twice: list[str] = field(default_factory=list)
    lines: dict[str, list[int]] = field(default_factory=dict)


def read_yaml(path: str | Path) -> Document:
    """Parse a file.

    Raises:
        OSError: it cannot be read.
        yaml.YAMLError: it is not YAML, or too large for settings.
    """
    with open(path, "rb") as file:
        return parse_yaml(file.read(CHARACTERS + 1))


def parse_yaml(text: str | bytes) -> Document:
    """Parse a text.

    Raises:
        yaml.YAMLError: as ``read_yaml``.
    """
    if len(text) > CHARACTERS:
        raise yaml.YAMLError(f"it is larger than {CHARACTERS:,} bytes, too large for settings")
    loader = None
    try:
        loader = _Loader(text)
        content = loader.get_single_data()
        return Document(content, loader.twice, loader.lines)
    finally:
        if loader is not None:
            loader.dispose()


def safe_load(text: str | bytes) -> Any:
    """Only the content of a text.

    Raises:
        yaml.YAMLError: as ``read_yaml``, and for repeated keys.
    """
    document = parse_yaml(text)
    if document.twice:
        raise yaml.YAMLError("; ".join(document.twice))
    return document.content


def read_value(text: str) -> Any:
    """A value from the command line, read as Python or YAML: ``[1, 2]``, ``None``, ``{r: 8}``, ``off``.

    Raises:
        yaml.YAMLError: it is neither, or has a repeated key.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval")
        value = ast.literal_eval(tree)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return safe_load(text)
    for node in ast.walk(tree):
        keys = [ast.unparse(key) for key in node.keys if key] if isinstance(node, ast.Dict) else []
        if twice := [key for key in dict.fromkeys(keys) if keys.count(key) > 1]:
            raise yaml.YAMLError(f"{', '.join(twice)} occurs twice")
    return value


class _Loader(Composer, _Parser, SafeConstructor, Resolver):
    """Composes nodes itself, so that each is checked before anything is constructed from it."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML requires it
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
        for first, resolvers in Resolver.yaml_implicit_resolvers.items()
    }

    def __init__(self, text: str | bytes):
        _Parser.__init__(self, text)
        Composer.__init__(self)
        SafeConstructor.__init__(self)
        Resolver.__init__(self)
        self.twice: list[str] = []
        self.lines: dict[str, list[int]] = {}
        self._path: list[str] = []
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        place, is_alias = self.peek_event().start_mark, self.check_event(yaml.AliasEvent)
        named = isinstance(parent, yaml.MappingNode) and isinstance(index, yaml.ScalarNode)
        self._path.append(index.value if named else str(index))
        self._depth += 1
        if self._depth > DEPTH:
            raise yaml.composer.ComposerError(None, None, f"it is nested more than {DEPTH} deep", place)
        node = super().compose_node(parent, index)
        if not is_alias:
            node.size, node.depth = _extent(node)
        elif not hasattr(node, "size"):
            raise yaml.composer.ComposerError(None, None, "an alias refers to a node that contains it", place)
        if node.size > CHARACTERS or node.depth > DEPTH:
            raise yaml.composer.ComposerError(None, None, "aliases expand to more than settings can be", place)
        if named and not isinstance(node, yaml.MappingNode):
            self.lines.setdefault(".".join(self._path[1:]), []).append(index.start_mark.line + 1)
        self._depth -= 1
        self._path.pop()
        return node

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node, lines = super().compose_mapping_node(anchor), {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                merges = key.tag == "tag:yaml.org,2002:merge"
                name = "<<" if merges else self.construct_object(key)
                lines.setdefault(name, []).append(key.start_mark.line + 1)
        for name, places in lines.items():
            if len(places) > 1:
                where = ".".join([*self._path[1:], str(name)])
                hint = "; to merge several, write <<: [*one, *other]" if name == "<<" else ""
                self.twice.append(f"{where} occurs twice, in {lines_of(places)}{hint}")
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:  # 2020-99-99, !!bool maybe
            raise yaml.constructor.ConstructorError(None, None, str(error), node.start_mark) from error


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)


def _extent(node: yaml.Node) -> tuple[int, int]:
    """The number of characters and the depth of a node with all its aliases expanded."""
    if isinstance(node, yaml.ScalarNode):
        return 1 + len(node.value), 1
    parts = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
    return 1 + sum(part.size for part in parts), 1 + max((part.depth for part in parts), default=0)
