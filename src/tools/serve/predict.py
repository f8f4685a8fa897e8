"""From the images of a request to its answer."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from torch import Tensor

from ...data.decode import why
from ...data.pixels import Pixels
from ..predict.work import to_probabilities
from .batches import Batches, Question
from .models import Served
from .problems import Refused
from .uploads import Upload

SHOWN = 5  # reasons in an error


async def predict(
    uploads: Sequence[Upload], models: Sequence[Served], top: int, batches: Batches, pool: ThreadPoolExecutor
) -> dict:
    """What ``Predictions`` describes.

    Raises:
        Refused: no image can be read.
    """
    prepared = {pixels: await _prepare(uploads, pixels, pool) for pixels in {served.pixels: None for served in models}}
    broken = {i: image for images in prepared.values() for i, image in enumerate(images) if isinstance(image, str)}
    good = [i for i in range(len(uploads)) if i not in broken]
    if not good:
        some = "; ".join(f"{uploads[i].name or i}: {reason}" for i, reason in list(broken.items())[:SHOWN])
        raise Refused(422, f"no image can be read: {some}", "body.images", "send JPEG, PNG, WebP or other image files")
    families: dict[tuple, list[Served]] = {}
    for served in models:
        families.setdefault(served.family, []).append(served)
    asked = []
    for family in families.values():
        pixels = family[0].pixels
        images = pixels.batch([prepared[pixels][i] for i in good])
        asked.append(asyncio.wrap_future(batches.ask(Question(images, family))))
    found = await asyncio.gather(*asked)
    logits = {
        served: own
        for family, answer in zip(families.values(), found, strict=True)
        for served, own in zip(family, answer, strict=True)
    }
    names = [uploads[i].name or f"image {i}" for i in good]
    ranked = {served: _ranked(served, logits[served], names, top) for served in models}
    return {
        "predictions": [
            {"index": i, "file": uploads[i].name, "answers": [{"model": m.name, **ranked[m][at]} for m in models]}
            for at, i in enumerate(good)
        ],
        "broken": [{"index": i, "file": uploads[i].name, "why": broken[i]} for i in sorted(broken)],
    }


async def _prepare(uploads: Sequence[Upload], pixels: Pixels, pool: ThreadPoolExecutor) -> list[Tensor | str]:
    """Each image as its models take it, (3, H, W) in 0..255, or why it cannot be read."""

    def prepare(upload: Upload) -> Tensor | str:
        try:
            return pixels.prepare(upload.content)
        except Exception as error:  # decoders raise anything for broken files
            return why(error)

    loop = asyncio.get_running_loop()
    return await asyncio.gather(*(loop.run_in_executor(pool, prepare, upload) for upload in uploads))


def _ranked(served: Served, logits: Tensor, names: Sequence[str], top: int) -> list[dict]:
    """For each image the likeliest classes, best first."""
    classes = served.tuned.class_names
    ranked = []
    for row in to_probabilities(served.tuned.cfg, logits, names):
        values, labels = row.topk(min(top, len(classes)))
        best = [
            {"class": classes[label], "label": label, "probability": value}
            for value, label in zip(values.tolist(), labels.tolist(), strict=True)
        ]
        ranked.append({**best[0], "top": best})
    return ranked
