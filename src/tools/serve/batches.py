"""Images of concurrent requests, collected for a few milliseconds and computed together by one thread."""

import logging
import queue
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .limits import Limits
from .mixed import compute
from .models import Served

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class Question:
    """Images of one request, (n, 3, H, W) in 0..255, and the models of one family that are asked for them.

    ``answer`` will be the logits (n, classes) of each model, float64 on the CPU.
    """

    images: Tensor
    models: list[Served]
    answer: Future = field(default_factory=Future)


class Batches:
    """The thread that computes; the only one, since taps keep tensors during a forward."""

    def __init__(self, limits: Limits):
        self.limits = limits
        self._waiting: queue.SimpleQueue[Question | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="batches", daemon=True)
        self._thread.start()

    def ask(self, question: Question) -> Future:
        self._waiting.put(question)
        return question.answer

    def __enter__(self) -> "Batches":
        return self

    def __exit__(self, *error) -> None:
        """Answer what waits, and end the thread."""
        self._waiting.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (first := self._waiting.get()) is not None:
            batch, last = self._with_others(first)
            families: dict[tuple, list[Question]] = {}
            for question in batch:
                if question.answer.set_running_or_notify_cancel():  # nobody waits for a cancelled one
                    families.setdefault(question.models[0].family, []).append(question)
            for questions in families.values():
                _answer(questions)
            if last:
                return

    def _with_others(self, first: Question) -> tuple[list[Question], bool]:
        """``first`` and what comes within the window, up to a full batch; and whether the end came."""
        batch, count, until = [first], len(first.images), time.monotonic() + self.limits.window
        while count < self.limits.batch:
            try:
                question = self._waiting.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                break
            if question is None:
                return batch, True
            batch.append(question)
            count += len(question.images)
        return batch, False


def _answer(questions: list[Question]) -> None:
    """Compute questions of one family at once."""
    try:
        for question, logits in zip(questions, _logits(questions), strict=True):
            question.answer.set_result(logits)
    except Exception as error:  # whatever it was, the requests must be answered, and the thread must go on
        logger.exception("a batch of %d requests failed", len(questions))
        for question in questions:
            question.answer.set_exception(error)


def _logits(questions: list[Question]) -> list[list[Tensor]]:
    """For each question the logits of each of its models."""
    rows = torch.arange(sum(len(question.images) for question in questions))
    rows = rows.split([len(question.images) for question in questions])
    asked: dict[Served, list[Tensor]] = {}
    for question, own in zip(questions, rows, strict=True):
        for served in question.models:
            asked.setdefault(served, []).append(own)
    images = torch.cat([question.images for question in questions])
    found = compute(images, [(served, torch.cat(some)) for served, some in asked.items()])
    parts = {
        served: iter(logits.split([len(own) for own in some]))
        for (served, some), logits in zip(asked.items(), found, strict=True)
    }
    return [[next(parts[served]) for served in question.models] for question in questions]
