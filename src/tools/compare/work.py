"""What ``vitune compare`` does: tables of runs, pairs, ensembles and classes."""

import argparse
import csv
import io
from dataclasses import asdict
from itertools import combinations, combinations_with_replacement, product

import numpy as np
import torch

from ...configs.config import ConfigError
from ...utils.io import write_text
from ..finished.request import read_request
from ..finished.run import FinishedRun, groups, open_runs
from ..finished.sets import TestSet, open_sets_of
from ..finished.write import percent, write_study
from ..report.tables import Table, plain
from .agreement import (
    Answers,
    agreement,
    calibration_error,
    confident_agreement,
    confident_overlap,
    error_overlap,
    expected_agreement,
    expected_agreement_given_class,
    oracle,
    p_value,
    pairwise,
    per_class,
    reliability,
    same_errors,
)
from .ensembles import Ensemble, ensembles
from .picture import draw_agreement, draw_calibration

SHOWN = 40  # classes that have a line in the Markdown; all are in the JSON


def answers_of(runs: list[FinishedRun], sets: list[TestSet]) -> tuple[list[Answers], list[np.ndarray]]:
    """Every run's answers to its set, and the logits (N, C) that they come from."""
    answers, logits = [], []
    for run, test_set in zip(runs, sets, strict=True):
        scores, labels = run.logits(test_set.loader, test_set.name), test_set.loader.labels
        if test_set.classes is not None:
            scores, labels = scores[:, test_set.classes], torch.searchsorted(test_set.classes, labels)
        scores = scores.double()
        answers.append(Answers(run.label, scores.softmax(1).numpy(), labels.numpy()))
        logits.append(scores.numpy())
    return answers, logits


def runs_table(models: list[Answers]) -> Table:
    lines = [
        [
            model.name,
            percent(float(model.right.mean())),
            percent(float(model.confidence.mean())),
            percent(calibration_error(reliability(model))),
            len(model.labels),
        ]
        for model in models
    ]
    head = ["run", "top-1", "mean confidence", "calibration error", "images"]
    return plain("Runs", head, lines, "In %. The calibration error is the expected one, in 15 bins of equal width.")


def pairs_table(models: dict[str, list[Answers]], share: float) -> Table:
    """One line per pair of methods, one method's own seeds among them: means over the pairs of their runs."""
    measures = (
        agreement,
        expected_agreement,
        expected_agreement_given_class,
        error_overlap,
        same_errors,
        lambda one, other: (confident_agreement(share)(one, other) + confident_agreement(share)(other, one)) / 2,
        confident_overlap(share),
    )
    lines = []
    for one, other in combinations_with_replacement(models, 2):
        pairs = list(combinations(models[one], 2) if one == other else product(models[one], models[other]))
        if pairs:
            found = [[measure(*pair) for pair in pairs] for measure in measures]
            p = f"{p_value(*pairs[0]):.3g}" if len(pairs) == 1 else None
            lines.append([f"{one} / {other}", len(pairs), *[percent(_mean(some)) for some in found], p])
    head = ["methods", "pairs", "agree", "by chance", "given class", "errors shared", "same answer"]
    head += ["agree where sure", "sure of the same", "p"]
    text = (
        "In %, means over pairs of runs. By chance: if both answered independently with their frequencies of classes; "
        "given class: independently among the images of each class. Errors shared: wrong in both among wrong in "
        f"either; same answer: of those, the same wrong class. Where sure: on the {100 * share:g} % of images that one "
        "of the two is most confident of, both ways; of the same: images that both are so sure of among those that "
        "either is. p, of a single pair: McNemar's exact test of equal accuracy. Every pair of runs is in compare.json."
    )
    return plain("Pairs", head, lines, text)


def _mean(values: list[float | None]) -> float | None:
    numbers = [value for value in values if value is not None]
    return sum(numbers) / len(numbers) if numbers else None


def ensembles_table(some: list[Ensemble]) -> Table:
    lines = [
        [
            f"{ensemble.size} {ensemble.of}",
            ensemble.sets,
            *map(
                percent,
                (ensemble.mean_member, ensemble.best_member, ensemble.logits, ensemble.probabilities, ensemble.vote),
            ),
            percent(ensemble.probabilities - ensemble.mean_member),
            percent(ensemble.probabilities - ensemble.best_member),
            percent(ensemble.oracle),
        ]
        for ensemble in some
    ]
    head = ["ensemble of", "sets", "mean member", "best member", "mean logits", "mean probabilities", "vote"]
    head += ["gain over mean", "gain over best", "one is right"]
    text = (
        "Top-1 in %, means over the sets. Gains are those of mean probabilities, in points. As many seeds of one "
        "method are the control for an ensemble of different methods."
    )
    if not any(ensemble.of.startswith("seeds of") for ensemble in some):
        text += " There is no control: every method has only one run."
    return plain("Ensembles", head, lines, text)


def classes_table(models: list[Answers], names: list[str]) -> Table:
    """One line per class; with many classes, those on which runs differ most."""
    columns = [per_class(model) for model in models]
    every = [(name, *values) for name, *values in zip(names, *columns, strict=True) if values[0] is not None]
    text = "Top-1 in %."
    if len(every) > SHOWN:
        every = sorted(every, key=lambda line: min(line[1:]) - max(line[1:]))[:SHOWN]
        text += f" The {SHOWN} classes on which runs differ most; all are in compare.json."
    lines = [[name, *map(percent, values)] for name, *values in every]
    return plain("Classes", ["class", *[model.name for model in models]], lines, text)


def predictions_csv(models: list[Answers], test_set: TestSet, names: list[str]) -> str:
    """Image, right class, and every run's answer with its probability."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    columns = [f"{model.name}{what}" for model in models for what in ("", ", probability")]
    writer.writerow(["image", "label", *columns])
    answers = [(model.classes, model.confidence) for model in models]
    for i, key in enumerate(test_set.keys):
        cells = [text for classes, sure in answers for text in (names[classes[i]], f"{sure[i]:.6f}")]
        writer.writerow([key, names[models[0].labels[i]], *cells])
    return file.getvalue()


def perform(args: argparse.Namespace) -> None:
    request = read_request(args)
    if len(request.sets) > 1:
        raise ConfigError("compare takes one test set: name one by --on or --shift, or none for the runs' own")
    if not 0 < args.confident <= 1:
        raise ConfigError(f"--confident {args.confident:g}: it must be more than 0 and at most 1")
    if len(request.runs) < 2:
        raise ConfigError("there is only one RUN_DIR: name two or more runs to compare")
    runs = open_runs(request.runs, request.changes)
    first = runs[0]
    for run in runs:
        if run.class_names != first.class_names:
            raise ValueError(f"{run.folder.path} has other classes than {first.folder.path}")
    sets = [found[-1] for found in open_sets_of(runs, request.sets, request.mapping)]
    for run, test_set in zip(runs, sets, strict=True):
        if test_set.keys != sets[0].keys or not torch.equal(test_set.loader.labels, sets[0].loader.labels):
            raise ValueError(f"{run.folder.path} has other test images than {first.folder.path}")
    models, logits = answers_of(runs, sets)
    of = {str(run.folder.path): i for i, run in enumerate(runs)}
    where = {label: [of[str(run.folder.path)] for run in some] for label, some in groups(runs).items()}
    grouped = {label: [models[i] for i in some] for label, some in where.items()}
    joined = ensembles(grouped, {label: [logits[i] for i in some] for label, some in where.items()})
    names, test_set = first.class_names, sets[0]
    if test_set.classes is not None:
        names = [names[i] for i in test_set.classes]
    folder = request.folder(first, "compare")
    draw_agreement(models, folder / "agreement.png")
    draw_calibration(models, folder / "calibration.png")
    write_text(folder / "predictions.csv", predictions_csv(models, test_set, names))
    share = args.confident
    matrices = {
        "agreement": agreement,
        "expected_agreement": expected_agreement,
        "expected_agreement_given_class": expected_agreement_given_class,
        "error_overlap": error_overlap,
        "same_errors": same_errors,
        "confident_agreement": confident_agreement(share),
        "confident_overlap": confident_overlap(share),
        "mcnemar_p": p_value,
    }
    numbers = {
        "set": test_set.name,
        "about": test_set.about,
        "runs": [
            {
                "label": model.name,
                "run": str(run.folder.path),
                "top1": float(model.right.mean()),
                "calibration_error": calibration_error(reliability(model)),
                "reliability": [asdict(bin) for bin in reliability(model)],
                "per_class": dict(zip(names, per_class(model), strict=True)),
            }
            for run, model in zip(runs, models, strict=True)
        ],
        "pairs": {name: pairwise(models, measure) for name, measure in matrices.items()},
        "confident": share,
        "oracle": oracle(models),
        "ensembles": [asdict(found) for found in joined],
    }
    tables = [runs_table(models), pairs_table(grouped, share), ensembles_table(joined), classes_table(models, names)]
    count = len(test_set.loader.labels)
    text = f"{count:,} images of {test_set.name}. At least one run is right on {100 * oracle(models):.2f} %."
    pictures = [folder / "agreement.png", folder / "calibration.png"]
    write_study(folder, "compare", "Runs compared", text, tables, pictures, numbers)
