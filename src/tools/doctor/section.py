"""A part of the report: facts, and what is wrong with them."""

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field

LABEL = 16  # characters of the column with the facts' names


@dataclass
class Section:
    """Facts under a title.

    Attributes:
        facts: by their name; of several values, a list.
        warnings: what may surprise, and what to do about it.
        errors: what stops a run, and what to do about it.
    """

    title: str
    facts: dict[str, str | list[str]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def text(self, width: int) -> str:
        """For a terminal."""
        lines = [self.title]
        for name, value in self.facts.items():
            for i, part in enumerate([value] if isinstance(value, str) else value):
                lines += _hanging(f"  {'' if i else name:<{LABEL}}", part, width)
        for kind, messages in (("warning: ", self.warnings), ("error: ", self.errors)):
            for message in messages:
                lines += _hanging(f"  {kind}", message, width)
        return "\n".join(lines)


def _hanging(label: str, text: str, width: int) -> list[str]:
    """``text`` after ``label``, its further lines below its first."""
    label = label if label.endswith(" ") else f"{label} "
    return textwrap.wrap(
        text,
        width,
        initial_indent=label,
        subsequent_indent=" " * len(label),
        break_long_words=False,  # paths are copied from here
        break_on_hyphens=False,
    ) or [label.rstrip()]


def content(sections: list[Section]) -> Mapping[str, object]:
    """For programs: the facts by title, and all warnings and errors."""
    errors = [message for section in sections for message in section.errors]
    return {
        "can_start": not errors,
        "facts": {section.title: section.facts for section in sections},
        "warnings": [message for section in sections for message in section.warnings],
        "errors": errors,
    }


def size(amount: float) -> str:
    """Bytes for people: "13.2 GiB"."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "bytes" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"
