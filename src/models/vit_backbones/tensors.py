"""Tensors from weights files of any origin: no code in a file runs, and its size bounds the memory that reading takes.

Supported are files of torch.save (also before torch 1.6), safetensors, NumPy's .npz and TorchScript archives, told
apart by their content. torch has no safe mode for TorchScript (github.com/pytorch/pytorch/pull/143403), so only the
pickled tensors of an archive are read, by an unpickler that can build tensors, lists and attributes, nothing else.
"""

import argparse
import lzma
import pickle
import re
import struct
import tarfile
import tokenize
import warnings
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import safetensors
import torch
from safetensors import SafetensorError
from torch import Tensor

from ...utils.text import a_kind

StateDict = dict[str, Tensor]

MOST_NAMES = 1_000_000  # of tensors and modules in an archive
EXPANDS = 16  # how many times larger than a compressed file its content may be; that of weights is 1.1

# What Python, numpy and torch raise for files that are broken or of another kind.
UNREADABLE = (
    LookupError, OSError, ValueError, RuntimeError, EOFError, AttributeError, TypeError, AssertionError, OverflowError,
    MemoryError, SyntaxError, pickle.UnpicklingError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error,
    tarfile.TarError, tokenize.TokenError, SafetensorError,
)  # fmt: skip

# How torch names a class or function that a file wants to call.
REFUSED = re.compile(r"(?:Unsupported global: GLOBAL|Unsupported class|instantiate class|unpickle) ([\w.]*\w)")


class NotOnlyTensors(ValueError):
    """The file holds Python objects beside tensors, or tensors that are not plain arrays."""


@contextmanager
def reading(path: Path, reader: str) -> Iterator[None]:
    """Errors while ``path`` is read inside become a ValueError that says what to do.

    Args:
        reader: the format that it should have, for the message.
    """
    try:
        yield
    except NotOnlyTensors as error:
        raise ValueError(f"{path} is not read: {error}") from error
    except UNREADABLE as error:
        raise ValueError(
            f"{path} ({path.stat().st_size:,} bytes) is broken, incomplete or of another kind: {reader} cannot read it "
            f"({type(error).__name__}: {one_line(error)}). Download it again (see pretrained/README.md)"
        ) from error


def single(tensor: Tensor) -> Tensor:
    """In single precision; integers as they are, which a strict load refuses: quantised, they lack their scales."""
    return tensor.float() if tensor.is_floating_point() else tensor


def one_line(error: BaseException) -> str:
    """An error's message, in one short line."""
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else f"{text[:200]}..."


def everything(name: str) -> bool:
    """Keeps every tensor of a file."""
    return True


def read_content(path: Path, keep: Callable[[str], bool] = everything) -> dict[str, Any]:
    """What a file holds: tensors by name, and for torch's files whatever was saved around them.

    Args:
        keep: whether a tensor of a given name is wanted; others are not read from safetensors and .npz.

    Raises:
        NotOnlyTensors: it holds Python objects, which only running code could bring back.
        UNREADABLE: it is broken, or of another kind.
    """
    path = Path(path)
    with path.open("rb") as file:
        start = file.read(9)
    if start.startswith(b"PK"):
        return _read_zip(path, keep)
    if start[8:] == b"{":
        with safetensors.safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys() if keep(name)}  # noqa: SIM118
    return _torch_load(path)


def read_state(path: Path, *keys: str, keep: Callable[[str], bool] = everything) -> StateDict:
    """The tensors of a file by name: its own, or those under the first of ``keys`` that it has.

    Args:
        keep: as in ``read_content``; those that are not kept are left out of every kind of file.

    Raises:
        As ``read_content``.
    """
    content = read_content(path, keep)
    key = next((key for key in keys if isinstance(content.get(key), Mapping)), None)
    return {name: t for name, t in tensors_of(content if key is None else content[key]).items() if keep(name)}


def tensors_of(content: Mapping) -> StateDict:
    """The tensors among ``content``, each a plain array with all of its values in the file.

    Raises:
        NotOnlyTensors: one is not.
    """
    state = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
    for name, tensor in state.items():
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
            kind = "quantised" if tensor.is_quantized else f"on {tensor.device.type}, {tensor.layout}"
            raise NotOnlyTensors(f"{name} is not a plain array ({kind}): save the weights as ordinary tensors")
        if tensor.nbytes > tensor.untyped_storage().nbytes():
            raise NotOnlyTensors(
                f"{name} {tuple(tensor.shape)} has more values than the file: save a contiguous() copy of it"
            )
    return {name: tensor.detach() for name, tensor in state.items()}


def _torch_load(path: Path, **how: Any) -> dict[str, Any]:
    try:
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings(action="ignore"):
            content = torch.load(path, map_location="cpu", weights_only=True, **how)
    except pickle.UnpicklingError as error:
        if not (refused := REFUSED.search(str(error))):  # torch's advice is to run the file's code
            raise pickle.UnpicklingError(str(error).rpartition("WeightsUnpickler error:")[2]) from error
        raise NotOnlyTensors(
            f"it holds Python objects beside tensors ({refused[1]}), and reading those would run the file's code. "
            "Downloading it again does not help: if you trust it, save its tensors alone, "
            "torch.save(model.state_dict(), file)"
        ) from error
    if not isinstance(content, Mapping):
        raise ValueError(f"it holds {a_kind(content)}, not a state dict")
    return dict(content)


# --- zip files: torch's own, TorchScript's and NumPy's


def _read_zip(path: Path, keep: Callable[[str], bool]) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:
        names = {record.filename.rpartition("/")[2] for record in archive.infolist()}
        if names and all(name.endswith(".npy") for name in names):
            return _read_npz(path, archive, keep)
        require_whole(path)
        if "constants.pkl" in names:
            return _read_script(archive)
        if any(record.compress_type != zipfile.ZIP_STORED for record in archive.infolist()):
            raise ValueError("its parts are compressed, which torch never does")
    return _torch_load(path, mmap=True)


def require_whole(path: Path) -> None:
    """Raises ValueError for a damaged zip file, such as torch's, whose checksums do not match.

    torch does not check. Files of ``torch.serialization.set_crc32_options(False)`` have no valid checksum at all, and
    pass.
    """
    wrong, right = [], 0
    with zipfile.ZipFile(path) as archive:
        if sum(record.file_size for record in archive.infolist()) > EXPANDS * path.stat().st_size + (1 << 20):
            raise ValueError("its parts would be far larger than the file")
        for record in archive.infolist():
            try:
                with archive.open(record) as opened:
                    while opened.read(1 << 20):
                        pass
                right += record.file_size > 0
            except zipfile.BadZipFile:
                wrong.append(record.filename)
    if wrong and right:
        raise ValueError(
            f"it is damaged: {', '.join(wrong[:3])} {'has' if len(wrong) == 1 else 'have'} a wrong checksum"
        )


def _read_npz(path: Path, archive: zipfile.ZipFile, keep: Callable[[str], bool]) -> StateDict:
    """The arrays that ``keep`` wants. All must be of floating point; sizes are checked before values are read."""
    total = 0
    for record in archive.infolist():
        with archive.open(record) as opened:
            version = np.lib.format.read_magic(opened)
            header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            shape, _, dtype = header[version](opened)
        if dtype.kind != "f":
            raise ValueError(f"{record.filename} is of {dtype}, not of floating point")
        total += dtype.itemsize * int(np.prod(shape, dtype=object))
    if total > EXPANDS * path.stat().st_size + (1 << 20):
        raise ValueError(f"it claims to hold {total:,} bytes, but has {path.stat().st_size:,}")
    with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
        return {name: torch.from_numpy(file[name]) for name in file.files if keep(name)}


# --- TorchScript archives


class _Scripted:
    """A module of an archive: its attributes, and none of its code."""

    def __init__(self) -> None:
        self.attributes: Any = {}


class _Reader(pickle._Unpickler):  # the Python one: the C one allocates whatever size the file names
    """Brings back modules as ``_Scripted``, tensors and plain values."""

    dispatch: ClassVar = dict(pickle._Unpickler.dispatch)

    def __init__(self, archive: zipfile.ZipFile, folder: str):
        self.archive, self.folder, self.storages = archive, folder, {}
        super().__init__(archive.open(f"{folder}data.pkl"))

    def find_class(self, module: str, name: str) -> Callable:
        if module == "__torch__" or module.startswith("__torch__."):
            return _Scripted
        allowed = {
            ("torch._utils", "_rebuild_tensor_v2"): _tensor,
            ("collections", "OrderedDict"): OrderedDict,
            **{("torch.jit._pickle", f"build_{kind}list"): list for kind in ("int", "double", "bool", "tensor")},
            ("torch.jit._pickle", "restore_type_tag"): _untagged,
        }
        if module == "torch" and name.endswith("Storage"):
            return name  # of persistent ids, never called
        if (module, name) in allowed:
            return allowed[module, name]
        raise NotOnlyTensors(f"it holds objects beside modules and tensors ({module}.{name}), which are not read")

    def persistent_load(self, pid: Any) -> Tensor:
        """A storage, as a flat tensor."""
        _, kind, key, _, _ = pid
        if key not in self.storages:
            dtype = _DTYPES[kind]
            content = bytearray(self.archive.read(f"{self.folder}data/{key}"))
            self.storages[key] = torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
        return self.storages[key]

    def load_build(self) -> None:
        attributes, built = self.stack.pop(), self.stack[-1]
        if type(built) is not _Scripted:
            raise NotOnlyTensors(f"it gives attributes to {a_kind(built)}")
        built.attributes = attributes

    dispatch[pickle.BUILD[0]] = load_build


_DTYPES = {
    "FloatStorage": torch.float32, "HalfStorage": torch.float16, "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
}  # fmt: skip


def _tensor(storage: Tensor, offset: int, size: tuple, stride: tuple, *_: Any) -> Tensor:
    return storage.as_strided(size, stride, offset)


def _untagged(value: Any, tag: str) -> Any:
    return value


def _read_script(archive: zipfile.ZipFile) -> StateDict:
    """All tensors of an archive's modules, by the names they have in its state dict."""
    folder = next(name for name in archive.namelist() if name.endswith("data.pkl")).removesuffix("data.pkl")
    root = _Reader(archive, folder).load()
    state, left, seen = {}, [("", root)], 0
    while left:
        prefix, module = left.pop()
        attributes = module.attributes if isinstance(module, _Scripted) else None
        for name, value in attributes.items() if isinstance(attributes, dict) else ():
            seen += 1
            if isinstance(value, _Scripted):
                left.append((f"{prefix}{name}.", value))
            elif isinstance(value, Tensor):
                state[f"{prefix}{name}"] = value
        if seen > MOST_NAMES or len(prefix) > 1000:
            raise ValueError("its modules hold each other")
    return state
