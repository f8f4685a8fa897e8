"""What ``vitune attention`` does: maps before and after tuning, as pictures and as numbers."""

import argparse
import re
from pathlib import Path

import torch
from torch import Tensor, nn

from ...configs.config import ConfigError
from ...utils.progress import tqdm
from ..finished.command import paths_and_settings
from ..finished.inputs import Chosen, as_seen, chosen_images, short
from ..finished.run import FinishedRun, open_run
from ..finished.write import write_study
from ..report.tables import Table, plain
from .maps import Maps, maps_of
from .picture import draw_attention

BEFORE, AFTER = "pre-trained", "tuned"
TEXT = (
    "What the {reader} in each block, averaged over heads, and attention rollout (Abnar & Zuidema, 2020, "
    "arXiv:2005.00928), in multiples of an even share: 1 is what every patch would get if all got alike. Columns have "
    "their own colours, both lines of one the same. Rollout follows attention alone: what a method moves between "
    "patches in other ways (FreqFit, Convpass) is not in it, and what is read from prompts is lost to it."
)
READS = {"class token": "class token reads", "patches": "patches read on average, which is what is pooled"}


def perform(args: argparse.Namespace) -> None:
    (run_dir, *names), settings = paths_and_settings(args.paths)
    if args.count < 1:
        raise ConfigError(f"--count is {args.count}; it must be at least 1")
    run = open_run(run_dir, settings)
    vit = run.model.vit
    blocks = blocks_to_show(args.blocks, len(getattr(vit, "blocks", ())))
    models = {BEFORE: (run.pre_trained(), nn.ModuleDict()), AFTER: (vit, run.model.methods)}
    chosen = chosen_images(run, names, args.count)
    found = []
    for image in tqdm(chosen.images, desc="attention", unit="img", delay=1, leave=False):
        image = image[None].to(run.device)
        found.append({model: maps_of(vit, methods, image) for model, (vit, methods) in models.items()})
    said = predicted(run, chosen.images)
    folder = args.to or run.folder.path / "attention"
    pictures = [draw(run, chosen, i, maps, blocks, said[i], folder) for i, maps in enumerate(found)]
    entries = [
        {"image": name, "picture": path.name, **guess, **{model: numbers(one) for model, one in maps.items()}}
        for name, path, guess, maps in zip(chosen.names, pictures, said, found, strict=True)
    ]
    text = TEXT.format(reader=READS[found[0][AFTER].reader])
    content = {"run": str(run.folder.path), "methods": run.label, "reader": found[0][AFTER].reader, "images": entries}
    write_study(folder, "attention", f"Attention of {run.label}", text, [table(chosen, found)], pictures, content)


def blocks_to_show(text: str, depth: int) -> list[int]:
    """Which blocks, counted from 0; without a choice up to five, from the first to the last.

    Raises:
        ConfigError: a number that no block has.
    """
    if not text:
        return sorted({round(i * (depth - 1) / 4) for i in range(5)}) if depth else []
    if text == "all":
        return list(range(depth))
    numbers = [int(word) if word.isdecimal() else 0 for word in text.split()]
    if not all(1 <= number <= depth for number in numbers):
        raise ConfigError(f'--blocks is {text!r}; give numbers from 1 to {depth}, such as "1 {depth}", or all')
    return [number - 1 for number in numbers]


@torch.inference_mode()
def predicted(run: FinishedRun, images: Tensor) -> list[dict]:
    """The tuned model's class and its probability for every image."""
    found = []
    for image in images:
        highest = run.model(image[None].to(run.device))[0].double().softmax(0).max(0)
        found.append({"class": run.class_names[highest.indices], "probability": highest.values.item()})
    return found


def draw(
    run: FinishedRun, chosen: Chosen, i: int, maps: dict[str, Maps], blocks: list[int], said: dict, folder: Path
) -> Path:
    """Write the picture of image ``i``; its path."""
    name = chosen.names[i]
    path = folder / f"{i + 1:02d}_{re.sub(r'[^A-Za-z0-9._-]+', '-', Path(name).stem)}.png"
    wanted = {f"blocks.{block}": f"block {block + 1}" for block in blocks}
    rows = {
        model: {
            **{title: one.relative(one.blocks[block]) for block, title in wanted.items()},
            "rollout": one.relative(one.rollout),
        }
        for model, one in maps.items()
    }
    captions = {BEFORE: "", AFTER: f"says {said['class']}, {100 * said['probability']:.0f} %"}
    draw_attention(
        as_seen(run, chosen.images[i]), rows, f"{short(name)}, {run.cfg.DATA.FEATURE}, {run.label}", captions, path
    )
    return path


def numbers(maps: Maps) -> dict:
    """All that is behind a picture: shares of all that is read, rollout's of what comes from the image."""
    return {
        "blocks": {name: {"patches": one.tolist(), **maps.others[name]} for name, one in maps.blocks.items()},
        "rollout": maps.rollout.tolist(),
    }


def table(chosen: Chosen, found: list[dict[str, Maps]]) -> Table:
    """Of the last block: what does not go to patches, and how many patches get half of what does."""
    others = list(dict.fromkeys(name for maps in found for one in maps.values() for name in one.last_others))
    head = ["image", "ViT", *(f"{name}, %" for name in others), "patches with half of the rest", "with half of rollout"]
    lines = []
    for name, maps in zip(chosen.names, found, strict=True):
        for model, one in maps.items():
            shares = [one.last_others.get(other) for other in others]
            some = [None if share is None else round(100 * share, 1) for share in shares]
            last = list(one.blocks.values())[-1]
            lines.append([short(name), model, *some, *map(half, (last, one.rollout))])
    return plain("What the last block reads", head, lines)


def half(shares: Tensor) -> int:
    """How few patches have half of what all have together."""
    ordered = shares.flatten().sort(descending=True).values.cumsum(0)
    return int((ordered < 0.5 * ordered[-1]).sum()) + 1
