"""Errors as clients get them: JSON that says what is wrong, where, and what to do."""

import difflib

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match

from .answers import Json

HINTS = {404: "GET /openapi.json lists what there is", 405: "GET /openapi.json lists the methods of every path"}


class Problem(BaseModel):
    """Why a request was not answered."""

    what: str = Field(description="what is wrong")
    where: str = Field(description="the part of the request")
    what_to_do: str


class Refused(HTTPException):
    """A request that gets a ``Problem`` for its answer."""

    def __init__(self, status: int, what: str, where: str, what_to_do: str, headers: dict[str, str] | None = None):
        super().__init__(status, what, headers)
        self.problem = {"what": what, "where": where, "what_to_do": what_to_do}


def respond(request: Request, error: HTTPException) -> Response:
    """The answer to a request that was refused by us or by the framework."""
    if isinstance(error, Refused):
        return Json(error.problem, error.status_code, error.headers)
    hint = HINTS.get(error.status_code, "correct the request")
    headers = {"Allow": ", ".join(_methods(request))} if error.status_code == 405 else error.headers
    return _json(error.status_code, error.detail, request.url.path, hint, headers)


def _methods(request: Request) -> list[str]:
    """Of the path that was asked for, over all its routes."""
    routes = [route for route in request.app.routes if route.matches(request.scope)[0] is not Match.NONE]
    return sorted({method for route in routes for method in route.methods})


def respond_invalid(request: Request, error: RequestValidationError) -> Response:
    """The answer to parameters or a body that the framework found wrong; all of them are named."""
    first = [(".".join(map(str, one["loc"])), one["msg"]) for one in error.errors()]
    what, where = "; ".join(f"{where}: {what}" for where, what in first), ", ".join(dict(first))
    return _json(422, what, where, "GET /openapi.json has the types and limits")


def respond_failed(request: Request, error: Exception) -> Response:
    """The answer to a fault of ours, whose traceback is in the log."""
    return _json(500, "the server failed", request.url.path, "its log says why")


def _json(status: int, what: str, where: str, what_to_do: str, headers: dict[str, str] | None = None) -> Response:
    return Json({"what": what, "where": where, "what_to_do": what_to_do}, status, headers)


def known_query(request: Request) -> None:
    """Raises Refused: the query has a parameter that the route does not take, which would change nothing."""
    route = request.scope["route"]
    known = [field.alias for field in route.dependant.query_params]
    for name in request.query_params if route.include_in_schema else ():  # a link to the page may have anything
        if name not in known:
            near = difflib.get_close_matches(name[:100], known, n=1)
            what = f"unknown parameter {name[:100]!r}{f'; did you mean {near[0]}?' if near else ''}"
            raise Refused(422, what, "query", f"parameters here are {', '.join(known)}" if known else "leave it out")


def documented(*statuses: int) -> dict[int | str, dict]:
    """``responses`` of a route: these statuses have a ``Problem``."""
    return {status: {"model": Problem} for status in statuses}
