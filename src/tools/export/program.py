"""A run's network as a torch.export program, which torch alone loads and computes, on any device and for any batch."""

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
    """Write ``path``; how much the logits of the file differ from the run's.

    Raises:
        ValueError: a tap that cannot be traced, or a file whose logits are others.
    """
    batch = torch.export.Dim("batch")
    buffer = io.BytesIO()
    with warnings.catch_warnings(action="ignore"):  # torch's own: of buffers that it makes, and of what it deprecates
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
    """The Python that loads ``path`` and gives it an image file."""
    made = with_pillow(pixels)
    return Code(
        [*dict.fromkeys([*made.load, "import torch"]), f"model = torch.export.load({str(path)!r}).module()"],
        [*made.use, "logits = model(torch.from_numpy(images))  # float32 (batch, 3, height, width)"],
    )
