"""Shared by the benchmarks: options, rounds in which all contenders take turns, a network with random weights."""

import argparse
import math
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import torch
from fvcore.common.config import CfgNode
from torch import nn

from ...configs.config import load_cfg
from ...configs.facts import image_size
from ...engine.device import choose_device
from ...models.vit_backbones.build import architecture
from ...utils.progress import tqdm

CLASSES = 100
# A turn lasts at least this long, so that clock ticks and kernel launches are negligible.
TURN_SECONDS = 0.2

Work = Callable[[], object]


@dataclass(frozen=True)
class Report:
    """The results of a benchmark: a Markdown table with notes, the values for the JSON file, and perhaps a picture.

    ``failed``: whether something that was tried is wrong, which slowness is not.
    """

    text: str
    values: dict
    draw: Callable[[Path], None] | None = None
    failed: bool = False


@dataclass
class Timing:
    """Seconds per call in each round; ``first`` is the very first call, including compilation.

    ``peak`` is the GPU memory, in bytes, that the contender holds plus what a call needs on top.
    """

    first: float = 0.0
    peak: int | None = None
    rounds: list[float] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return median(self.rounds)

    @property
    def compile_seconds(self) -> float:
        return max(0.0, self.first - self.seconds)

    def as_dict(self) -> dict:
        spread = {"lowest": min(self.rounds), "highest": max(self.rounds)}
        return {"seconds": self.seconds, **spread, "rounds": self.rounds, "first_call_seconds": self.first}


def use(args: argparse.Namespace) -> torch.device:
    """The device of ``--device``; also sets ``--threads`` and a fixed seed."""
    if args.threads > 0:
        torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    return choose_device(args.device)


def config(args: argparse.Namespace, defaults: list[str], forced: tuple[str, ...] = ()) -> CfgNode:
    """A config from ``defaults``, the command line's KEY VALUE pairs, and the contender's ``forced`` settings."""
    named = [
        "DATA.NAME", "digits", "DATA.FEATURE", args.backbone, "SOLVER.OPTIMIZER", "adamw", "SOLVER.BASE_LR", "1e-3"
    ]  # fmt: skip
    return load_cfg("", [*named, *defaults, *args.opts, *forced])


def random_vit(cfg: CfgNode, num_classes: int = 0) -> nn.Module:
    """The backbone of ``DATA.FEATURE`` with random weights; nothing is downloaded.

    Raises:
        ValueError: the name is unknown, or the image size does not fit.
    """
    vit = architecture(cfg.DATA.FEATURE, image_size(cfg))
    vit.reset_classifier(num_classes)
    return vit.eval()


def image_batch(cfg: CfgNode, count: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Random images (count, 3, H, W) and labels (count,)."""
    return torch.randn(count, 3, *image_size(cfg), device=device), torch.randint(CLASSES, (count,), device=device)


def take_turns(contenders: dict[str, Callable[[], Work]], rounds: int, device: torch.device) -> dict[str, Timing]:
    """Time every contender in every round; ``contenders`` create the timed functions, one after another.

    Odd rounds go backwards, so that no contender always follows the same one.
    """
    timings = {name: Timing() for name in contenders}
    works = {}
    calls = {}
    with tqdm(total=len(contenders) * (rounds + 1), unit="turn", leave=False, dynamic_ncols=True) as bar:
        for name, make in contenders.items():
            bar.set_description(f"{name}: first calls")
            before = _allocated(device)
            works[name] = make()
            timings[name].first = _timed(works[name], 1, device)
            calls[name] = math.ceil(TURN_SECONDS / max(_timed(works[name], 1, device), 1e-6))
            held = _allocated(device) - before
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
                start = _allocated(device)
                works[name]()
                timings[name].peak = held + torch.cuda.max_memory_allocated(device) - start
            bar.update()
        for number in range(rounds):
            for name in list(works)[:: -1 if number % 2 else 1]:
                bar.set_description(f"round {number + 1}/{rounds}, {name}")
                timings[name].rounds.append(_timed(works[name], calls[name], device))
                bar.update()
    return timings


def _timed(work: Work, calls: int, device: torch.device) -> float:
    """Seconds per call, averaged over ``calls`` calls, including all their GPU work."""
    clock = time.process_time if _alone(device) else time.perf_counter
    _synchronize(device)
    start = clock()
    for _ in range(calls):
        work()
    _synchronize(device)
    return (clock() - start) / calls


def _alone(device: torch.device) -> bool:
    """Whether one thread does all the work, so that its CPU time equals the time on an idle machine."""
    return device.type == "cpu" and torch.get_num_threads() == 1


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _allocated(device: torch.device) -> int:
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


def times_as_fast(timings: dict[str, Timing], name: str, reference: str) -> float:
    """How many times as fast as ``reference`` a contender is: the median of the rounds' ratios."""
    return median(_ratios(timings, name, reference))


def compared(timings: dict[str, Timing], name: str, reference: str) -> dict:
    """The same, with the lowest and highest ratio."""
    ratios = _ratios(timings, name, reference)
    spread = {"times_as_fast_lowest": min(ratios), "times_as_fast_highest": max(ratios)}
    return {"reference": reference, "times_as_fast": median(ratios), **spread}


def _ratios(timings: dict[str, Timing], name: str, reference: str) -> list[float]:
    return [other / own for own, other in zip(timings[name].rounds, timings[reference].rounds, strict=True)]


def ratio_text(row: dict) -> str:
    """The result of ``compared`` for a table: "1.20 (1.10-1.31)"."""
    lowest, highest = row["times_as_fast_lowest"], row["times_as_fast_highest"]
    return f"{row['times_as_fast']:.2f}" + (f" ({lowest:.2f}-{highest:.2f})" if lowest < highest else "")


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    lines = [header, ["---", *["--:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def conditions(args: argparse.Namespace, device: torch.device) -> str:
    """The line below a table: hardware, software and settings of the measurement."""
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    where = "CPU, processor time of 1 thread" if _alone(device) else where
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return (
        f"{where}, torch {torch.__version__}, batches of {args.batch}, medians of {args.rounds} rounds in which all "
        f"contenders take turns; the process, with all contenders in it, peaked at {peak:.2f} GiB of memory (ru_maxrss)"
    )
