"""A model card: what a run's network is, how it was made, its accuracy, and what its licence depends on."""

import html
import re
from collections.abc import Sequence
from pathlib import Path

import yaml
from fvcore.common.config import CfgNode

from ...data.pixels import RANDOM, Pixels
from ...models.vit_backbones.hugging_face.place import label
from ...models.vit_backbones.zoo import find_backbone, hub_id, licence
from ...models.vit_models import METHODS, method_keys, parse
from ...solver.lr_scheduler import counts_steps, num_epochs
from ..finished.run import methods_of
from ..report.stats import wilson
from .from_files import timm_prepares
from .network import Network

SOME = 40  # maximum class names on a card
RESIZES = {
    "squash": "resized to it, whatever their proportions",
    "crop": "the shorter side resized to {2}, the middle cut out",
    "squash_crop": "resized to {0} high and {1} wide, whatever their proportions, the middle cut out",
    "native": "in its own aspect ratio, as large as the patches of such an image can cover it",
}


def write_card(network: Network, result: dict | None, how_to_load: Sequence[str], adapters: Sequence[str]) -> str:
    """The text of README.md.

    Args:
        result: the run's result.json, or None.
        how_to_load: lines of Python.
        adapters: folders with adapters in peft's format.
    """
    cfg, names = network.tuned.cfg, network.tuned.class_names
    data, methods = data_name(cfg), methods_of(cfg)
    title = f"{label(cfg.DATA.FEATURE)}, {methods}, {data}"
    listed = ", ".join(map(plain, names[:SOME]))
    listed += f", ... ({len(names):,} in all, in config.json)" if len(names) > SOME else ""
    blocks = [
        _front_matter(network, result, title),
        f"# {plain(title)}",
        f"An image classifier of {len(names):,} classes: the Vision Transformer `{label(cfg.DATA.FEATURE)}`, tuned on "
        f"{plain(data)} with {methods} by ViTune." + _form(network),
        "## Use",
        "\n".join(["```python", *how_to_load, "```"]),
        *([_adapter(cfg, adapters)] if adapters else []),
        "## Accuracy",
        _accuracy(result),
        "## Pixels",
        _pixels(network.tuned.pixels, timm=network.plain is not None),
        "## How it was made",
        _made(network, result),
        "## Classes",
        listed,
        "## Licence",
        _licence(cfg),
    ]
    return "\n\n".join(blocks) + "\n"


def plain(text: str) -> str:
    """A user's name escaped for Markdown: one line, no HTML, links or emphasis."""
    return re.sub(r"([\\`*\[\]])", r"\\\1", html.escape(" ".join(text.split()), quote=False)).replace("|", "&#124;")


def data_name(cfg: CfgNode) -> str:
    """The task, or the name of the folder of the user's own images."""
    if cfg.DATA.NAME in ("folder", "lists") and cfg.DATA.DATAPATH:
        return f"the images in {Path(cfg.DATA.DATAPATH).absolute().name}/"
    return cfg.DATA.NAME


def _front_matter(network: Network, result: dict | None, title: str) -> str:
    cfg, plain = network.tuned.cfg, network.plain is not None
    terms = licence(cfg.DATA.FEATURE)
    tags = ["image-classification", *(["timm"] if plain else ["onnx"]), "vitune", *network.tuned.model.methods]
    content: dict = {
        "library_name": "timm" if plain else "onnxruntime",
        "pipeline_tag": "image-classification",
        "license": terms or "other",
        "tags": tags,
    }
    if base := hub_id(cfg.DATA.FEATURE):
        content["base_model"] = base
    if result and result["test"]:
        measured = {"type": "accuracy", "name": "test top-1", "value": round(result["test"]["top1"], 6)}
        where = {"name": data_name(cfg), "type": result["data"]["task"], "split": "test"}
        entry = {"task": {"type": "image-classification"}, "dataset": where, "metrics": [measured]}
        content["model-index"] = [{"name": title, "results": [entry]}]
    return "---\n" + yaml.safe_dump(content, sort_keys=False, allow_unicode=True) + "---"


def _form(network: Network) -> str:
    if network.plain is not None:
        return (
            f" What was learned is folded into the weights: this is a plain timm `{network.plain.architecture}`, which "
            "computes as fast as the model that was tuned."
        )
    return (
        " What was learned does not fold into a ViT's weights, so `model.onnx` is the whole network; "
        "`tuned.safetensors` is what was learned, for `load_tuned` of ViTune."
    )


def _adapter(cfg: CfgNode, adapters: Sequence[str]) -> str:
    folders = " and ".join(f"`{name}/`" for name in adapters)
    return (
        f"{folders}: what was learned in the format of Hugging Face peft, without the classifier. "
        f'`PeftModel.from_pretrained(vit, "{adapters[0]}")` puts it on timm\'s ViT with the weights of '
        f"`{label(cfg.DATA.FEATURE)}`."
    )


def _accuracy(result: dict | None) -> str:
    """A table of the measured accuracies with Wilson's interval, or why there is none."""
    if result is None:
        return "Unknown: there is no result.json beside the weights."
    if not result["test"] and not result["val"]:
        return _promise(result) or "Not measured: the run had neither validation nor test images."
    lines = ["| images | number | top-1 | 95 % interval | top-5 | mean per class |", "|---|---:|---:|---:|---:|---:|"]
    for name in ("test", "val"):
        if measured := result[name]:
            low, high = wilson(measured["top1"], measured["images"])
            percent = [f"{100 * measured[key]:.2f} %" for key in ("top1", "top5", "mean_per_class")]
            interval = f"{100 * low:.2f} to {100 * high:.2f} %"
            lines.append(f"| {name} | {measured['images']:,} | {percent[0]} | {interval} | {' | '.join(percent[1:])} |")
    after = (
        "\n\nThe interval is Wilson's for the images of this one run; another seed or other images differ by more. "
        "The test images were used once, after training."
    )
    notes = "".join(f"\n- {plain(note)}" for note in result["data"]["notes"])
    after += f"\n\n{promise}" if (promise := _promise(result)) else ""
    return "\n".join(lines) + after + (f"\n\nNotes on the data:\n{notes}" if notes else "")


def _promise(result: dict) -> str:
    """What ``vitune fit`` expects of it; "" for other runs."""
    if not (promise := result.get("promise")):
        return ""
    basis = {"out-of-fold": "answered by models that were chosen and fitted without them"}
    return (
        f"Expect {100 * promise['expected']:.1f} % ({100 * promise['low']:.1f} to {100 * promise['high']:.1f}, a "
        f"{100 * promise['level']:.0f} % interval) on images of this kind: measured on {promise['images']:,} images "
        f"{basis.get(promise['basis'], 'that took part in no choice and in no training')}."
    )


def _pixels(pixels: Pixels, timm: bool) -> str:
    """How an image file becomes an input."""
    height, width = pixels.size
    how = RESIZES[pixels.resize].format(*pixels.enlarged, min(pixels.enlarged))
    smooth = "with" if pixels.antialias else "without"
    text = (
        f"RGB images, {height} pixels high and {width} wide: {how}, {pixels.interpolation}, {smooth} antialiasing. "
        f"Values in [0, 1], minus mean {list(pixels.mean)}, divided by standard deviation {list(pixels.std)}."
    )
    if timm and not timm_prepares(pixels):
        text += " timm's own transform gives other pixels and therefore other logits: use the lines above."
    return text


def _made(network: Network, result: dict | None) -> str:
    cfg, model = network.tuned.cfg, network.tuned.model
    solver = cfg.SOLVER
    rows = [("pre-trained ViT", f"`{label(cfg.DATA.FEATURE)}`{_from(cfg.DATA.FEATURE)}")]
    for name, implied in parse(cfg.MODEL.TRANSFER_TYPE, cfg.FREQFIT).items():
        files = model.methods[name].without_files  # these values are paths on the training machine
        keys = {k: v for k, v in method_keys(cfg.MODEL, name, implied).items() if k not in files}
        settings = f"; {', '.join(f'{key} {value}' for key, value in keys.items())}" if keys else ""
        rows.append((f"method `{name}`", f"{METHODS[name].paper or 'every weight trains'}{settings}"))
    trained = model.num_trained()
    count, head = sum(trained.values()) - trained["head"], trained["head"]
    rows.append(("trained parameters", f"{count:,}, and {head:,} in the head"))
    if result:
        data = result["data"]
        images = ", ".join(f"{count:,} {name}" for name, count in data["images"].items())
        left_out = f"; {len(data['left_out'])} broken files left out" if data["left_out"] else ""
        rows.append(("images", f"{images} (trained on {data['train_split']}); {plain(data['version'])}{left_out}"))
    if counts_steps(solver) and not result:
        length = f"{solver.MAX_STEPS:,} steps" if solver.MAX_STEPS else f"at least {solver.MIN_STEPS:,} steps"
    else:
        length = f"{result['epochs'] if result else num_epochs(solver)} epochs"
    rows += [
        (
            "training",
            f"{length}, batches of {cfg.DATA.BATCH_SIZE}, augmentation {_augmentation(network)}",
        ),
        ("optimizer", f"{solver.OPTIMIZER}, learning rate {solver.BASE_LR:g}, weight decay {solver.WEIGHT_DECAY:g}"),
        ("seed", str(cfg.SEED)),
    ]
    if result:
        versions = result["environment"]["packages"]
        rows.append(
            ("software", ", ".join(f"{name} {versions[name]}" for name in ("torch", "timm") if name in versions))
        )
    return "\n".join(
        ["| | |", "|---|---|", *(f"| {name} | {settings.replace('|', '&#124;')} |" for name, settings in rows)]
    )


def _from(feature: str) -> str:
    row = find_backbone(feature)
    return f", {row.url}" if row and row.url.startswith("http") else ""


def _augmentation(network: Network) -> str:
    pixels = network.tuned.pixels
    return ", ".join([pixels.augment, *(f"{name} {value}" for name in RANDOM if (value := getattr(pixels, name)))])


def _licence(cfg: CfgNode) -> str:
    name = licence(cfg.DATA.FEATURE)
    terms = f"{name}, as far as we know: see their publisher" if name else "their publisher's"
    return (
        f"These weights derive from those of `{label(cfg.DATA.FEATURE)}`, whose licence is {terms}. What was learned "
        "also depends on the images it was learned from; their licence may restrict its use. ViTune itself is "
        "Apache-2.0."
    )
