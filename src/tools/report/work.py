"""From run folders to the paper's tables: Markdown, LaTeX, CSV, plots and one HTML page that opens from disk.

    vitune report output/ --to report/
    vitune report output/ more_runs/ --baseline linear --published
    vitune report output/ --tasks natural --published LoRA SSF --title "Natural tasks"
    vitune report output/ --ablation MODEL.LORA.RANK --ablation SOLVER.BASE_LR --pair FREQFIT

RESULTS are searched for run folders (those with a config.yaml). Written to --to: report.md, report.tex, report.html
(everything in one file), report.csv (one line per run), tables.csv (one line per cell) and figures/*.png and *.pdf.
The exit status is 0 also where results are missing: the report lists them with the commands that make them.
"""

import argparse
import sys

from ...utils.paths import given_path
from .write import Options, write_report


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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
    args = parser.parse_intermixed_args(argv)
    try:
        options = Options(**{name: value for name, value in vars(args).items() if name not in ("results", "to")})
        print(write_report(args.results, args.to, options))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
