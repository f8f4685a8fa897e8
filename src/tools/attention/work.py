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
    all_maps = []
    for image in tqdm(chosen.images, desc="attention", unit="img", delay=1, leave=False):
        image = image[None].to(run.device)
        all_maps.append({model: maps_of(vit, methods, image) for model, (vit, methods) in models.items()})
    guesses = predicted(run, chosen.images)
    folder = args.to or run.folder.path / "attention"
    pictures = [draw(run, chosen, i, maps, blocks, guesses[i], folder) for i, maps in enumerate(all_maps)]
    entries = [
        {"image": name, "picture": path.name, **guess, **{model: numbers(shown) for model, shown in maps.items()}}
        for name, path, guess, maps in zip(chosen.names, pictures, guesses, all_maps, strict=True)
    ]
    text = TEXT.format(reader=READS[all_maps[0][AFTER].reader])
    content = {
        "run": str(run.folder.path),
        "methods": run.label,
        "reader": all_maps[0][AFTER].reader,
        "images": entries,
    }
    write_study(folder, "attention", f"Attention of {run.label}", text, [table(chosen, all_maps)], pictures, content)


def blocks_to_show(text: str, depth: int) -> list[int]:
    """Which blocks, counted from 0; without a choice up to five, from the first to the last.

    Raises:
        ConfigError: a number that is not that of a block.
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
    guesses = []
    for image in images:
        highest = run.model(image[None].to(run.device))[0].double().softmax(0).max(0)
        guesses.append({"class": run.class_names[highest.indices], "probability": highest.values.item()})
    return guesses


def draw(
    run: FinishedRun, chosen: Chosen, i: int, maps: dict[str, Maps], blocks: list[int], guess: dict, folder: Path
) -> Path:
    """Write the picture of image ``i``; its path."""
    name = chosen.names[i]
    path = folder / f"{i + 1:02d}_{re.sub(r'[^A-Za-z0-9._-]+', '-', Path(name).stem)}.png"
    wanted = {f"blocks.{block}": f"block {block + 1}" for block in blocks}
    rows = {
        model: {
            **{title: shown.relative(shown.blocks[block]) for block, title in wanted.items()},
            "rollout": shown.relative(shown.rollout),
        }
        for model, shown in maps.items()
    }
    captions = {BEFORE: "", AFTER: f"predicts {guess['class']}, {100 * guess['probability']:.0f} %"}
    draw_attention(
        as_seen(run, chosen.images[i]), rows, f"{short(name)}, {run.cfg.DATA.FEATURE}, {run.label}", captions, path
    )
    return path


def numbers(maps: Maps) -> dict:
    """The data of a picture: shares of everything that is read; rollout's, of what comes from the image."""
    return {
        "blocks": {name: {"patches": patches.tolist(), **maps.others[name]} for name, patches in maps.blocks.items()},
        "rollout": maps.rollout.tolist(),
    }


def table(chosen: Chosen, all_maps: list[dict[str, Maps]]) -> Table:
    """For the last block: the share that does not go to patches, and how many patches get half of the rest."""
    others = list(dict.fromkeys(name for maps in all_maps for shown in maps.values() for name in shown.last_others))
    head = ["image", "ViT", *(f"{name}, %" for name in others), "patches with half of the rest", "with half of rollout"]
    lines = []
    for name, maps in zip(chosen.names, all_maps, strict=True):
        for model, shown in maps.items():
            shares = [shown.last_others.get(other) for other in others]
            some = [None if share is None else round(100 * share, 1) for share in shares]
            last = list(shown.blocks.values())[-1]
            lines.append([short(name), model, *some, *map(half, (last, shown.rollout))])
    return plain("What the last block reads", head, lines)


def half(shares: Tensor) -> int:
    """The smallest number of patches that together have half of the total."""
    ordered = shares.flatten().sort(descending=True).values.cumsum(0)
    return int((ordered < 0.5 * ordered[-1]).sum()) + 1
