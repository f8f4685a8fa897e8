"""What this machine has, and what would stop a run.

    vitune doctor
    vitune doctor DATA.DATAPATH data/vtab-1k OUTPUT_DIR /scratch/runs
    vitune doctor digits DEVICE cuda      with the folders of a config
    vitune doctor --json > doctor.json    for a bug report

Versions, optional packages, memory, threads, folders, devices, weights and
data sets, in this order. Nothing is downloaded. Paths are printed, passwords
and tokens never: of the environment only variables about threads, GPUs,
processes and folders.

Exit status: 0 if a run can start, with warnings or without; 1 if something
would stop it; 2 for settings with problems.
"""

import argparse
import json
import shutil
import sys

from .. import command


def add_options(parser: argparse.ArgumentParser) -> None:
    command.add_config(parser, "folders and device of a run")
    parser.add_argument("--json", action="store_true", help="print JSON")


def work(args: argparse.Namespace) -> int:
    from ...utils.text import reader_may_leave
    from .section import content
    from .work import examine, verdict

    sections, width = [], min(100, shutil.get_terminal_size().columns)
    with reader_may_leave():
        for section in examine(args.config_file, args.opts):
            sections.append(section)
            if not args.json:
                print(section.text(width), end="\n\n", flush=True)
        print(json.dumps(content(sections), indent=1) if args.json else verdict(sections))
    return 1 if any(section.errors for section in sections) else 0


def main(argv: list[str]) -> int:
    return command.run("doctor", __doc__, add_options, work, argv, stderr=lambda args: True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
