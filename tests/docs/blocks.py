"""The code blocks of the README and of the pages of the documentation."""

import re
from dataclasses import dataclass
from pathlib import Path

from paths import ROOT

PAGES = [ROOT / name for name in ("README.md", "VTAB_SETUP.md", "pretrained/README.md")]
PAGES += sorted((ROOT / "docs" / "pages").rglob("*.md"))
FENCE = re.compile(r"^(?P<before><!-- not run: .+ -->\n)?```(?P<language>.*)\n(?P<text>(?:.*\n)*?)```$", re.M)


@dataclass(frozen=True)
class Block:
    """A fenced block; ``language`` is the word after its fence. Of "text" nothing is run: it shows files or output.

    A block after a comment ``<!-- not run: the reason -->`` is not run either.
    """

    page: str
    line: int
    language: str
    text: str
    runs: bool

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def commands(self) -> list[str]:
        """The lines of a bash block, without comments and with continued lines joined."""
        joined = self.text.replace("\\\n", " ")
        return [line.split("  #")[0].strip() for line in joined.splitlines() if line.strip() and line[0] != "#"]


def blocks_of(path: Path) -> list[Block]:
    text = path.read_text()
    page = str(path.relative_to(ROOT))
    return [
        Block(page, text[: m.start()].count("\n") + 1, m["language"], m["text"], not m["before"])
        for m in FENCE.finditer(text)
    ]


BLOCKS = [block for path in PAGES for block in blocks_of(path)]


def blocks(language: str, page: str = "") -> list[Block]:
    """Those that are run, of one page or of all."""
    return [b for b in BLOCKS if b.language == language and b.runs and page in ("", b.page)]
