"""Plots as SVG inside the page, in the page's own colours."""

import math
from collections.abc import Sequence

from .page_parts import percent, text

WIDTH, ROW, LEFT = 440, 26, 88


def interval(rows: Sequence[tuple[str, float, float, float]]) -> str:
    """Labelled points with their intervals, on an axis that shows the part where they lie.

    Args:
        rows: label, value, low, high; fractions.
    """
    step = 0.05 if max(high for *_, high in rows) - min(low for _, _, low, _ in rows) < 0.4 else 0.1
    first = math.floor(round(min(low for _, _, low, _ in rows) / step, 6)) * step
    last = math.ceil(round(max(high for *_, high in rows) / step, 6)) * step
    last = last if last > first else first + step

    def x(value: float) -> float:
        return LEFT + (WIDTH - LEFT - 24) * (value - first) / (last - first)

    bottom = ROW * len(rows) + 6
    parts = []
    for i in range(round((last - first) / step) + 1):
        at = x(first + i * step)
        parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="2" y2="{bottom}"/>')
        parts.append(f'<text class="tick" x="{at:.1f}" y="{bottom + 14}">{100 * (first + i * step):.0f}</text>')
    for i, (label, value, low, high) in enumerate(rows):
        y = ROW * i + ROW / 2 + 2
        parts.append(f'<text x="0" y="{y + 4}">{text(label)}</text>')
        parts.append(f'<line class="whisker" x1="{x(low):.1f}" x2="{x(high):.1f}" y1="{y}" y2="{y}"/>')
        parts.append(f'<circle cx="{x(value):.1f}" cy="{y}" r="5"/>')
    caption = "; ".join(f"{label} {percent(v)}, {percent(low)} to {percent(high)}" for label, v, low, high in rows)
    return _svg(WIDTH, bottom + 20, caption, parts)


def reliability(bins: Sequence[dict]) -> str:
    """Accuracy over confidence (DeGroot and Fienberg, 1983); the size of a point is the number of images."""
    side, left, top = 300, 46, 10

    def at(confidence: float, accuracy: float) -> tuple[float, float]:
        return left + side * confidence, top + side * (1 - accuracy)

    parts = []
    for i in range(6):
        (x, _), (_, y) = at(i / 5, 0), at(0, i / 5)
        parts.append(f'<line class="grid" x1="{x}" x2="{x}" y1="{top}" y2="{top + side}"/>')
        parts.append(f'<line class="grid" x1="{left}" x2="{left + side}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text class="tick" x="{x}" y="{top + side + 16}">{20 * i}</text>')
        parts.append(f'<text class="tick end" x="{left - 6}" y="{y + 4}">{20 * i}</text>')
    (x1, y1), (x2, y2) = at(0, 0), at(1, 1)
    parts.append(f'<line class="ideal" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>')
    points = [at(one["confidence"], one["accuracy"]) for one in bins]
    parts.append(f'<polyline points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>')
    most = max(one["images"] for one in bins)
    for (x, y), one in zip(points, bins, strict=True):
        label = f"{one['images']} images: {percent(one['confidence'])} sure, {percent(one['accuracy'])} right"
        radius = 3 + 6 * math.sqrt(one["images"] / most)
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"><title>{label}</title></circle>')
    parts.append(f'<text class="tick" x="{left + side / 2}" y="{top + side + 34}">probability given, %</text>')
    middle = top + side / 2
    parts.append(f'<text class="tick" transform="translate(12 {middle}) rotate(-90)">right, %</text>')
    return _svg(left + side + 14, top + side + 40, "accuracy over the probability given", parts)


def _svg(width: float, height: float, label: str, parts: Sequence[str]) -> str:
    head = f'<svg viewBox="0 0 {width} {height}" width="{width}" role="img" aria-label="{text(label)}">'
    return f"{head}{''.join(parts)}</svg>"
