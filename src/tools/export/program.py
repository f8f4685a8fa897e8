"""A run's network as a torch.export program, which only torch needs to load and run, on any device and batch size."""

import io
import warnings
from pathlib import Path

import simplejson
import torch

from ...data.pixels import Pixels
from ...utils.io import write_atomic
from .from_files import Code, with_pillow
from .network import Network, about, check

ABOUT = "about.json"


def write_program(network: Network, path: Path) -> float:
    """Write ``path``; returns how much the file's logits differ from the run's.

    Raises:
        ValueError: a tap cannot be traced, or the file's logits differ.
    """
    batch = torch.export.Dim("batch")
    buffer = io.BytesIO()
    with warnings.catch_warnings(action="ignore"):  # torch's own warnings
        try:
            program = torch.export.export(network.module, (network.example,), dynamic_shapes=({0: batch},))
        except torch._dynamo.exc.UserError as error:
            raise ValueError(f"torch.export cannot trace this network: {str(error).splitlines()[0]}") from error
        torch.export.save(program, buffer, extra_files={ABOUT: simplejson.dumps(about(network.tuned))})
        buffer.seek(0)
        again = torch.export.load(buffer).module()
    error = check(network, again, str(path))
    write_atomic(path, lambda temporary: temporary.write_bytes(buffer.getbuffer()))
    return error


def how_to_load_program(path: Path, pixels: Pixels) -> Code:
    """Python code that loads ``path`` and applies it to an image file."""
    made = with_pillow(pixels)
    return Code(
        [*dict.fromkeys([*made.load, "import torch"]), f"model = torch.export.load({str(path)!r}).module()"],
        [*made.use, "logits = model(torch.from_numpy(images))  # float32 (batch, 3, height, width)"],
    )
