"""The page: one HTML file that asks nothing but this server, and takes names as text only."""

import base64
import hashlib
import re
from functools import cache
from pathlib import Path

from .limits import Limits

FOLDER = Path(__file__).parent


def _part(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


@cache
def page(limits: Limits) -> str:
    """The page, which asks for no more at a time than the server takes."""
    parts = {"style": _part("page.css"), "script": _part("page.js")}
    parts |= {"bytes": str(limits.upload), "images": str(limits.images), "top": str(limits.top)}
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _part("page.html"))


def _hash(element: str) -> str:
    """The source expression of Content-Security-Policy that allows the page's own element, and no other."""
    content = re.search(f"<{element}>(.*)</{element}>", page(Limits()), re.DOTALL)[1]  # alike under all limits
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def headers() -> dict[str, str]:
    """With which the page is sent."""
    return {
        "content-security-policy": f"default-src 'none'; connect-src 'self'; img-src blob: data:; "
        f"style-src {_hash('style')}; script-src {_hash('script')}; frame-ancestors 'none'; base-uri 'none'; "
        "form-action 'none'"
    }
