"""Turn run folders into the tables of a paper: Markdown, LaTeX, CSV, plots, and one HTML page.

    vitune report output/ --to report/
    vitune report output/ more_runs/ --baseline linear --published
    vitune report output/ --tasks natural --published LoRA SSF --title "Natural tasks"
    vitune report output/ --ablation MODEL.LORA.RANK --ablation SOLVER.BASE_LR --pair FREQFIT

RESULTS are searched for run folders (folders with a config.yaml). Writes to --to: report.md,
report.tex, report.html (everything in one file that opens from disk), report.csv (one line per
run), tables.csv (one line per cell) and figures/ (PNG and PDF).

Exit status: 0 on success, also if results are missing: the report lists them with the commands that
produce them. 2 for a problem with the command line, 1 for any other error.
"""

import argparse
import sys

from ...utils.paths import given_path
from .. import command


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "results", nargs="+", metavar="RESULTS", type=given_path, help="folders with run folders in them"
    )
    parser.add_argument(
        "--to", default="report", metavar="DIR", type=given_path, help="where to write (default: report/)"
    )
    parser.add_argument("--title", default="Results", help="heading of the report")
    parser.add_argument("--tasks", nargs="+", default=[], metavar="TASK", help="only these tasks, or groups of tasks")
    parser.add_argument("--baseline", default="", metavar="ROW", help="compare every row with this one, not all pairs")
    parser.add_argument(
        "--published",
        nargs="*",
        metavar="METHOD",
        help="published figures beside ours: these methods, or those run here",
    )
    parser.add_argument("--ablation", action="append", default=[], metavar="KEY", help="accuracy over a config key")
    parser.add_argument(
        "--pair", action="append", default=[], metavar="KEY", help="paired differences (always: FREQFIT)"
    )


def work(args: argparse.Namespace) -> int | None:
    from .write import Options, write_report  # here: matplotlib and torch take seconds to load

    options = Options(**{name: value for name, value in vars(args).items() if name not in ("results", "to")})
    print(write_report(args.results, args.to, options))


def main(argv: list[str]) -> int:
    return command.run("report", __doc__, add_options, work, argv, log=False)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
