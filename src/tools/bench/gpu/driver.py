"""Everything that a GPU must show, in one command: parts in processes of their own, a table after each."""

import argparse
import logging
import os
import time
from collections.abc import Iterator

from ....engine.device import choose_device
from ..common import Report
from .finding import FAILED, SHORT
from .plan import PARTS, PLAN
from .process import Running

logger = logging.getLogger(__name__)

LEAST = 8.0  # seconds that a part is started for


def run(args: argparse.Namespace) -> Iterator[Report]:
    """A report of all that is known, after every group of parts.

    Raises:
        ValueError: an unknown part.
    """
    wanted = args.parts.split(",") if args.parts else list(PARTS)
    if unknown := [name for name in wanted if name not in PARTS]:
        raise ValueError(f"--parts {', '.join(unknown)}: known are {', '.join(PARTS)}")
    began, found = time.monotonic(), {}
    room = {
        "device": str(choose_device(args.device)),
        "tiny": args.tiny,
        "backbone": args.backbone,
        "batch": args.batch,
    }
    for group in PLAN:
        left = args.seconds - (time.monotonic() - began)
        running = {}
        for part in group:
            if part.name not in wanted:
                continue
            if left < LEAST:
                found[part.name] = {"seconds": 0.0, "findings": [_line("left out", "no time is left")]}
                continue
            limit = min(part.seconds, left - 1)
            running[part.name] = Running(part.name, room, args.out.absolute() / "gpu" / part.name, limit)
        found |= _finished(running)
        if running:
            yield report(found, time.monotonic() - began, args)
    yield report(found, time.monotonic() - began, args)


def _finished(running: dict[str, Running]) -> dict[str, dict]:
    """What all of them found, once all have ended."""
    found = {}
    try:
        for name, part in running.items():
            found[name] = part.finish()
            logger.info("%s: %d lines, %.0f s", name, len(found[name]["findings"]), found[name]["seconds"])
    finally:
        for part in running.values():  # a signal may have come
            part.end()
    return found


def _line(what: str, text: str) -> dict:
    return {"what": what, "text": text, "mark": "", "values": {}}


def report(found: dict[str, dict], seconds: float, args: argparse.Namespace) -> Report:
    """The table of what was found so far, and the same for programs."""
    lines = [
        f"| {name} | {line['what']} | {_cell(line['text'])} | {line['mark']} |"
        for name, part in found.items()
        for line in part["findings"]
    ]
    marks = [line["mark"] for part in found.values() for line in part["findings"]]
    took = ", ".join(f"{name} {part['seconds']:.0f} s" for name, part in found.items())
    text = "\n".join(
        [
            "| part | what | found | |",
            "|---|---|---|---|",
            *lines,
            "",
            *(f"- {name}: {PARTS[name].about}" for name in found),
            "",
            f"{len(marks)} lines, {marks.count(FAILED)} {FAILED}, {marks.count(SHORT)} {SHORT}; {seconds:.0f} s in all "
            f"({took}). {'Tiny networks: the figures mean nothing. ' if args.tiny else ''}"
            f"Logs: {os.path.join(args.out, 'gpu')}.",
        ]
    )
    return Report(text + "\n", {"parts": found, "seconds": seconds, "tiny": args.tiny}, failed=FAILED in marks)


def _cell(text: str) -> str:
    return text.replace("|", "/").replace("\n", " ")
