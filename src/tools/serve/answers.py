"""What clients get: the types that OpenAPI describes, and the JSON itself."""

from typing import Any

import simplejson
from pydantic import BaseModel, Field
from starlette.responses import Response


class Json(Response):
    """JSON in ASCII: names of files and classes may hold what UTF-8 cannot."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return simplejson.dumps(content, allow_nan=False).encode("ascii")


class Health(BaseModel):
    status: str = "ok"
    models: int = Field(description="loaded")
    waiting: int = Field(description="requests that are not answered yet")


class Model(BaseModel):
    name: str
    backbone: str
    methods: str
    classes: list[str] = Field(description="the names of the classes, in the order of their labels")
    image_size: list[int] = Field(description="height and width that images are resized to")
    bytes: int = Field(description="memory that is this model's own, beside the backbone that models share")
    sums_to_one: bool = Field(description="False: every class has a probability of its own")


class Models(BaseModel):
    models: list[Model]


class Load(BaseModel):
    """A run to load."""

    model_config = {"extra": "forbid"}

    folder: str = Field(
        min_length=1,
        max_length=4096,
        description="a run's folder, in those that the server was started with: a full path, or one that begins there",
    )
    name: str = Field(
        "", max_length=100, pattern=r"^([A-Za-z0-9_][A-Za-z0-9_.+=-]*)?$", description="by default the folder's"
    )


class Class(BaseModel):
    class_: str = Field(alias="class")
    label: int
    probability: float = Field(ge=0, le=1)


class Answer(Class):
    """Of one model: the most likely class, and the next."""

    model: str
    top: list[Class] = Field(description="the most likely classes, best first")


class Prediction(BaseModel):
    """Of one image."""

    index: int = Field(description="which of the request's images it is, from 0")
    file: str
    answers: list[Answer] = Field(description="one for each model")


class Broken(BaseModel):
    """An image that cannot be read."""

    index: int
    file: str
    why: str


class Predictions(BaseModel):
    predictions: list[Prediction]
    broken: list[Broken]
