"""What is done in which order, and how long it may take: first what decides whether anything else counts."""

from typing import NamedTuple


class Part(NamedTuple):
    """A module of ``parts``; ``seconds``: at most, of processes that are ended then."""

    name: str
    seconds: float
    about: str


# Groups follow one another. Parts of one group run side by side: they look at values, not at the clock.
PLAN: tuple[tuple[Part, ...], ...] = (
    (
        Part("smoke", 110, "every method against the CPU: logits, gradients, half precision, waits in a step"),
        Part("runs", 110, "whole runs: learning, determinism, resuming on another device"),
        Part("parity", 110, "the tests with numbers of the original code, on this device"),
        Part("out_of_memory", 60, "what a run says where memory is short"),
    ),
    (Part("step", 90, "a training step, and timm + peft in a plain loop"),),
    (Part("compiled", 170, "a compiled step, by mode; CUDA graphs"),),
    (Part("epochs", 70, "100 epochs of 1,000 images by the trainer"),),
    (Part("memory", 60, "the peak memory of a step, by method"),),
    (Part("evaluation", 30, "images per second of the evaluator"),),
    (Part("data", 45, "training images: how many arrive, and whether a step waits for them"),),
    (Part("freqfit", 35, "FreqFit's filter by matrices and by FFT"),),
)
PARTS = {part.name: part for group in PLAN for part in group}
