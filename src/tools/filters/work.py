"""What ``vitune filters`` does: pictures of FreqFit's filters, and of token maps before and after them."""

import argparse
import logging

from ...configs.config import ConfigError
from ...data.sources.base import DataError
from ..finished.command import paths_and_settings
from ..finished.inputs import chosen_images
from ..finished.run import FinishedRun, open_run
from ..finished.write import write_study
from ..report.tables import Table, plain
from .picture import draw_filters, draw_spectra, label
from .spectra import Response, Spectrum, by_distance, filters_of, response, spectra

logger = logging.getLogger(__name__)

TEXT = (
    "A filter adds T times the spectrum of the tokens, channel by channel; figures are means over channels. Gain is "
    "|1 + T|, what a frequency is multiplied by; low and high are frequencies up to a quarter of a cycle per patch, "
    "and beyond. The receptive field is the filter's response to an impulse: how much of its energy lies on the patch "
    "itself, and within how many patches 90 % of it do. Power is that of the token maps of {images}, after / before."
)


def perform(args: argparse.Namespace) -> None:
    (run_dir, *names), settings = paths_and_settings(args.paths)
    if args.count < 1:
        raise ConfigError(f"--count is {args.count}; it must be at least 1")
    run = open_run(run_dir, settings)
    taps = filters_of(run.model)
    if not taps:
        raise ValueError(f"{run.folder.path} has no filters: it was trained without FREQFIT freqfit or freqfit_real")
    folder = args.to or run.folder.path / "filters"
    responses = [response(where, tap) for where, tap in taps]
    measured, images = measure(run, names, args.count)
    title = f"Filters of {run.label} on {run.cfg.DATA.FEATURE}"
    draw_filters(responses, title, folder / "filters.png")
    pictures = [folder / "filters.png"]
    if measured:
        pictures.append(folder / "spectra.png")
        draw_spectra(responses, measured, f"Spectrum of token maps, {images} images", pictures[-1])
    text = TEXT.format(images=f"{images} images" if images else "no images, which were not at hand")
    content = {
        "run": str(run.folder.path),
        "methods": run.label,
        "images": images,
        "filters": numbers(responses, measured),
    }
    write_study(folder, "filters", title, text, [table(responses, measured)], pictures, content)


def measure(run: FinishedRun, names: list[str], count: int) -> tuple[list[Spectrum], int]:
    """Spectra over images, and the number of images; none if none are named and the run's own are not available."""
    try:
        chosen = chosen_images(run, names, count)
    except DataError as error:
        if names:
            raise
        logger.warning("note: no spectra of token maps: the run's own test images are not at hand (%s)", error)
        return [], 0
    size = run.cfg.DATA.EVAL_BATCH_SIZE or run.cfg.DATA.BATCH_SIZE
    batches = (some.to(run.device) for some in chosen.images.split(size))
    return spectra(run.model, batches), len(chosen.names)


def halves(values) -> tuple[float, float]:
    """Means over rings of frequencies up to a quarter of a cycle per patch, and beyond."""
    rings = list(zip(*by_distance(values), strict=True))
    low = [y for x, y in rings if x <= 0.25]
    high = [y for x, y in rings if x > 0.25]
    return sum(low) / len(low), sum(high) / max(1, len(high))


def table(responses: list[Response], measured: list[Spectrum]) -> Table:
    """One line per filter."""
    head = ["filter", "mean |T|", "gain, low", "gain, high", "on the patch itself, %", "90 % within, patches"]
    head += ["power, low", "power, high"] if measured else []
    lines = []
    for i, result in enumerate(responses):
        within = int((result.reach < 0.9).sum())
        line = [
            label(result.site),
            result.added.mean().item(),
            *halves(result.gain),
            100 * result.reach[0].item(),
            within,
        ]
        if measured:
            before, after = halves(measured[i].before), halves(measured[i].after)
            line += [y / x for x, y in zip(before, after, strict=True)]
        lines.append([f"{cell:.3g}" if isinstance(cell, float) else cell for cell in line])
    return plain("What each filter does", head, lines)


def numbers(responses: list[Response], measured: list[Spectrum]) -> list[dict]:
    """The data of the pictures."""
    entries = []
    for i, result in enumerate(responses):
        maps = {"added": result.added, "gain": result.gain, "field": result.field, "reach": result.reach}
        if measured:
            maps |= {"power_before": measured[i].before, "power_after": measured[i].after}
        entries.append({"site": result.site, "shape": result.shape, **{name: m.tolist() for name, m in maps.items()}})
    return entries
