"""A run's network as an ONNX file, checked with onnxruntime."""

import importlib.util
import tempfile
import warnings
from pathlib import Path

import simplejson
import torch
from torch import Tensor

from ...data.pixels import Pixels
from ...utils.io import write_atomic
from .from_files import Code, with_pillow
from .network import Network, about, check

ONE_FILE = 1_900_000_000  # bytes of weights; protobuf's limit is 2 GiB


def require_onnx() -> None:
    """Raises ValueError unless the packages are installed."""
    wanted = ("onnx", "onnxscript", "onnxruntime")
    if missing := [name for name in wanted if importlib.util.find_spec(name) is None]:
        raise ValueError(f"--to onnx needs {', '.join(missing)}: pip install 'vitune[onnx]'")


def write_onnx(network: Network, path: Path) -> float:
    """Write ``path``, and ``<path>.data`` if weights do not fit in one file; returns how much the logits differ.

    Raises:
        ValueError: ONNX cannot express a tap, or the file's logits differ.
    """
    program = _traced(network)
    for name, value in about(network.tuned).items():
        program.model.metadata_props[name] = value if isinstance(value, str) else simplejson.dumps(value)
    size = sum(tensor.nbytes for tensor in network.module.state_dict().values())
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        program.save(Path(folder) / path.name, external_data=size > ONE_FILE)
        error = check(network, runner(Path(folder) / path.name), str(path))
        for made in sorted(Path(folder).iterdir(), reverse=True):  # path.onnx.data first: path.onnx needs it
            write_atomic(path.with_name(made.name), lambda temporary, made=made: made.replace(temporary))
    return error


def _traced(network: Network) -> torch.onnx.ONNXProgram:
    batch = torch.export.Dim("batch")
    with warnings.catch_warnings(action="ignore"):  # deprecations inside torch's exporter
        try:
            return torch.onnx.export(
                network.module,
                (network.example,),
                dynamo=True,
                verbose=False,
                input_names=["images"],
                output_names=["logits"],
                dynamic_shapes=({0: batch},),
            )
        except (torch.onnx.errors.OnnxExporterError, torch._dynamo.exc.UserError) as error:
            raise ValueError(f"ONNX cannot express this network: {_last_line(error)}") from error


def _last_line(error: Exception) -> str:
    return next((line for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)


def runner(path: Path):
    """images -> logits, by onnxruntime on the CPU."""
    import onnxruntime  # imported here: it takes a second, and nothing else needs it

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {"images": images.numpy()})[0])

    return run


def how_to_load_onnx(path: Path, pixels: Pixels) -> Code:
    """Python code that loads ``path`` and applies it to an image file."""
    made = with_pillow(pixels)
    return Code(
        [*made.load, "import onnxruntime", f"session = onnxruntime.InferenceSession({str(path)!r})"],
        [*made.use, '(logits,) = session.run(None, {"images": images})  # float32 (batch, 3, height, width)'],
    )
