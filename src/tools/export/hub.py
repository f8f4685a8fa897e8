"""A folder for the Hugging Face Hub: weights, config.json, and a model card written from the run."""

from pathlib import Path

from ...models.vit_models import METHODS
from ...utils.io import replace_folder, write_atomic, write_json, write_text
from .card import write_card
from .from_files import Code
from .network import Network, about
from .onnx_file import how_to_load_onnx, require_onnx, write_onnx
from .plain import FOLDER, how_to_load, write_folder

CARD = "README.md"
ONNX = "model.onnx"
TUNED = "tuned.safetensors"
KNOWN = {*FOLDER, CARD, ONNX, f"{ONNX}.data", TUNED, *METHODS}  # allowed files; adapters have their method's name


def write_hub(network: Network, tuned_file: Path, result: dict | None, out: Path) -> float:
    """Write the folder ``out``; returns the largest difference of its logits from the run's, relative to their size.

    If everything folds, it is a timm model; otherwise the whole network as ONNX, and the learned weights for ViTune.

    Args:
        tuned_file: the run's tuned.safetensors.
        result: its result.json, or None.
    """
    errors = []
    if network.plain is None:
        require_onnx()

    def fill(folder: Path) -> None:
        if network.plain is not None:
            write_folder(network.plain, folder)
            errors.append(network.plain.error)
        else:
            errors.append(write_onnx(network, folder / ONNX))
            write_json(folder / FOLDER[0], {"architecture": network.tuned.cfg.DATA.FEATURE, **about(network.tuned)})
            write_atomic(folder / TUNED, lambda temporary: temporary.write_bytes(tuned_file.read_bytes()))
        model = network.tuned.model
        for name, method in model.methods.items():
            method.export(model.vit, folder / name)
        adapters = [name for name in model.methods if (folder / name).is_dir()]
        write_text(folder / CARD, write_card(network, result, how_to_load_hub(network, Path(".")).lines, adapters))

    replace_folder(out, fill)
    return errors[0]


def how_to_load_hub(network: Network, folder: Path) -> Code:
    """Python code that loads the folder and applies it to an image file."""
    if network.plain is not None:
        return how_to_load(network.plain, folder)
    return how_to_load_onnx(folder / ONNX, network.tuned.pixels)
