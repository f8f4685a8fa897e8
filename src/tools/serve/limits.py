"""What one request, and all of them together, may take of the machine."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds of the server.

    Memory is at most ``waiting`` uploads, and the pixels of the images that are being decoded and computed.

    Attributes:
        upload: bytes of a request's body.
        images: of a request.
        waiting: requests that are being sent, computed or answered; more are turned away.
        models: loaded at once.
        seconds: for sending a request, and again for answering it.
        batch: images that are computed at once.
        window: seconds for which the first image of a batch waits for others.
        pixels: height times width of an image, unless DATA.MAX_PIXELS allows less, or is given.
        top: classes that a request may ask for.
        json: bytes of a JSON body.
    """

    upload: int = 32 * 2**20
    images: int = 64
    waiting: int = 32
    models: int = 32
    seconds: float = 60.0
    batch: int = 64
    window: float = 0.005
    pixels: int = 2**26
    top: int = 1000
    json: int = 2**16

    def problems(self) -> str:
        """What is wrong with them, in words; "" if nothing is."""
        least = {"upload": 1, "images": 1, "waiting": 1, "models": 1, "batch": 1, "window": 0}
        wrong = [f"{name} {getattr(self, name)}: it must be at least {low}" for name, low in least.items()]
        wrong = [text for text, (name, low) in zip(wrong, least.items(), strict=True) if not getattr(self, name) >= low]
        if not 0 < self.seconds < float("inf"):
            wrong.append(f"timeout {self.seconds}: it must be more than 0")
        return "; ".join(wrong)
