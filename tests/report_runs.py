"""Run folders as train.py and src.tools.tune write them, without the training: for tests of the report."""

import hashlib
import json
import random
from pathlib import Path

import yaml

from src.configs.config import flatten, get_cfg
from src.data.tasks import TASKS, find_task
from src.engine.results import RunFolder

DEFAULTS = get_cfg()
FLAT = flatten(DEFAULTS)
PIXELS = {
    "size": [224, 224],
    "augment": "none",
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
    "preset": "vpt",
    "decoder": "tf",
    "resize": "squash",
    "interpolation": "bilinear",
    "antialias": False,
    "dtype": "uint8",
    "auto_augment": "",
    "color_jitter": 0.0,
    "random_erasing": 0.0,
    "mixup": 0.0,
    "cutmix": 0.0,
}
ENVIRONMENT = {
    "python": "3.11.7",
    "packages": {"torch": "2.12.1", "torchvision": "0.27.1", "timm": "1.0.31", "numpy": "2.4.6"},
    "platform": "Linux",
    "device": "NVIDIA A100",
    "threads": 8,
    "git": "a" * 40,
    "command": "train.py",
}
VTAB = [task.name for task in TASKS.values() if task.group in ("Natural", "Specialized", "Structured")]
FEW_SHOT = [task.name for task in TASKS.values() if task.group == "few-shot"]


def make_run(
    output: Path,
    accuracy: float,
    *,
    head: int = 7690,
    without_head: int = 294_912,
    seconds: float = 100.0,
    tuning: bool = False,
    pixels: dict | None = None,
    environment: dict | None = None,
    sweep: dict | None = None,
    more: dict | None = None,
    **keys,
) -> RunFolder:
    """A finished run's folder; ``keys`` are config keys with "__" for ".": ``DATA__NAME="dtd"``."""
    keys = {"DATA__FEATURE": "sup_vitb16_imagenet21k", "DATA__DATAPATH": "data/vtab-1k"} | keys
    cfg = DEFAULTS.clone()
    for key, value in {**keys, "OUTPUT_DIR": str(output), "DATA__NO_TEST": tuning}.items():
        cfg.merge_from_list([key.replace("__", "."), value])
    own = {key: value for key, value in flatten(cfg).items() if FLAT[key] != value}
    name = hashlib.sha256(json.dumps({**own, "OUTPUT_DIR": ""}).encode()).hexdigest()[:8]
    task, folder = find_task(cfg.DATA.NAME), RunFolder(Path(output, cfg.DATA.NAME, f"seed{cfg.SEED}_{name}"))
    folder.path.mkdir(parents=True, exist_ok=True)
    metrics = {"top1": accuracy, "top5": 1.0, "mean_per_class": accuracy, "loss": 0.5}
    sizes = dict(task.sizes)
    val = {**metrics, "images": sizes.get("val", 200)} if tuning else None
    result = {
        "test": None if tuning else {**metrics, "images": sizes.get("test", 100)},
        "epochs": 100,
        "epoch_used": 100,
        "train_loss": 0.1,
        "val": val,
        "parameters": {
            "trained": without_head + head,
            "head": head,
            "by_part": {"vit": 0, "head": head, "lora": without_head},
            "backbone": 85_800_000,
        },
        "cost": {
            "parameters": {"with_head": without_head + head, "without_head": without_head},
            "flops_per_image": 10**10,
            "activation_bytes_per_image": 45 * 2**20,
            "images_per_second": {"training": 100.0, "testing": 200.0},
            "peak_memory_bytes": 10**9,
            "learned_bytes": 10**6,
            "processes": 1,
            "seconds": {
                "read": 1.0,
                "features": 0.0,
                "first_step": 0.1,
                "train": seconds,
                "validate": 0.0,
                "test": 9.0,
            },
        },
        "precision": "off",
        "allocation": None,
        "data": {
            "task": task.name,
            "metric": task.metric,
            "layout": "tfds",
            "version": "3.0.0",
            "notes": [],
            "train_split": cfg.DATA.TRAIN_SPLIT or task.train_split,
            "images": {"train": sizes.get("train", 100)}
            | ({"val": 200} if tuning else {"test": sizes.get("test", 100)}),
            "left_out": [],
        },
        "class_names": ["0", "1"],
        "pixels": PIXELS | (pixels or {}),
        "seed": cfg.SEED,
        "environment": ENVIRONMENT | (environment or {}),
        "config": own,
        **(more or {}),
    }
    folder.config.write_text(
        yaml.dump(json.loads(json.dumps(cfg)), Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper))
    )
    folder.result.write_text(json.dumps(result))
    if sweep:
        (folder.path / "sweep.json").write_text(json.dumps(sweep))
    return folder


def sweep_entry(name: str, stage: str, row: str, over: dict, tuned: dict, **more) -> dict:
    """A run's sweep.json."""
    entry = {"sweep": name, "stage": stage, "protocol": "select", "row": row, "over": over, "tuned": tuned}
    return entry | {"selection": None, "published": None} | more


def make_vtab(output: Path, methods: dict[str, tuple[float, dict]], seeds=(42, 44, 82), tasks=VTAB, seed=0) -> None:
    """All tasks of VTAB-1k with random accuracies around a level for each method: name -> (level, its keys)."""
    draw = random.Random(seed)
    for i, task in enumerate(tasks):
        base = draw.uniform(-0.2, 0.2)
        for level, keys in methods.values():
            for some in seeds:
                accuracy = min(1.0, max(0.0, level + base + draw.gauss(0, 0.01)))
                make_run(output, accuracy, head=769 * (2 + i), DATA__NAME=task, SEED=some, **keys)


def rewrite(folder: RunFolder, **more) -> dict:
    """Change top-level entries of a run's result."""
    result = folder.read_result() | more
    folder.result.write_text(json.dumps(result))
    return result
