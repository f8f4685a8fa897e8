"""Small pictures of the data, inside the page."""

import base64
import io
from functools import cache
from pathlib import Path

from PIL import Image

from ...data.decode import BadImage, decode
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
            image = Image.fromarray(decode((self.root / file).read_bytes()))
        except (OSError, ValueError, BadImage):  # moved since, or a name with what cannot be printed
            return None
        small = max(image.size) < SMALL
        image.thumbnail((SIDE, SIDE))
        content = io.BytesIO()
        image.save(content, "PNG" if small else "JPEG", **({} if small else {"quality": QUALITY}))
        kind = "png" if small else "jpeg"
        return f"data:image/{kind};base64,{base64.b64encode(content.getvalue()).decode()}", small


def gallery(figures: list[str]) -> str:
    return f'<div class="gallery">{"".join(figures)}</div>'
