"""Text for the terminal: tables, and whole answers."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

CLOSED = 141  # exit status of a program whose output nobody reads any more (128 + SIGPIPE)


def aligned(lines: Sequence[Sequence[str]], width: int = 0) -> str:
    """Columns of equal width: the first to the left, the others to the right, the head underlined.

    Args:
        width: what does not fit into so many characters goes below, with the first column again; 0: all side by side.
    """
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    parts, part, used = [], [], widths[0]
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
    """Whoever reads only the beginning of what is printed inside (``| head``) gets no error: the process ends.

    Raises:
        SystemExit: with status 141.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end
        sys.exit(CLOSED)


def put_out(text: str) -> int:
    """Print an answer; the exit status, 0."""
    with reader_may_leave():
        print(text)  # noqa: T201
    return 0
