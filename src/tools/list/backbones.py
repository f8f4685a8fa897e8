"""The table of backbones: what each expects, what its weights are called, and whether they are on this disk."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import timm
from huggingface_hub.constants import HF_HUB_CACHE

from ...models.vit_backbones import zoo
from ...models.vit_backbones.backbone import HALF, IMAGENET, OPENAI, Backbone
from ...models.vit_backbones.hugging_face.place import PREFIX, cached, is_checkpoint
from ...models.vit_backbones.timm_weights import hub_file
from ...utils.table import Table
from . import matrix

COLUMNS = ("DATA.FEATURE", "architecture", "pixels", "mean, std", "licence", "weights")
STATISTICS = {IMAGENET: "ImageNet", HALF: "0.5", OPENAI: "CLIP"}


def backbones_table(root: str, word: str = "") -> Table:
    """The zoo, or networks of timm.

    Args:
        root: MODEL.MODEL_ROOT, the folder with the weights.
        word: only those with it in their name or architecture; "timm:dinov2" lists timm's with "dinov2" in theirs, and
            "hf:dinov2" checkpoints of transformers in the local cache of the Hugging Face Hub.

    Raises:
        ValueError: there are none.
    """
    if word.startswith("timm:"):
        rows = list(_timm_rows(word.removeprefix("timm:")))
    elif is_checkpoint(word):
        rows = list(_cached_rows(word.removeprefix(PREFIX)))
    else:
        rows = list(_zoo_rows(word, root))
    if not rows and is_checkpoint(word):
        named = f" has {word.removeprefix(PREFIX)!r} in its name" if word != PREFIX else " is"
        raise ValueError(
            f"none of the checkpoints that ViTune reads{named} in the local cache of the Hugging Face Hub, "
            f"{HF_HUB_CACHE}: `hf download <organisation>/<name>` fetches one where there is a network; hf:<folder> "
            "names one that is elsewhere on this disk"
        )
    if not rows:
        raise ValueError(
            f"no backbone has {word!r} in its name; vitune list backbones shows all, timm: lists timm's, and hf: "
            "transformers' in the local cache of the Hugging Face Hub"
        )
    aliases = ", ".join(f"{alias} for {name}" for alias, name in zoo.ALIASES.items())
    note = (
        "pixels: side of the square images that it was pre-trained on; DATA.CROPSIZE chooses another\n"
        f"also: {aliases}\n"
        "timm:<name>: a network of timm with weights from the Hugging Face Hub, as vitune list backbones timm: shows\n"
        "hf:<folder or Hub name>: a checkpoint of transformers, as vitune list backbones hf: shows"
    )
    if not word:
        note = f"{note}\n{families_note()}"
    return Table(COLUMNS, rows, "llrlll", below={"licence": "licence: ", "weights": ""}, note=note)


def families_note() -> str:
    """How many methods work on networks of each family of timm's, as the matrix has it."""
    table = matrix.families_table(matrix.read())
    lines = [f"  {family}: {work} ({fold} fold away)" for family, _, work, fold in table.rows]
    return "\n".join(
        [f"timm's families of networks, and how many {table.columns[2]} on those that were tried:", *lines]
    )


def _zoo_rows(word: str, root: str) -> Iterator[tuple[str, ...]]:
    for name, row in zoo.MODEL_ZOO.items():
        if word.lower() in f"{name} {row.arch}".lower():
            path = zoo_file(name, root)
            weights = f"here: {path}" if path else f"missing: {row.files[0]} in {root}"
            yield name, row.arch, pixels(row), STATISTICS.get(row.mean_std, "its own"), row.licence, weights


def pixels(row: Backbone) -> str:
    """Side of the images that a row was pre-trained on."""
    return str(row.arguments.get("img_size") or timm.get_pretrained_cfg(row.arch).input_size[1])


def _timm_rows(word: str) -> Iterator[tuple[str, ...]]:
    for name in timm.list_pretrained():
        with suppress(ValueError):  # not a network that methods work on
            if word.lower() in name.lower() and zoo.find_backbone(f"timm:{name}") is None:
                facts = timm.get_pretrained_cfg(name)
                statistics = STATISTICS.get((tuple(facts.mean), tuple(facts.std)), "its own")
                weights = f"here: {path}" if (path := hub_file(name)) else "not downloaded yet"
                architecture, pixels = name.split(".")[0], str(facts.input_size[1])
                yield f"timm:{name}", architecture, pixels, statistics, facts.license or "", weights


def _cached_rows(word: str) -> Iterator[tuple[str, ...]]:
    for name in cached():
        with suppress(ValueError, FileNotFoundError):  # not an image encoder, or without weights
            row = zoo.find_backbone(name)
            if word.lower() in f"{name} {row.arch}".lower():
                path, statistics = zoo.find_weights(name, Path()), STATISTICS.get(row.mean_std, "its own")
                yield name, row.arch, "", statistics, row.licence, f"here: {path}"


def zoo_file(name: str, root: str) -> Path | None:
    """Where the weights of a backbone of the zoo are in MODEL.MODEL_ROOT; None if they are not there."""
    try:
        return zoo.find_weights(name, Path(root))
    except FileNotFoundError:
        return None


def downloaded() -> list[str]:
    """Every backbone of timm whose weights are in the cache of the Hugging Face Hub."""
    cached = {folder.name for folder in Path(HF_HUB_CACHE).glob("models--*")}
    ids = {name: timm.get_pretrained_cfg(name).hf_hub_id for name in timm.list_pretrained()}
    some = [name for name, hub_id in ids.items() if hub_id and f"models--{hub_id.replace('/', '--')}" in cached]
    return [f"timm:{name}" for name in some if hub_file(name)]
