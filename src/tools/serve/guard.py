"""What every request passes first: the host it was meant for, where it comes from, and how long its body is."""

from collections.abc import Iterable

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .problems import Refused, respond

# A page elsewhere on the web must not use this server through a visitor's browser, nor put it into a frame.
SAFE = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cache-control": "no-store",
}


class Guard:
    """ASGI middleware.

    Args:
        hosts: the names under which the server may be asked, without ports; none: any. A name of somebody else that
            leads to this machine (DNS rebinding) would give their pages its answers.
        largest: bytes of a body at a path; others get ``small``.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str], largest: dict[str, int], small: int):
        self.app = app
        self.hosts = frozenset(hosts)
        self.largest = largest
        self.small = small

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SAFE.items():
                    headers.setdefault(name, value)
            await send(message)

        limit = self.largest.get(scope["path"], self.small)
        try:
            self._check(Headers(scope=scope), limit)
        except Refused as refused:
            return await respond(Request(scope), refused)(scope, receive, send_safely)
        await self.app(scope, _counted(receive, limit), send_safely)

    def _check(self, headers: Headers, limit: int) -> None:
        host = _without_port(headers.get("host", ""))
        if self.hosts and host not in self.hosts:
            raise Refused(
                421, f"this server is not {host[:100]!r}", "header Host", f"ask for {' or '.join(sorted(self.hosts))}"
            )
        if headers.get("sec-fetch-site") == "cross-site" and headers.get("sec-fetch-mode") != "navigate":
            raise Refused(403, "the request comes from another site", "header Sec-Fetch-Site", "use the server's page")
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length[:20]) > limit:
            raise too_long(limit)


def _counted(receive: Receive, limit: int) -> Receive:
    """``receive``, which refuses a body longer than ``limit`` bytes."""
    seen = 0

    async def receive_some() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > limit:
            raise too_long(limit)
        return message

    return receive_some


def too_long(limit: int) -> Refused:
    return Refused(413, f"the request is longer than {limit:,} bytes", "body", "send less, or fewer images at a time")


def _without_port(host: str) -> str:
    """``[::1]:8000`` -> ``[::1]``"""
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdecimal() else host).lower()
