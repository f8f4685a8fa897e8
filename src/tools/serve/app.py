"""The interface: routes, and what OpenAPI says of them."""

import asyncio
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated

from fastapi import Depends, FastAPI, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, Response

from ... import __version__
from .answers import Health, Json, Load, Model, Models, Predictions
from .batches import Batches
from .guard import Guard
from .limits import Limits
from .models import Models as Shelf
from .models import Served, Taken, TooMany
from .page import headers, page
from .predict import predict
from .problems import Refused, documented, known_query, respond, respond_failed, respond_invalid
from .uploads import read_uploads, schema

NAME = r"^[A-Za-z0-9_][A-Za-z0-9_.+=-]{0,99}$"
ALWAYS = (403, 413, 421, 422, 500)  # what ``Guard`` and ``known_query`` may answer, and a fault of ours
RETRY_AFTER = "1"  # second


def make_app(
    shelf: Shelf, limits: Limits, batches: Batches, pool: ThreadPoolExecutor, hosts: Iterable[str] = ()
) -> FastAPI:
    """The ASGI application.

    Args:
        pool: decodes images.
        hosts: see ``Guard``.
    """
    about = "Classify images with models that share frozen backbones. Errors are a Problem: what, where, what to do."
    app = FastAPI(
        title="ViTune",
        description=about,
        version=__version__,
        docs_url=None,  # their pages load scripts from the network
        redoc_url=None,
        exception_handlers={
            HTTPException: respond,
            RequestValidationError: respond_invalid,
            Exception: respond_failed,
        },
        responses=documented(*ALWAYS),
        dependencies=[Depends(known_query)],
    )
    app.add_middleware(Guard, hosts=hosts, largest={"/predict": limits.upload}, small=limits.json)
    app.state.waiting = 0
    _about_routes(app, shelf, limits)
    _model_routes(app, shelf)
    _predict_route(app, shelf, limits, batches, pool)
    return app


def _about_routes(app: FastAPI, shelf: Shelf, limits: Limits) -> None:
    @app.get("/", include_in_schema=False)  # for people
    async def index() -> Response:
        return HTMLResponse(page(limits), headers=headers())

    @app.get("/health", response_model=Health, summary="Whether the server is up, and how busy it is")
    async def health() -> Response:
        return Json({"status": "ok", "models": len(shelf), "waiting": app.state.waiting})

    @app.get("/models", response_model=Models, summary="The models that are loaded")
    async def models() -> Response:
        return Json({"models": [served.about() for served in shelf.all()]})


def _model_routes(app: FastAPI, shelf: Shelf) -> None:
    @app.post(
        "/models",
        status_code=201,
        response_model=Model,
        responses=documented(400, 404, 409),
        summary="Load a run from the folders that the server was started with",
    )
    async def load(wanted: Load) -> Response:
        try:
            folder = await asyncio.to_thread(shelf.find, wanted.folder)
        except FileNotFoundError as error:
            raise Refused(404, str(error), "body.folder", "name a folder with a tuned.safetensors there") from error
        try:
            served = await asyncio.to_thread(shelf.load, folder, wanted.name)
        except Taken as error:
            raise Refused(409, str(error), "body.name", "choose another name, or DELETE that model") from error
        except TooMany as error:
            raise Refused(409, str(error), "body.folder", "DELETE a model, or start with more --max-models") from error
        except (ValueError, OSError, MemoryError) as error:
            raise Refused(422, str(error), "body.folder", "name a finished run whose backbone is there") from error
        return Json(served.about(), 201)

    @app.delete("/models/{name}", status_code=204, responses=documented(404), summary="Forget a model")
    async def drop(name: Annotated[str, Path(pattern=NAME)]) -> Response:
        try:
            shelf.drop(name)
        except KeyError as error:
            raise _unknown(name, "path.name") from error
        return Response(status_code=204)


def _predict_route(app: FastAPI, shelf: Shelf, limits: Limits, batches: Batches, pool: ThreadPoolExecutor) -> None:
    @app.post(
        "/predict",
        response_model=Predictions,
        responses=documented(400, 404, 408, 415, 503, 504),
        openapi_extra={"requestBody": schema(limits)},
        summary="Classes and probabilities of images",
    )
    async def answer(
        request: Request,
        model: Annotated[list[str], Query(max_length=limits.models, description="names; none: all models")] = [],  # noqa: B006
        top: Annotated[int, Query(ge=1, le=limits.top, description="how many of the likeliest classes")] = 5,
    ) -> Response:
        if app.state.waiting >= limits.waiting:
            raise _busy(f"{limits.waiting} requests are waiting already")
        app.state.waiting += 1
        try:
            models = _chosen(shelf, model)
            try:
                async with asyncio.timeout(limits.seconds):
                    uploads = await read_uploads(request, limits)
            except TimeoutError as error:
                what = f"the request took longer than {limits.seconds:g} s to arrive"
                raise Refused(408, what, "body", "send fewer images at a time") from error
            try:
                async with asyncio.timeout(limits.seconds):
                    return Json(await predict(uploads, models, top, batches, pool))
            except TimeoutError as error:
                what = f"there was no answer in {limits.seconds:g} s"
                raise Refused(504, what, "server", "send fewer images, or try again later") from error
        finally:
            app.state.waiting -= 1


def _chosen(shelf: Shelf, names: list[str]) -> list[Served]:
    """The models that a request asks."""
    try:
        models = [shelf.get(name) for name in dict.fromkeys(names)] or shelf.all()
    except KeyError as error:
        raise _unknown(error.args[0], "query.model") from error
    if not models:
        raise _busy("no model is loaded", "POST /models loads one")
    return models


def _unknown(name: str, where: str) -> Refused:
    return Refused(404, f"no model is called {name[:100]!r}", where, "GET /models lists those that are loaded")


def _busy(what: str, what_to_do: str = "try again later") -> Refused:
    return Refused(503, what, "server", what_to_do, {"Retry-After": RETRY_AFTER})
