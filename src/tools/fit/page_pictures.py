"""Small pictures of the data, inside the page."""

import base64
import io
from functools import cache
from pathlib import Path

from PIL import Image

from ...data.decode import decode, open_image
from .page_parts import name, text

SIDE = 128  # pixels
SMALL = 64  # pixels: what is smaller is enlarged by whole pixels
QUALITY = 80


class Pictures:
    """Pictures of image files; names are relative to ``root``."""

    def __init__(self, root: Path):
        self.root = root
        self._address = cache(self._read)

    def figure(self, file: str, lines: list[str]) -> str:
        """A picture over lines of HTML; without it where the file cannot be read any more."""
        found = self._address(file)
        caption = "".join(f"<span>{line}</span>" for line in lines)
        label = f'<span class="file">{name(file)}</span>'
        picture = '<span class="missing">no picture</span>'
        if found:
            address, small = found
            picture = f'<img src="{address}" alt="{text(file)}"{" class=small" if small else ""} loading="lazy">'
        return f"<figure>{picture}<figcaption>{caption}{label}</figcaption></figure>"

    def _read(self, file: str) -> tuple[str, bool] | None:
        """A data: address, and whether the picture is small."""
        try:
            image = _decoded((self.root / file).read_bytes())
        except Exception:  # moved or changed since, or a name that cannot be printed; decoders raise nearly anything
            return None
        small = max(image.size) < SMALL
        image.thumbnail((SIDE, SIDE))
        content = io.BytesIO()
        image.save(content, "PNG" if small else "JPEG", **({} if small else {"quality": QUALITY}))
        kind = "png" if small else "jpeg"
        return f"data:image/{kind};base64,{base64.b64encode(content.getvalue()).decode()}", small


def _decoded(raw: bytes) -> Image.Image:
    """The picture, of a photograph only as much as is needed: an eighth of its sides takes a seventh of the time."""
    with open_image(raw) as image:
        if image.format != "JPEG":
            return Image.fromarray(decode(raw))
        image.draft("RGB", (2 * SIDE, 2 * SIDE))
        return image.convert("RGB")


def gallery(figures: list[str]) -> str:
    return f'<div class="gallery">{"".join(figures)}</div>'
