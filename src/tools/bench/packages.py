"""Packages that a machine lacks: taken from a folder of wheels, or said before anything is measured.

A lent machine often has torch, timm, peft and the scientific stack, and no network to install the rest from.
"""

import importlib.util
import os
import sys
from pathlib import Path

# What every benchmark imports, beside torch: module -> what pip calls it.
NEEDED = {
    **{name: name for name in ("fvcore", "iopath", "numpy", "packaging", "safetensors", "scipy", "simplejson")},
    **{name: name for name in ("timm", "torchvision", "tqdm", "yacs", "matplotlib")},
    **{"PIL": "pillow", "yaml": "pyyaml", "sklearn": "scikit-learn"},
}


def use(folder: Path | None) -> None:
    """Let this process and those that it starts import what is in ``folder``, wheels or unpacked packages, behind what
    the machine has itself.

    Raises:
        ValueError: the machine lacks packages, and they are not there either.
    """
    places = [] if folder is None else [folder.resolve(), *sorted(folder.resolve().glob("*.whl"))]
    if folder is not None and not folder.is_dir():
        raise ValueError(f"--packages {folder} is not a folder")
    sys.path += map(str, places)
    known = [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
    os.environ["PYTHONPATH"] = os.pathsep.join([*known, *map(str, places)])
    if missing := [name for module, name in NEEDED.items() if importlib.util.find_spec(module) is None]:
        names = " ".join(missing)
        raise ValueError(
            f"this Python lacks {names}: pip install {names}; without a network, fill a folder elsewhere with "
            f"pip wheel -w wheels {names}, bring it here, and add --packages wheels"
        )
