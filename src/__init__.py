"""ViTune: parameter-efficient fine-tuning of Vision Transformers.

In code and notebooks::

    import vitune

    model = vitune.tune(vit, "lora+freqfit", num_classes=10)

What is listed in ``__all__`` is loaded when it is first used, so that ``import vitune`` does not wait for torch.
"""

import sys

if sys.platform == "win32":
    raise ImportError("ViTune runs on Linux and macOS; on Windows use WSL: https://learn.microsoft.com/windows/wsl")

from typing import TYPE_CHECKING, Any

from .utils import start

if TYPE_CHECKING:
    from .api import find_allocation, load, load_merged, merged_state_dict, save, tune
    from .tools.fit.fitted import fit

start.require_torch()
start.let_threads_sleep()
start.have_a_user()

__version__ = "0.1.0"
__all__ = ["__version__", "find_allocation", "fit", "load", "load_merged", "merged_state_dict", "save", "tune"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(".tools.fit.fitted" if name == "fit" else ".api", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
