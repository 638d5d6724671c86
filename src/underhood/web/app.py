"""The application: all routes over all models, behind the gate."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from starlette.middleware.cors import CORSMiddleware

from underhood.data.feedback import FeedbackStore
from underhood.web import errors
from underhood.web.chat import chat_router
from underhood.web.completions import completions_router
from underhood.web.inside.routes import FIRST_PROMPT, inside_router
from underhood.web.inside.subjects import InsideModels
from underhood.web.metrics import Metered, Metrics
from underhood.web.pages_api import Pages, pages_router
from underhood.web.path_pages import path_router
from underhood.web.recent_completions import RecentCompletions
from underhood.web.registry import ModelRegistry
from underhood.web.request_normalization import NormalizeRequests
from underhood.web.routes import embeddings_router, feedback_router, models_router, tokenize_router, watching_router
from underhood.web.run_views import Runs
from underhood.web.security import Gate
from underhood.web.settings import ServeSettings
from underhood.web.streaming import ClientGone


def create_app(registry: ModelRegistry, settings: ServeSettings | None = None) -> FastAPI:
    """OpenAI's API, the pages, and what watches over both, as one ASGI application.

    Its life span ends with the engines': at shutdown answers under way are finished, for as long as `drain_seconds`.

    Raises:
        UserError: the place for feedback can't be written.
    """
    settings = settings or ServeSettings()
    metrics, recent = Metrics(registry), RecentCompletions()
    store = FeedbackStore(settings.feedback) if settings.feedback is not None else None

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(registry.drain, settings.drain_seconds)
        await asyncio.to_thread(registry.close)
        if store is not None:
            store.close()

    app = FastAPI(
        title="Underhood",
        docs_url=None,
        redoc_url=None,
        lifespan=life,
        strict_content_type=False,  # `Gate` keeps other origins' pages out, which send no content type at times
    )
    errors.install(app)

    @app.exception_handler(ClientGone)
    async def _(request: Request, error: ClientGone) -> Response:
        return Response(status_code=499)

    app.include_router(models_router(registry))
    app.include_router(chat_router(registry, settings, recent, metrics))
    app.include_router(completions_router(registry, settings, recent, metrics))
    app.include_router(embeddings_router(registry, settings))
    app.include_router(tokenize_router(registry))
    app.include_router(watching_router(registry, metrics))
    if store is not None:
        app.include_router(feedback_router(registry, store, recent, metrics))
    app.include_router(path_router())
    runs = list(dict.fromkeys(model.loaded.run for model in registry.served))
    app.include_router(inside_router(InsideModels.of_runs(runs), FIRST_PROMPT, places=True))
    app.include_router(pages_router(Pages(registry, Runs(_places(registry, settings)))))
    # The last one added sees a request first.
    app.add_middleware(Gate, settings=settings)
    if settings.allow_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.allow_origins),
            allow_methods=["GET", "HEAD", "POST"],
            allow_headers=["*"],  # OpenAI's client for browsers sends a dozen headers of its own
            expose_headers=["Retry-After"],
        )
    app.add_middleware(Metered, metrics=metrics)
    app.add_middleware(NormalizeRequests)
    return app


def _places(registry: ModelRegistry, settings: ServeSettings) -> list:
    folders = [settings.runs] if settings.runs is not None else []
    served = dict.fromkeys(model.loaded.run for model in registry.served)
    return [*folders, *(run for run in served if (run / "run.toml").exists())]
