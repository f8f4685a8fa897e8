"""What a report holds, before it becomes Markdown, LaTeX, CSV or a page."""

from dataclasses import dataclass, field
from pathlib import Path

from .missing import Gap
from .tables import Table


@dataclass
class Report:
    """The contents of the report, in order.

    Attributes:
        main: tables of accuracies.
        others: tests, pairs, ablations and records.
        pictures: name of a file -> its caption.
        labels: folder -> its row.
    """

    title: str
    summary: list[str]
    main: list[Table] = field(default_factory=list)
    others: list[Table] = field(default_factory=list)
    pictures: dict[str, str] = field(default_factory=dict)
    labels: dict[Path, str] = field(default_factory=dict)
    gaps: list[Gap] = field(default_factory=list)
