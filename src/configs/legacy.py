"""Keys and values of VPT's and FreqFiT's configs that have another name here, or mean nothing any more."""

from collections.abc import Iterable
from typing import Any

# Their key -> ours.
RENAMED = {"MODEL.ADAPTER.REDUCATION_FACTOR": "MODEL.ADAPTER.REDUCTION_FACTOR"}

# Other names for our keys.
ALIASES = {"HEAD.INIT": "MODEL.HEAD_INIT"}

# Keys without a meaning here, and what replaces them.
RETIRED = {
    "DBG": "logging is the same in every run",
    "DIST_BACKEND": "torchrun starts several processes; the device decides how they communicate",
    "DIST_INIT_FILE": "torchrun sets where processes meet",
    "DIST_INIT_PATH": "torchrun sets where processes meet",
    "NUM_GPUS": "DEVICE chooses where a run computes, torchrun --nproc_per_node on how many GPUs",
    "NUM_SHARDS": "torchrun --nnodes sets how many machines a run uses",
    "RUN_N_TIMES": "a finished run is never repeated or overwritten; SEED makes another one",
    "DATA.PIN_MEMORY": "decoded images are kept as bytes (DATA.CACHE)",
    "MODEL.FILTER": "FREQFIT switches the filter on",
    "MODEL.PROMPT.FILTER": "FREQFIT switches the filter on",
    "MODEL.ADAPTER.FILTER": "FREQFIT switches the filter on",
    "MODEL.LINEAR.DROPOUT": "MODEL.MLP_NUM gives the head hidden layers",
    "MODEL.LINEAR.MLP_SIZES": "MODEL.MLP_NUM gives the head hidden layers",
    "MODEL.PROMPT.CLSEMB_FOLDER": "it was never read",
    "MODEL.PROMPT.CLSEMB_PATH": "prompts start at random",
    "MODEL.PROMPT.SAVE_FOR_EACH_EPOCH": "MODEL.SAVE_CKPT saves what was learned",
    "SOLVER.DBG_TRAINABLE": "wiring.txt lists what trains",
    "SOLVER.LOG_EVERY_N": "there is one line per epoch and a progress bar",
    "SOLVER.LOSS_ALPHA": "it was never read",
    "SOLVER.WEIGHT_DECAY_BIAS": "it was never read; SOLVER.WEIGHT_DECAY says which biases decay",
}

# Keys whose only value that ever worked is what happens here anyway.
ONLY_VALUE = {"MODEL.PROMPT.LOCATION": "prepend", "MODEL.PROMPT.INITIATION": "random"}

# Values with another name here.
VALUES = {
    ("FREQFIT", "none"): "",
    ("SOLVER.SCHEDULER", "cosine_hardrestart"): "cosine",  # with its one cycle it is the same
    ("MODEL.TYPE", "ssl-vit"): "vit",
    ("MODEL.TYPE", "clip-vit"): "vit",
}


# Values of keys in runs that do not record them, where the default is now "auto".
UNNAMED = {"MODEL.HEAD_INIT": "vpt", "SOLVER.DECAY": "vpt"}


def for_vpt(settings: Iterable[tuple[str, Any]]) -> bool:
    """Whether a key or a value shows that settings were written for VPT or FreqFiT: no other config has it."""
    theirs = RENAMED.keys() | RETIRED.keys() | ONLY_VALUE.keys()
    return any(key in theirs or (key, str(value)) in VALUES for key, value in settings)


def is_saved(keys: Iterable[str]) -> bool:
    """Whether these are all keys of a run, as its config.yaml has them, and not those that someone chose."""
    return {"SEED", "DEVICE", "OUTPUT_DIR", "DATA.NAME", "MODEL.HEAD_INIT", "SOLVER.OPTIMIZER", "SOLVER.LOSS"} <= {
        *keys
    }


def translate(key: str, value: Any) -> tuple[str | None, Any, str]:
    """(our key, or None where there is none; its value; a warning, or "")."""
    key = ALIASES.get(key, key)
    if key in RENAMED:
        return RENAMED[key], value, f"{key} is called {RENAMED[key]} here"
    if key in ONLY_VALUE and value == ONLY_VALUE[key]:
        return None, value, ""
    if key in ONLY_VALUE:
        return None, value, f"{key} {value!r} has no effect: prompts are {ONLY_VALUE[key]!r}"
    if key in RETIRED:
        return None, value, f"{key} has no effect here: {RETIRED[key]}"
    return key, VALUES.get((key, str(value)), value), ""
