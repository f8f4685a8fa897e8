"""Tables for the terminal."""

from collections.abc import Sequence


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
