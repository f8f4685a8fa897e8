"""Text for the terminal: tables and output."""

import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

CLOSED = 141  # exit status if the reader of the output is gone (128 + SIGPIPE)


def with_article(name: str) -> str:
    """ "an Eva", "a Swin"; names that are spelt out go by the sound of their first letter: "an MViT v2"."""
    spelt_out = re.match(r"X|[FHLMNRS][B-DF-HJ-NP-TV-XZ]", name)
    return f"{'an' if spelt_out or name[:1] in 'AEIOUaeiou' else 'a'} {name}"


def a_kind(value: object) -> str:
    """The class of a value in words: "an Eva"."""
    return with_article(type(value).__name__)


def aligned(lines: Sequence[Sequence[str]], width: int = 0) -> str:
    """Aligned columns: the first to the left, the others to the right, the header underlined.

    Args:
        width: columns beyond this many characters go below, with the first column repeated; 0: no limit.
    """
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    parts = []
    part = []
    used = widths[0]
    for i in range(1, len(widths)):
        if part and width and used + 2 + widths[i] > width:
            parts.append(part)
            part, used = [], widths[0]
        part.append(i)
        used += 2 + widths[i]
    blocks = []
    for some in [*parts, part]:
        text = ["  ".join([f"{line[0]:<{widths[0]}}", *(f"{line[i]:>{widths[i]}}" for i in some)]) for line in lines]
        blocks.append("\n".join([text[0], "-" * len(text[0]), *text[1:]]))
    return "\n\n".join(blocks)


@contextmanager
def reader_may_leave() -> Iterator[None]:
    """End the process silently if the reader of the output closes it early (``| head``).

    Raises:
        SystemExit: with status 141.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes again on exit
        sys.exit(CLOSED)


def put_out(text: str) -> int:
    """Print ``text``; returns the exit status 0."""
    with reader_may_leave():
        print(text)  # noqa: T201
    return 0
