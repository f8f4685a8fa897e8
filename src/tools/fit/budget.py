"""The budget of minutes: what is left of it, what would be enough, and whether it was kept."""

import math

from .findings import Finding
from .words import seconds

SPARE = 0.05  # of the minutes: for testing and writing files
# What is done whatever the budget, as the clock's parts are called.
ALWAYS = {
    "look": "looking at the images",
    "features": "features",
    "heads": "heads",
    "final": "final model",
    "files": "test and files",
}


def seconds_left(minutes: float, spent: float) -> float:
    """For training; ``spent`` in seconds."""
    return 60 * minutes * (1 - SPARE) - spent


def enough_minutes(steps: int, per_step: float, spent: float) -> int:
    """Whole minutes with which so many steps of ``per_step`` seconds still fit in, after ``spent`` seconds."""
    return math.ceil((spent + steps * per_step) / 60 / (1 - SPARE))


def exceeded(minutes: float | None, spent: float, parts: dict[str, float]) -> list[Finding]:
    """What to say where the fit took longer than its minutes.

    Args:
        parts: seconds of each part.
    """
    if minutes is None or spent <= 60 * minutes:
        return []
    always = ", ".join(f"{what} {seconds(parts[part])}" for part, what in ALWAYS.items() if part in parts)
    text = f"it took {seconds(spent)}, more than the {seconds(60 * minutes)} that were given"
    text += f"; done whatever the budget: {always}" if always else ""
    return [Finding("over_budget", text, spent / 60)]
