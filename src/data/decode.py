"""From the bytes of an image file to RGB pixels. Files come from strangers, so nothing in them is trusted:

only the formats in a fixed table are tried, none of which can run code; sizes are checked before memory is allocated;
and every decoder error becomes one sentence.
"""

import io
import re
from functools import cache

import numpy as np
from PIL import Image, UnidentifiedImageError

from .sources.base import IMAGE_FORMATS, RawImage

MAX_PIXELS = 2**27  # limit where DATA.MAX_PIXELS does not apply; decoding takes less than 1 GiB
MAX_SCANS = 200  # of a JPEG file; each scan costs a full decode, and real files have at most about 20
BAND = 2**22  # pixels converted at a time

# How files begin that are often mistaken for images, and what they are.
_OTHERS = {
    b"version https://git-lfs": "a Git LFS pointer, not the image: fetch it with git lfs pull",
    b"<!doctype html": "an HTML page, not an image: download it again",
    b"<html": "an HTML page, not an image: download it again",
    b"<svg": "an SVG drawing, which is not supported",
    b"<?xml": "XML (an SVG drawing, or an error page instead of a download), which is not supported",
    b"%!ps": "PostScript, which is a program and is not run",
    b"\xc5\xd0\xd3\xc6": "PostScript, which is a program and is not run",
    b"%pdf": "a PDF document, not an image",
    b"pk\x03\x04": "a zip archive, not an image",
    b"\x1f\x8b": "a gzip file, not an image: unpack it",
}


class BadImage(ValueError):
    """An image file that cannot be used; the message says why."""


def decode(raw: RawImage, decoder: str = "pil", max_pixels: int = MAX_PIXELS, white: float = 0.0) -> np.ndarray:
    """RGB pixels of an image file or an array: uint8 (H, W, 3).

    Of an animation or a multi-image file, the first image is used. Grey, palette, CMYK, RGBA and deeper files become
    RGB; transparency is dropped, and neither EXIF rotation nor colour profiles are applied, as in the original code.

    Args:
        decoder: for JPEG files: "tf" or "pil", see ``Pixels``.
        max_pixels: height times width of the largest image that is decoded.
        white: the value that maps to 255 in files with more than 8 bits per channel; larger values map to 255 too. 0:
            65,535 for integers, 1 for floats, and values outside that range are an error. Never derived from the image.

    Raises:
        BadImage: the file cannot be decoded.
    """
    if isinstance(raw, np.ndarray):
        grey = raw.ndim == 2 or raw.shape[-1] == 1
        return np.repeat(raw.reshape(*raw.shape[:2], 1), 3, axis=-1) if grey else raw
    try:
        if decoder == "tf" and raw[:2] == b"\xff\xd8" and (pixels := _fast(raw, max_pixels)) is not None:
            return pixels
        with open_image(raw, max_pixels) as image:
            return _rgb(image, raw, white)
    except BadImage:
        raise
    except MemoryError as error:
        raise BadImage("it needs more memory than is available") from error
    except Exception as error:  # decoders raise nearly anything for damaged files
        raise BadImage(f"it is broken: {why(error)}") from error


def open_image(raw: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Open an image in one of ``IMAGE_FORMATS``; only its header is read.

    Raises:
        BadImage: it is not such an image, or too large.
    """
    Image.MAX_IMAGE_PIXELS = None  # Pillow's limit is global; ours is per call
    try:
        image = Image.open(io.BytesIO(raw), formats=_formats())
    except UnidentifiedImageError as error:
        raise BadImage(_what(raw)) from error
    _check_size(*image.size, max_pixels)
    if image.format in ("JPEG", "MPO"):
        _check_scans(raw)
    return image


@cache
def _formats() -> tuple[str, ...]:
    """Those of ``IMAGE_FORMATS`` that this Pillow was built with."""
    Image.init()
    return tuple(name for name in IMAGE_FORMATS if name in Image.OPEN)


def why(error: Exception) -> str:
    """The error as text, without memory addresses."""
    message = re.sub(r" ?<_io\.[^>]*>", "", str(error))
    if isinstance(error, BadImage):
        return message
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def _fast(raw: bytes, max_pixels: int) -> np.ndarray | None:
    """Decode a JPEG file with the fast inverse DCT; None if Pillow has to do it."""
    import simplejpeg  # imported here: not every machine decodes JPEG files

    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(raw)
        _check_size(width, height, max_pixels)
        _check_scans(raw)
        if colours not in ("CMYK", "YCCK"):  # it would get their colours wrong
            return simplejpeg.decode_jpeg(raw, "RGB", fastdct=True)
    except BadImage:
        raise
    except ValueError:
        pass  # slightly damaged: Pillow salvages what it can
    return None


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise BadImage(f"it has {width} x {height} pixels")
    if width * height > max_pixels:
        raise BadImage(f"it has {width} x {height} pixels, more than DATA.MAX_PIXELS ({max_pixels:,}) allows")


def _check_scans(raw: bytes) -> None:
    if (scans := raw.count(b"\xff\xda\x00")) > MAX_SCANS:
        raise BadImage(f"it is a JPEG file with {scans:,} scans, which would take very long; real files have a few")


def _what(raw: bytes) -> str:
    """What a file is that is not a supported image."""
    if not raw:
        return "it is empty"
    if not raw.strip(b"\0"):
        return "it holds only zeros, as a failed copy does"
    start = raw[:1024].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for beginning, what in _OTHERS.items():
        if start.startswith(beginning):
            return f"it is {what}"
    if raw[4:8] == b"ftyp":
        return "it is HEIC or a video format, which is not supported: convert it to JPEG"
    return f"it is truncated or not in a supported format ({', '.join(IMAGE_FORMATS)}): it begins {raw[:12]!r}"


def _rgb(image: Image.Image, raw: bytes, white: float) -> np.ndarray:
    """uint8 (H, W, 3), converted in bands: full-size intermediate copies would take several times the memory."""
    if white and image.mode in ("RGB", "RGBA") and ";16" in str([tile.args for tile in image.tile]):
        return _scaled(_deep_colours(raw), white)
    image.load()
    convert = _converted
    if image.mode.startswith("I") or image.mode == "F":  # Pillow would clip these instead of scaling them
        top = white or _top(image)
        convert = lambda band: _scaled(np.asarray(band)[..., None], top)  # noqa: E731
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for y, band in _bands(image):
        pixels[y : y + band.height] = convert(band)
    return pixels


def _bands(image: Image.Image):
    """Yield (first row, the image's rows from there on), about BAND pixels at a time."""
    rows = max(1, BAND // image.width)
    for y in range(0, image.height, rows):
        end = min(y + rows, image.height)
        yield y, image if end - y == image.height else image.crop((0, y, image.width, end))


def _converted(band: Image.Image) -> np.ndarray:
    if band.mode == "P" and "transparency" in band.info:
        band = band.convert("RGBA")  # Pillow warns otherwise; the colours are the same
    return np.asarray(band.convert("RGB"))


def _top(image: Image.Image) -> float:
    """The white level of an image with one deep channel; all its values must lie between 0 and that."""
    top = 1.0 if image.mode == "F" else 65535.0
    values = [(np.asarray(band).min(), np.asarray(band).max()) for _, band in _bands(image)]
    low, high = min(low for low, _ in values), max(high for _, high in values)
    if not (low >= 0 and high <= top):  # also true for NaN
        kind = "float" if image.mode == "F" else "integer"
        raise BadImage(
            f"its {kind} pixels range from {low:g} to {high:g}, but 0 is black and {top:g} is white unless "
            "DATA.WHITE sets another white level for all images"
        )
    return top


def _deep_colours(raw: bytes) -> np.ndarray:
    """uint16 (H, W, 3) of a PNG or TIFF file with 16 bits per channel, of which Pillow drops the lower 8."""
    import cv2  # imported here: as in resize.py

    pixels = cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_ANYDEPTH | cv2.IMREAD_COLOR)
    if pixels is None or pixels.dtype != np.uint16:
        raise BadImage("its 16-bit channels cannot be read")
    return pixels[..., ::-1]


def _scaled(values: np.ndarray, top: float) -> np.ndarray:
    """0..top -> uint8 0..255"""
    scaled = np.clip(np.round(values * np.float32(255 / top)), 0, 255)
    if np.isnan(scaled).any():
        raise BadImage("it has NaN pixels")
    return scaled.astype(np.uint8)
