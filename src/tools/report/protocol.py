"""The protocol of a run, factor by factor, as texts that are compared with a source's statement or a recipe."""

from collections.abc import Callable
from functools import cache
from itertools import product
from typing import Any

from ...configs.config import flatten, load_settings, unnamed_values
from ...data.pixels import NORMALIZE
from ...data.tasks import find_task
from ...models.vit_backbones.zoo import ALIASES
from ...models.vit_models import config_name, parse
from ...utils.shipped import shipped
from ..tune.points import points
from ..tune.spec import Choice, Sweep, label, load_sweep

UNKNOWN = "not stated"
SETTINGS_OF = "as in "  # followed by files of RECIPES, which have the source's settings per task
RECIPES = shipped("configs") / "repro"
MANY = 2  # tasks whose values are listed

# What must agree for two figures to be comparable, with its name in sentences.
FACTORS = {
    "pixels": "resized images",
    "normalisation": "normalisation",
    "augmentation": "augmentation",
    "epoch": "epoch that is tested",
    "seeds": "number of seeds",
    "data": "image files",
    "checkpoint": "pre-trained weights",
    "optimizer": "optimizer",
    "learning_rate": "learning rate",
    "weight_decay": "weight decay",
    "decayed": "what decays",
    "schedule": "schedule",
    "epochs": "epochs",
    "batch": "batch",
    "drop_path": "drop-path",
    "head_start": "start of the head",
    "settings": "settings of the method",
}


def differences(
    results: list[dict], stated: dict[str, str], recipe: Sweep | None, method: str
) -> list[tuple[str, str, str]]:
    """(factor, ours, theirs) for each factor in which our runs differ from a source, or that it does not state.

    Args:
        results: contents of result.json files; their configs may have all keys or only non-default ones.
        stated: factor -> what the source states.
        recipe: has the source's settings per task, in its row ``method``.
    """
    differing = []
    for factor, theirs in stated.items():
        if factor in SETTINGS:
            differing += _settings_differ(factor, results, theirs, recipe, method)
            continue
        ours = _seeds(results) if factor == "seeds" else _values(results, RESULTS[factor])
        differing += [] if _alike(factor, ours, theirs) else [(factor, ours, theirs)]
    return differing


def _settings_differ(
    factor: str, results: list[dict], stated: str, recipe: Sweep | None, method: str
) -> list[tuple[str, str, str]]:
    """The same for a factor whose value may differ between tasks."""
    describe, pairs = SETTINGS[factor], {}
    for result in results:
        task = result["data"]["task"]
        its = _repeated(recipe.name, method, task) if recipe else []
        theirs = sorted({describe(config) for config in its}) or [UNKNOWN if stated.startswith(SETTINGS_OF) else stated]
        pairs[task, describe(unnamed_values() | result["config"]), " or ".join(theirs)] = theirs
    differ = [(task, mine, their) for (task, mine, their), theirs in pairs.items() if mine not in theirs]
    ours, theirs = {mine for _, mine, _ in differ}, {their for *_, their in differ}
    if len(ours) == len(theirs) == 1:
        return [(factor, *ours, *theirs)]
    if not differ:
        return []
    more = f" and {len(differ) - MANY} more" if len(differ) > MANY else ""
    listed = [", ".join(f"{pair[i]} on {pair[0]}" for pair in differ[:MANY]) + more for i in (1, 2)]
    return [(factor, *listed)]


# --- factors of a result


def _pixels(result: dict) -> str:
    pixels = result["pixels"]
    height, width = pixels["size"]
    quality = "antialiased" if pixels["antialias"] else "not antialiased"
    return f"{height} x {width}, {pixels['resize']}, {pixels['interpolation']}, {quality}"


def _normalisation(result: dict) -> str:
    mean_std = tuple(result["pixels"]["mean"]), tuple(result["pixels"]["std"])
    return next((name for name, its in NORMALIZE.items() if its == mean_std), f"mean {mean_std[0]}, std {mean_std[1]}")


def _augmentation(result: dict) -> str:
    pixels = result["pixels"]
    parts = [pixels["augment"]] if pixels["augment"] != "none" else []
    parts += [pixels["auto_augment"]] if pixels["auto_augment"] else []
    names = ("color_jitter", "random_erasing", "mixup", "cutmix")
    parts += [f"{name.replace('_', ' ')} {pixels[name]:g}" for name in names if pixels[name]]
    return ", ".join(parts) or "none"


def _epoch(result: dict) -> str:
    return "last" if result["epoch_used"] == result["epochs"] else "best on val"


def _data(result: dict) -> str:
    data = result["data"]
    again = result["pixels"].get("jpeg_quality") or any("re-encoded as JPEG" in note for note in data["notes"])
    return f"{'re-encoded as JPEG' if again else 'original files'} ({data['version'] or data['layout']})"


def _checkpoint(result: dict) -> str:
    feature = result["config"].get("DATA.FEATURE", "")
    path = result["config"].get("MODEL.WEIGHT_PATH", "")
    return ALIASES.get(feature, feature) + (f", weights {path}" if path else "")


RESULTS: dict[str, Callable[[dict], str]] = {
    "pixels": _pixels,
    "normalisation": _normalisation,
    "augmentation": _augmentation,
    "epoch": _epoch,
    "data": _data,
    "checkpoint": _checkpoint,
}


def _values(results: list[dict], describe: Callable[[dict], str]) -> str:
    return " or ".join(sorted({describe(result) for result in results})) or UNKNOWN


def _seeds(results: list[dict]) -> str:
    seeds = sorted({result["seed"] for result in results})
    return f"{len(seeds)} ({' '.join(map(str, seeds))})"


def _alike(factor: str, ours: str, theirs: str) -> bool:
    if factor == "seeds":
        return ours.split()[0] == theirs.split()[0]
    if factor == "data":  # ignore the version
        return {part.split(" (")[0] for part in ours.split(" or ")} == {theirs}
    return ours == theirs


# --- factors of a config: every key -> text


def _optimizer(config: dict[str, Any]) -> str:
    name, average = config["SOLVER.OPTIMIZER"], config["SOLVER.EMA"]
    if name == "sgd":
        text = f"sgd, momentum {config['SOLVER.MOMENTUM']:g}"
    else:
        text = f"{name}, epsilon {config['SOLVER.EPS'] or {'adam': 1e-8, 'adamw': 1e-6}[name]:g}"
    return text + (f", averaged with {average:g}" if average else "")


def _learning_rate(config: dict[str, Any]) -> str:
    layers = config["SOLVER.LAYER_DECAY"]
    return f"{config['SOLVER.BASE_LR']:g}" + (f", layer by layer times {layers:g}" if layers != 1 else "")


def _decayed(config: dict[str, Any]) -> str:
    return {"auto": "the method's own rule"}.get(config["SOLVER.DECAY"], config["SOLVER.DECAY"])


def _schedule(config: dict[str, Any]) -> str:
    kind, steps = config["SOLVER.SCHEDULER"], config["SOLVER.WARMUP_STEPS"]
    warmup = f"{steps} steps" if steps else f"{config['SOLVER.WARMUP_EPOCH']} epochs"
    text = f"{kind}, {warmup} of warm-up from {config['SOLVER.WARMUP_LR']:g}"
    text += "" if kind == "constant" else f", to {config['SOLVER.MIN_LR']:g}"
    return text + (
        ", per step" if config["SOLVER.SCHEDULE_PER"] == "step" else ", late" * config["SOLVER.SCHEDULE_LATE"]
    )


def _epochs(config: dict[str, Any]) -> str:
    if config["SOLVER.MAX_STEPS"]:
        return f"{config['SOLVER.MAX_STEPS']} steps"
    cooldown, early = config["SOLVER.COOLDOWN_EPOCH"], config["SOLVER.SEARCH_EPOCH"]
    text = f"{config['SOLVER.TOTAL_EPOCH']}" + (f" and {cooldown} of cooldown" if cooldown else "")
    return text + (f", stopped after {early}" if 0 < early < config["SOLVER.TOTAL_EPOCH"] + cooldown else "")


def _batch(config: dict[str, Any]) -> str:
    return f"{config['DATA.BATCH_SIZE']}" + (", whole ones only" if config["DATA.DROP_LAST"] else "")


def _method_settings(config: dict[str, Any]) -> str:
    """The keys of its methods, such as "lora: RANK 8, ALPHA 0"."""
    methods = parse(config["MODEL.TRANSFER_TYPE"], config["FREQFIT"])
    parts = []
    for name, implied in methods.items():
        node = f"MODEL.{config_name(name)}."
        own = {key.removeprefix(node): value for key, value in config.items() if key.startswith(node)} | implied
        parts.append(f"{name}: {', '.join(f'{key} {_value(value)}' for key, value in own.items())}".rstrip(": "))
    return "; ".join(parts) or "none"


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else '""' if value == "" else str(value)


SETTINGS: dict[str, Callable[[dict[str, Any]], str]] = {
    "optimizer": _optimizer,
    "learning_rate": _learning_rate,
    "weight_decay": lambda config: f"{config['SOLVER.WEIGHT_DECAY']:g}",
    "decayed": _decayed,
    "schedule": _schedule,
    "epochs": _epochs,
    "batch": _batch,
    "drop_path": lambda config: f"{config['SOLVER.DROP_PATH']:g}",
    "head_start": lambda config: config["MODEL.HEAD_INIT"],
    "settings": _method_settings,
}


# --- factors of a recipe


@cache
def recipe_named(name: str) -> Sweep | None:
    """The sweep of configs/repro/<name>.yaml; None if there is no such file."""
    file = RECIPES / f"{name}.yaml"
    return load_sweep(file) if file.is_file() else None


@cache
def _repeated(name: str, method: str, task: str) -> list[dict[str, Any]]:
    """The configs with which a recipe's row ``method`` may be tested on a task: one, or all candidates."""
    sweep, configs = recipe_named(name), []
    for choices in product(*sweep.over.values()):
        settings = {key: value for choice in choices for key, value in choice.settings.items()}
        settings |= sweep.cells.get(tuple(label(choice) for choice in choices), {})
        base = {key: value for key, value, _ in sweep.settings}
        if not _is_row(sweep, choices, method) or find_task((base | settings)["DATA.NAME"]).name != task:
            continue
        axes = sweep.tune | {key: axis for choice in choices for key, axis in choice.tune.items()}
        for _, tuned in points(axes, sweep):
            whole = base | settings | tuned | sweep.final
            configs.append(flatten(load_settings([(key, value, name) for key, value in whole.items()], [], quiet=True)))
    return configs


def _is_row(sweep: Sweep, choices: tuple[Choice, ...], method: str) -> bool:
    return all(choice.label == method for axis, choice in zip(sweep.over, choices, strict=True) if axis == "method")
