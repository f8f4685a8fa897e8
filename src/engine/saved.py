"""Reading tuned.safetensors; every part is checked before use, since files may be damaged or hostile."""

import hashlib
import math
import string
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

import simplejson
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..data.pixels import Pixels, pixels_from
from ..data.presets import DECODERS, DTYPES, INTERPOLATIONS, RESIZES

FORMAT = "vitune 1"
HEADER = 2**25  # bytes; about 2**20 for a model with 20,000 classes
SETTINGS = 2**20  # characters of any other metadata entry
NAME = 4096  # characters of a class name
MOST_SIDE = 2**15  # pixels of the enlarged image
SMALLEST_STD = 1e-6  # of a channel: dividing by less gives infinite pixels


CHECKSUM = "checksum"  # the metadata entry; early versions did not write it


class CheckpointError(ValueError):
    """A file that is not a ViTune checkpoint, or does not fit the backbone."""


@dataclass(frozen=True)
class Saved:
    """The parts of a file, each of the right type; whether they fit together shows when the model is built."""

    config: str
    class_names: list[str]
    pixels: Pixels | None
    backbone: str  # the fingerprint of the ViT's frozen weights
    without_files: dict[str, Any]
    state: dict[str, Tensor]

    @property
    def head(self) -> dict[str, Tensor]:
        """The classifier's part of ``state``."""
        return {name.removeprefix("head."): t for name, t in self.state.items() if name.startswith("head.")}

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.state.values())


def read_saved(path: Path) -> Saved:
    """Read the file.

    Raises:
        CheckpointError: it is broken, not written by ViTune, or has impossible content; the message says where.
    """
    metadata, state = _read(path)
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path} was not written by ViTune (format {metadata.get('format')!r})")
    if metadata.get(CHECKSUM, "") not in ("", checksum(metadata, state)):
        raise CheckpointError(
            f"{path} is damaged: its checksum does not match. If it was changed on purpose, remove the entry "
            f"{CHECKSUM!r} from its metadata"
        )
    try:
        rows = _classes(state)
        saved = Saved(
            config=_text(metadata, "config"),
            class_names=_class_names(_text(metadata, "class_names"), rows),
            pixels=_pixels(_json(metadata.get("pixels", "null"), "pixels")),
            backbone=_hash(_text(metadata, "backbone")),
            without_files=_without_files(metadata.get("without_files", '{"MODEL.SIDE.WEIGHTS": ""}')),
            state=state,
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged, or was not written by ViTune: {error}") from error
    if wrong := [name for name, tensor in state.items() if tensor.is_floating_point() and not tensor.isfinite().all()]:
        raise CheckpointError(f"{path} is broken: {_some(wrong)} holds NaN or infinity, and so would every output")
    return saved


def checksum(metadata: dict[str, str], state: dict[str, Tensor]) -> str:
    """A hash of a file's metadata and tensors."""
    digest = hashlib.blake2b(digest_size=16)
    for name, text in sorted(metadata.items()):
        if name != CHECKSUM:
            digest.update(f"{name}\0{text}\0".encode(errors="surrogatepass"))
    for name, tensor in sorted(state.items()):
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    with path.open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
    if header > HEADER and header < path.stat().st_size:
        raise CheckpointError(f"{path} is damaged, or was not written by ViTune: its header has {header:,} bytes")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - the file is not a dict
    except (SafetensorError, ValueError, OverflowError, RuntimeError, MemoryError) as error:
        raise CheckpointError(f"{path} is broken, or not a safetensors file: {error}") from error
    return metadata, state


def _text(metadata: dict[str, str], name: str) -> str:
    if name not in metadata:
        raise ValueError(f"it has no {name}")
    return metadata[name]


def _json(text: str, name: str) -> Any:
    if name != "class_names" and len(text) > SETTINGS:
        raise ValueError(f"its {name} has {len(text):,} characters")
    try:
        return simplejson.loads(text)
    except ValueError as error:
        raise ValueError(f"its {name} is not JSON: {error}") from error


def _classes(state: dict[str, Tensor]) -> int:
    """The number of classes of the head; 0 if there is no head."""
    last = state.get("head.last_layer.bias")
    if last is None and any(name.startswith("head.") for name in state):
        raise ValueError("its head has no last layer")
    return 0 if last is None else last.numel()


def _class_names(text: str, rows: int) -> list[str]:
    if len(text) > NAME * (rows + 1):
        raise ValueError(f"its class names have {len(text):,} characters, for {rows} classes")
    names = _json(text, "class_names")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("its class names are not a list of strings")
    if len(names) != rows:
        raise ValueError(f"it has {len(names):,} class names, but its head has {rows:,} classes")
    return names


def _hash(text: str) -> str:
    if not text or set(text) - set(string.hexdigits):
        raise ValueError(f"its backbone is {text[:80]!r}, not a hash")
    return text


def _without_files(text: str) -> dict[str, Any]:
    content = _json(text, "without_files")
    if not isinstance(content, dict):
        raise ValueError("its without_files are not settings")
    return content


def _pixels(content: Any) -> Pixels | None:
    if content is None:
        return None
    pixels = pixels_from(content)
    for part in fields(Pixels):
        if part.default is not MISSING and not _alike(value := getattr(pixels, part.name), part.default):
            raise ValueError(f"in its pixels, {part.name} is {str(value)[:200]!r}")
    choices = {"decoder": DECODERS, "resize": RESIZES, "interpolation": INTERPOLATIONS, "dtype": DTYPES}
    values = {name: getattr(pixels, name) for name in choices}
    wrong = [f"{name} is {value!r}" for name, value in values.items() if not value or value not in choices[name]]
    wrong += [
        f"{name} is {value!r}"
        for name in ("mean", "std")
        if not (_numbers(value := getattr(pixels, name), 3) and (name == "mean" or min(value) >= SMALLEST_STD))
    ]
    if not (_numbers(pixels.size, 2) and all(isinstance(side, int) and side > 0 for side in pixels.size)):
        wrong.append(f"size is {pixels.size!r}")
    if pixels.enlarged and not (_numbers(pixels.enlarged, 2) and max(pixels.enlarged) <= MOST_SIDE):
        wrong.append(f"enlarged is {pixels.enlarged!r}")
    if not (_numbers(pixels.patch, 2 * pixels.native) and all(isinstance(side, int) for side in pixels.patch)):
        wrong.append(f"patch is {pixels.patch!r}")
    elif any(not 0 < own <= side for own, side in zip(pixels.patch, pixels.size, strict=False)):
        wrong.append(f"patch is {pixels.patch!r}, and size {pixels.size!r}")
    if not 0 <= pixels.jpeg_quality <= 100:
        wrong.append(f"jpeg_quality is {pixels.jpeg_quality!r}")
    if wrong:
        raise ValueError(f"in its pixels, {'; '.join(part[:200] for part in wrong)}")
    return pixels


def _alike(value: Any, default: Any) -> bool:
    """Whether a value has the type of a default; integers also count as floats."""
    if isinstance(default, float):
        return _numbers((value,), 1)
    return type(value) is type(default)


def _numbers(value: Any, count: int) -> bool:
    """Whether ``value`` is a tuple of ``count`` finite numbers."""
    return (
        isinstance(value, tuple)
        and len(value) == count
        and all(isinstance(number, (int, float)) and not isinstance(number, bool) for number in value)
        and all(abs(number) < 1e9 and math.isfinite(number) for number in value)
    )


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
