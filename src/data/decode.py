"""From the bytes of an image file to RGB. Strangers' files are opened here, so nothing that they say is believed:

only formats of a table are tried, none of which runs a program; sizes are looked at before memory is taken; whatever a
decoder raises becomes one sentence.
"""

import io
import re
from functools import cache

import numpy as np
from PIL import Image, UnidentifiedImageError

from .sources.base import IMAGE_FORMATS, RawImage

MAX_PIXELS = 2**27  # of an image of which DATA.MAX_PIXELS says nothing; it takes less than 1 GiB while it is decoded
MAX_SCANS = 200  # of a JPEG file; each takes the time of one, and real ones have up to some 20
BAND = 2**22  # pixels that are converted at a time

# How files begin that are taken for images, and what they are.
_OTHERS = {
    b"version https://git-lfs": "a Git LFS pointer, not the image: fetch it with git lfs pull",
    b"<!doctype html": "an HTML page, not an image: download it again",
    b"<html": "an HTML page, not an image: download it again",
    b"<svg": "an SVG drawing, which is not read",
    b"<?xml": "XML (an SVG drawing, or an error message instead of a download), not an image that is read",
    b"%!ps": "PostScript, which is a program and is not run",
    b"\xc5\xd0\xd3\xc6": "PostScript, which is a program and is not run",
    b"%pdf": "a PDF document, not an image",
    b"pk\x03\x04": "a zip archive, not an image",
    b"\x1f\x8b": "a gzip file, not an image: unpack it",
}


class BadImage(ValueError):
    """An image file that cannot be used; the message says why."""


def decode(raw: RawImage, decoder: str = "pil", max_pixels: int = MAX_PIXELS, white: float = 0.0) -> np.ndarray:
    """RGB pixels of an image file, or of an array: uint8 (H, W, 3).

    Of an animation or a file of several images the first is taken. Grey, palette, CMYK, RGBA and deeper files become
    RGB; transparency is dropped, and neither EXIF rotation nor colour profiles are applied, as in the original code.

    Args:
        decoder: of JPEG files: "tf" or "pil", see ``Pixels``.
        max_pixels: height times width of the largest image that is decoded.
        white: the value that becomes 255 in files with more than 8 bits a channel; larger ones do too. 0: 65,535 of
            integers, 1 of floats, and values outside of that range are an error. Never chosen by the image.

    Raises:
        BadImage: whatever is wrong with the file.
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
        raise BadImage("it takes more memory than there is") from error
    except Exception as error:  # of damaged files decoders raise nearly anything
        raise BadImage(f"it is broken: {why(error)}") from error


def open_image(raw: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The image, of which only the header is read, in one of the formats of ``IMAGE_FORMATS``.

    Raises:
        BadImage: it is none, or too large.
    """
    Image.MAX_IMAGE_PIXELS = None  # Pillow's own limit, which holds for the process: ours comes with the image
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
    """What went wrong, in words without addresses in memory."""
    said = re.sub(r" ?<_io\.[^>]*>", "", str(error))
    if isinstance(error, BadImage):
        return said
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def _fast(raw: bytes, max_pixels: int) -> np.ndarray | None:
    """A JPEG file by the fast inverse DCT; None where Pillow has to do it."""
    import simplejpeg  # here: not every machine that computes decodes JPEG files

    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(raw)
        _check_size(width, height, max_pixels)
        _check_scans(raw)
        if colours not in ("CMYK", "YCCK"):  # of which it would make wrong colours
            return simplejpeg.decode_jpeg(raw, "RGB", fastdct=True)
    except BadImage:
        raise
    except ValueError:
        pass  # not quite in order: Pillow knows what is still good
    return None


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise BadImage(f"it has {width} x {height} pixels")
    if width * height > max_pixels:
        raise BadImage(f"it has {width} x {height} pixels, more than DATA.MAX_PIXELS, {max_pixels:,}, allows")


def _check_scans(raw: bytes) -> None:
    if (scans := raw.count(b"\xff\xda\x00")) > MAX_SCANS:
        raise BadImage(f"it is a JPEG file of {scans:,} scans, which would take very long; real ones have a few")


def _what(raw: bytes) -> str:
    """What a file is that is no image."""
    if not raw:
        return "it is empty"
    if not raw.strip(b"\0"):
        return "it holds nothing but zeros, as a broken copy does"
    start = raw[:1024].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for beginning, what in _OTHERS.items():
        if start.startswith(beginning):
            return f"it is {what}"
    if raw[4:8] == b"ftyp":
        return "it is HEIC or another film format, which is not read: convert it to JPEG"
    return f"it is no image in a format that is read ({', '.join(IMAGE_FORMATS)}), or cut off: it begins {raw[:12]!r}"


def _rgb(image: Image.Image, raw: bytes, white: float) -> np.ndarray:
    """uint8 (H, W, 3), converted in bands: a whole copy in each form would take a multiple of the memory."""
    if white and image.mode in ("RGB", "RGBA") and ";16" in str([tile.args for tile in image.tile]):
        return _scaled(_deep_colours(raw), white)
    image.load()
    convert = _converted
    if image.mode.startswith("I") or image.mode == "F":  # which Pillow would clip, not scale
        top = white or _top(image)
        convert = lambda band: _scaled(np.asarray(band)[..., None], top)  # noqa: E731
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for y, band in _bands(image):
        pixels[y : y + band.height] = convert(band)
    return pixels


def _bands(image: Image.Image):
    """(first row, the image's rows from there on) of as many rows as make BAND pixels."""
    rows = max(1, BAND // image.width)
    for y in range(0, image.height, rows):
        end = min(y + rows, image.height)
        yield y, image if end - y == image.height else image.crop((0, y, image.width, end))


def _converted(band: Image.Image) -> np.ndarray:
    if band.mode == "P" and "transparency" in band.info:
        band = band.convert("RGBA")  # as Pillow wants it; the colours are the same
    return np.asarray(band.convert("RGB"))


def _top(image: Image.Image) -> float:
    """The value of white of an image with one deep channel, if all its values are between that and 0."""
    top = 1.0 if image.mode == "F" else 65535.0
    values = [(np.asarray(band).min(), np.asarray(band).max()) for _, band in _bands(image)]
    low, high = min(low for low, _ in values), max(high for _, high in values)
    if not (low >= 0 and high <= top):  # nor is NaN
        kind = "float" if image.mode == "F" else "integer"
        raise BadImage(
            f"its {kind} pixels go from {low:g} to {high:g}, but 0 is black and {top:g} white unless DATA.WHITE says "
            "another value, for all images"
        )
    return top


def _deep_colours(raw: bytes) -> np.ndarray:
    """uint16 (H, W, 3) of a PNG or TIFF file with 16 bits a channel, of which Pillow drops the lower 8."""
    import cv2  # here: as in resize.py

    found = cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_ANYDEPTH | cv2.IMREAD_COLOR)
    if found is None or found.dtype != np.uint16:
        raise BadImage("its 16 bits a channel cannot be read")
    return found[..., ::-1]


def _scaled(values: np.ndarray, top: float) -> np.ndarray:
    """0..top -> uint8 0..255"""
    scaled = np.clip(np.round(values * np.float32(255 / top)), 0, 255)
    if np.isnan(scaled).any():
        raise BadImage("it has pixels that are no numbers (NaN)")
    return scaled.astype(np.uint8)
