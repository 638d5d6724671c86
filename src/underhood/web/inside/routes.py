"""Routes of the page that looks into a model, and an application that serves nothing else."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter, FastAPI, Response
from pydantic import BaseModel, ConfigDict, Field

from underhood.web import errors
from underhood.web.inside.subjects import InsideModels
from underhood.web.inside.views import answer
from underhood.web.page_files import HEADERS, STATIC, page_file, static_router
from underhood.web.request_normalization import NormalizeRequests
from underhood.web.security import Gate
from underhood.web.settings import ServeSettings

PAGE = "/inside"
MOST_TEXT = 200_000
FIRST_PROMPT = "The list is"
"""Shown where a server is asked for the page without a prompt."""


class ViewRequest(BaseModel):
    """A view of a model with a prompt."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())
    model: str = Field(max_length=400)
    prompt: str = Field(max_length=MOST_TEXT)
    view: str = Field(max_length=40)
    params: dict[str, int | float | str] = Field(default_factory=dict, max_length=20)


class FitRequest(BaseModel):
    """Something that has to be trained before it can be shown: how far it is, or to begin or end it."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())
    model: str = Field(max_length=400)
    kind: str = Field(max_length=40)
    variant: str = Field(default="", max_length=40)
    action: Literal["look", "start", "stop"] = "look"


def inside_router(models: InsideModels, prompt: str, *, places: bool = False) -> APIRouter:
    """The page, what it starts with, and its views; one is worked out at a time.

    Args:
        places: the server has the other pages too, and the bar leads to them.
    """
    router = APIRouter(include_in_schema=False)

    @router.get(PAGE)
    def page() -> Response:
        return page_file(STATIC / "inside.html")

    @router.get("/ui/inside/start")
    def start() -> dict[str, Any]:
        return start_facts(models, prompt) | {"places": places}

    @router.post("/ui/inside/view")
    def read(body: ViewRequest) -> Response:
        with models.lock:
            payload = answer(models.subject(body.model, body.prompt), body.view, body.params)
        return Response(payload.to_bytes(), media_type="application/octet-stream", headers=HEADERS)

    @router.post("/ui/inside/fit")
    def fit(body: FitRequest) -> dict[str, Any]:
        with models.lock:
            given = (body.model, models.model(body.model), body.kind, body.variant)
            if body.action == "start":
                models.fits.start(*given)
            elif body.action == "stop":
                models.fits.stop(*given)
            return models.fits.look(*given)

    return router


def start_facts(models: InsideModels, prompt: str) -> dict[str, Any]:
    """What a page begins with: the models to choose from, the first one, the prompt."""
    runs = list(dict.fromkeys(choice.run for choice in models.choices.values() if choice.run is not None))
    listed = [
        {
            "id": choice.id,
            "stage": choice.stage,
            "step": choice.step,
            "run": None if choice.run is None else runs.index(choice.run),
        }
        for choice in models.choices.values()
    ]
    return {"models": listed, "first": models.first, "prompt": prompt}


def create_inside_app(models: InsideModels, prompt: str, settings: ServeSettings) -> FastAPI:
    """The page alone, behind the same gate as the server's."""
    app = FastAPI(title="Underhood", docs_url=None, redoc_url=None, openapi_url=None)
    errors.install(app)
    app.include_router(inside_router(models, prompt))
    app.include_router(static_router())

    @app.get("/", include_in_schema=False)
    def root() -> Response:
        return Response(status_code=303, headers=HEADERS | {"Location": PAGE})

    app.add_middleware(Gate, settings=settings)
    app.add_middleware(NormalizeRequests)
    return app
