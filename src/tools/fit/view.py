"""The live view: lines for what is done, and on a terminal a bar with what runs, what leads and what is left."""

import logging
import sys

from ...utils.progress import hidden_bars, tqdm

logger = logging.getLogger(__name__)


class View:
    """``with View(total) as view``: one bar over the budget; plain lines alone where there is no terminal.

    Args:
        total: of the budget, in ``unit``.
        quiet: say nothing, for code that shows its own progress.
    """

    def __init__(self, total: float, unit: str, quiet: bool = False):
        self.total = total
        self.unit = unit
        self.quiet = quiet
        self.leads = ""

    def __enter__(self) -> "View":
        self.hidden = hidden_bars(self.quiet or not sys.stderr.isatty())
        self.hidden.__enter__()
        shape = "{desc} |{bar}| {postfix}"
        self.bar = tqdm(total=self.total, bar_format=shape, dynamic_ncols=True, leave=False)
        return self

    def __exit__(self, *error) -> None:
        self.bar.close()
        self.hidden.__exit__(*error)

    def say(self, text: str) -> None:
        """One line, above the bar."""
        if not self.quiet:
            logger.info(text)

    def running(self, what: str, used: float) -> None:
        """What runs now, and how much of the budget is used."""
        self.bar.set_description_str(what, refresh=False)
        self.bar.n = min(used, self.total)
        left = max(0.0, self.total - used)
        amount = tqdm.format_interval(left) if self.unit == "seconds" else f"{left:,.0f} steps"
        self.bar.set_postfix_str(", ".join(filter(None, [self.leads, f"{amount} left"])), refresh=True)
