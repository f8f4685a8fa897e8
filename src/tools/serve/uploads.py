"""The images of a request, read into memory and never onto the disk."""

from dataclasses import dataclass

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from .limits import Limits
from .problems import Refused

FIELD = "images"
TO_DO = f"send multipart/form-data with a file in the field {FIELD!r} for every image"
CURL = f"in curl, -F {FIELD}=@cat.jpg with the @"


@dataclass(frozen=True)
class Upload:
    """One file, and the name that the client gave it."""

    name: str
    content: bytes


def schema(limits: Limits) -> dict:
    """The request's body, for OpenAPI."""
    file = {"type": "string", "format": "binary"}
    images = {"type": "array", "minItems": 1, "maxItems": limits.images, "items": file}
    form = {"type": "object", "required": [FIELD], "properties": {FIELD: images}, "additionalProperties": False}
    return {"required": True, "content": {"multipart/form-data": {"schema": form}}}


async def read_uploads(request: Request, limits: Limits) -> list[Upload]:
    """The images of a request whose body ``Guard`` has bounded.

    Raises:
        Refused: it is not multipart, is damaged, or holds something else, or too many images.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        raise Refused(415, f"the body is {kind or 'of no type'}", "header Content-Type", TO_DO)

    class InMemory(MultiPartParser):
        spool_max_size = limits.upload + 1  # a longer file would go to the disk

    parser = InMemory(request.headers, request.stream(), max_files=limits.images, max_fields=0)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if "Too many fields" in error.message:  # also where it has the right name
            raise Refused(400, f"{FIELD} must be files, and the form has a text", "body", f"{TO_DO}; {CURL}") from error
        what = f"more than {limits.images} images" if "Too many files" in error.message else error.message
        raise Refused(400, what, "body", TO_DO) from error
    except ClientDisconnect as error:  # nobody reads the answer, and the log is not for it
        raise Refused(400, "the client went away", "body", TO_DO) from error
    try:
        if wrong := sorted({field for field, _ in form.multi_items()} - {FIELD}):
            raise Refused(400, f"unknown fields {', '.join(wrong)[:200]!r}", "body", TO_DO)
        files = [file for _, file in form.multi_items() if isinstance(file, UploadFile)]
        if not files:
            raise Refused(400, "there are no images", "body", TO_DO)
        return [Upload(file.filename or "", await file.read()) for file in files]
    finally:
        await form.close()
