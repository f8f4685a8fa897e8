"""Python code that computes an exported file's logits for an image without ViTune, and a check of that code."""

import io
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ...data.pixels import Pixels
from ...data.resize import TF1
from ...engine.checkpoint import Tuned
from ...models.patches import LONGEST, unpack

PHOTO = "photo.jpg"  # the image file in the printed code
TOLERANCE = 1e-4  # relative to the largest logit, or to 1 if that is smaller
LEVELS = 1.01, 0.1  # of 255: maximum and mean difference of pixels (rounding)


@dataclass(frozen=True)
class Code:
    """Lines of Python: ``load`` once, then ``use`` per image file, which sets ``images`` and ``logits``."""

    load: list[str]
    use: list[str]

    @property
    def lines(self) -> list[str]:
        return self.load + self.use


def timm_prepares(pixels: Pixels) -> bool:
    """Whether a timm transform gives exactly these pixels: it uses Pillow's decoder and resize, and crops squares."""
    plain = pixels.decoder == "pil" and not pixels.jpeg_quality and pixels.antialias and pixels.dtype == "uint8"
    fits = tuple(int(side / crop_pct(pixels)) for side in pixels.size) == pixels.enlarged
    return plain and fits and not pixels.native and (pixels.resize != "crop" or pixels.size[0] == pixels.size[1])


def crop_pct(pixels: Pixels) -> float:
    """timm's crop_pct: it divides the input's height and width by this and rounds down, to get ``pixels.enlarged``."""
    if pixels.native:
        return 1.0
    pairs = list(zip(pixels.size, pixels.enlarged, strict=True))
    for fraction in (1.0, 0.875, *(side / (larger + 0.5) for side, larger in pairs)):
        if all(int(side / fraction) == larger for side, larger in pairs):
            return fraction
    return 0.875  # runs of earlier versions on images that are not square


def crop_mode(pixels: Pixels) -> str:
    """timm's name for ``pixels.resize``."""
    return "center" if pixels.resize == "crop" else "squash"


def with_pillow(pixels: Pixels) -> Code:
    """Code that reads PHOTO into ``images``, a float32 array (1, 3, H, W), with Pillow and numpy.

    With native aspect ratios, into the dictionary of patches that timm's NaFlexVit takes.
    """
    height, width = pixels.size
    load, use = _decoded(pixels)
    use += _size(pixels)
    more_imports, resized = _resized(pixels)
    use += resized
    if pixels.native:
        return Code(list(dict.fromkeys([*load, *more_imports, "import torch"])), [*use, *_patches(pixels)])
    if pixels.resize != "squash":
        use += [
            f"top, left = round((len(images) - {height}) / 2), round((len(images[0]) - {width}) / 2)",
            f"images = images[top : top + {height}, left : left + {width}]",
        ]
    mean, std = list(pixels.mean), list(pixels.std)
    use.append(f'images = ((images / 255 - {mean}) / {std}).astype("float32").transpose(2, 0, 1)[None]')
    return Code([*load, *more_imports], use)


def _patches(pixels: Pixels) -> list[str]:
    """Lines that make ``images`` of an image that fills its grid of patches."""
    high, wide = pixels.patch
    return [
        f"images = ((images / 255 - {list(pixels.mean)}) / {list(pixels.std)})"
        f'.astype("float32").reshape(rows, {high}, cols, {3 * wide})',
        'images = {"patches": torch.from_numpy(images.swapaxes(1, 2).reshape(1, rows * cols, -1)),',
        '          "patch_coord": torch.cartesian_prod(torch.arange(rows), torch.arange(cols))[None],',
        '          "patch_valid": torch.ones(1, rows * cols, dtype=torch.bool)}',
    ]


def _decoded(pixels: Pixels) -> tuple[list[str], list[str]]:
    load, use = ["import numpy", "from PIL import Image"], [f'image = Image.open({PHOTO!r}).convert("RGB")']
    fast = 'Image.fromarray(simplejpeg.decode_jpeg({}, "RGB", fastdct=True))'
    if pixels.decoder == "tf":
        load += ["import simplejpeg", "from pathlib import Path"]
        use += [
            f"data = Path({PHOTO!r}).read_bytes()",
            'if data[:2] == b"\\xff\\xd8":  # a JPEG file',
            f"    image = {fast.format('data')}",
        ]
    if pixels.jpeg_quality:
        load.append("import io")
        use += [
            "again = io.BytesIO()",
            f'image.save(again, "JPEG", quality={pixels.jpeg_quality}, subsampling="4:2:0")',
            f"image = {fast.format('again.getvalue()') if pixels.decoder == 'tf' else 'Image.open(again)'}",
        ]
    return load, use


def _size(pixels: Pixels) -> list[str]:
    """Lines that set ``size``, (height, width) of the resized image."""
    height, width = pixels.size
    if pixels.native:
        high, wide = pixels.patch
        return [
            f"h, w = image.height * {wide}, image.width * {high}",
            f"most = range(1, {min(pixels.num_patches, LONGEST) + 1})",
            "fits = [(n * w, n, -(-w * n // h)) for n in most] + [(n * h, -(-h * n // w), n) for n in most]",
            f"_, rows, cols = max(f for f in fits if f[1] * f[2] <= {pixels.num_patches} and max(f[1:]) <= {LONGEST})",
            f"size = rows * {high}, cols * {wide}",
        ]
    if pixels.resize != "crop":
        return [f"size = {pixels.enlarged}"]
    scale = f"{min(pixels.enlarged)} / min(image.size)"
    if height != width:
        scale = f"max({scale}, {height} / image.height, {width} / image.width)"
    sides = (f"max(int(image.{name} * scale + 1e-6), {s})" for name, s in (("height", height), ("width", width)))
    return [f"scale = {scale}", f"size = {', '.join(sides)}"]


def _resized(pixels: Pixels) -> tuple[list[str], list[str]]:
    """Imports, and lines that compute ``images``, a float32 array (*size, 3) in 0..255."""
    if pixels.antialias and pixels.dtype == "uint8":
        how = f"Image.Resampling.{pixels.interpolation.upper()}"
        return [], [f'images = numpy.asarray(image.resize(size[::-1], {how}), "float32")']
    if (pixels.interpolation, pixels.antialias, pixels.dtype) == ("bilinear", False, "uint8"):
        how = "interpolation=cv2.INTER_LINEAR"
        return ["import cv2"], [f'images = cv2.resize(numpy.asarray(image), size[::-1], {how}).astype("float32")']
    rounded = ["images = images.round()"] if pixels.dtype == "uint8" else []
    if pixels.antialias or pixels.interpolation == "bicubic":
        how = f'mode="{pixels.interpolation}", antialias={pixels.antialias}'
        return ["import torch"], [
            'images = torch.from_numpy(numpy.array(image, "float32")).permute(2, 0, 1)[None]',
            f"images = torch.nn.functional.interpolate(images, size, {how})[0].clamp(0, 255).permute(1, 2, 0).numpy()",
            *rounded,
        ]
    where = "numpy.arange(side) * (images.shape[axis] / side)"
    if pixels.interpolation != TF1:
        where = "((numpy.arange(side) + 0.5) * (images.shape[axis] / side) - 0.5).clip(0)"
    return [], [
        'images = numpy.asarray(image, "float32")',
        "for axis, side in enumerate(size):  # bilinear, not antialiased",
        f'    at = ({where}).astype("float32")',
        "    low = at.astype(int)",
        "    share = (at - low).reshape(-1, *[1] * (2 - axis))",
        "    high = images.take(numpy.minimum(low + 1, images.shape[axis] - 1), axis)",
        "    images = images.take(low, axis) * (1 - share) + high * share",
        *rounded,
    ]


def check(code: Code, tuned: Tuned, out: Path) -> None:
    """Check on image files that ``code`` computes what the run does; otherwise remove ``out``, which it loads.

    Raises:
        ValueError: pixels or logits differ.
    """
    try:
        _check(code, tuned, out)
    except ValueError:
        shutil.rmtree(out) if out.is_dir() else out.unlink()
        raise


@torch.inference_mode()
def _check(code: Code, tuned: Tuned, what: Path) -> None:
    names: dict = {}
    with tempfile.TemporaryDirectory() as folder:
        exec("\n".join(code.load), names)
        for i, raw in enumerate(_photos(tuned.pixels.size)):
            path = Path(folder) / f"{i}.image"
            path.write_bytes(raw)
            exec("\n".join(code.use).replace(repr(PHOTO), repr(str(path))), names)
            images, logits = names["images"], torch.as_tensor(names["logits"])
            differ = _difference(images, tuned.pixels, raw)
            if not (differ.max() <= LEVELS[0] and differ.mean() <= LEVELS[1]):
                raise ValueError(f"{what} was removed: its pixels differ from the run's by {differ.max():.1f} of 255")
            wanted = tuned.model(images if tuned.pixels.native else torch.as_tensor(images))
            error = (logits - wanted).abs().max().item() / max(wanted.abs().max().item(), 1.0)
            if not error <= TOLERANCE:
                raise ValueError(f"{what} was removed: its logits differ from the run's by {error:.1e} of their size")


def _difference(images, pixels: Pixels, raw: bytes) -> torch.Tensor:
    """How much ``images`` of a file differ from a run's, in 0..255."""
    own, std = pixels.input(raw), torch.tensor(pixels.std)
    if not pixels.native:
        return (torch.as_tensor(images) - own).abs() * 255 * std.view(3, 1, 1)
    own = unpack(own[own[:, -1] > 0][None])
    if not torch.equal(images["patch_coord"], own["patch_coord"]):
        return torch.full((1,), 255.0)
    return (images["patches"] - own["patches"]).abs().unflatten(-1, (-1, 3)) * 255 * std


def _photos(size: tuple[int, int]) -> list[bytes]:
    """Image files of the input size, larger, smaller, wide and tall; PNG and JPEG."""
    rng = np.random.RandomState(0)
    height, width = size
    files = []
    for i, side in enumerate(((width, height), (3 * width + 1, 2 * height + 5), (width + 7, 4 * height + 2), (31, 20))):
        small = Image.fromarray(rng.randint(0, 256, (9, 9, 3), dtype=np.uint8)).resize(side, Image.Resampling.BICUBIC)
        noise = rng.randint(-20, 21, (side[1], side[0], 3))
        file = io.BytesIO()
        noisy = Image.fromarray((np.asarray(small) + noise).clip(0, 255).astype(np.uint8))
        noisy.save(file, "JPEG" if i % 2 else "PNG")
        files.append(file.getvalue())
    return files
