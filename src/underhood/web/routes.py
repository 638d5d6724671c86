"""The smaller routes: models, embeddings, tokens, feedback, health and metrics."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from typing import Any

import torch
from fastapi import APIRouter, Request, Response

from underhood.core.errors import UserError
from underhood.data.feedback import Feedback, FeedbackStore
from underhood.web.body import StrictRoute
from underhood.web.chat import token_bytes
from underhood.web.engine_requests import chat_ids, check_length, prompts_of, text_ids
from underhood.web.errors import FAILED, ApiError, invalid, translate
from underhood.web.messages import plain
from underhood.web.metrics import Metrics
from underhood.web.recent_completions import RecentCompletions
from underhood.web.registry import ModelRegistry, Served
from underhood.web.requests import EmbeddingRequest, FeedbackRequest, TokenizeRequest
from underhood.web.responses import (
    ERRORS,
    EmbeddingAnswer,
    EmbeddingFacts,
    EmbeddingUsage,
    FeedbackAnswer,
    HealthAnswer,
    ModelFacts,
    ModelList,
    TokenizeAnswer,
)
from underhood.web.settings import ServeSettings
from underhood.web.streaming import unless_gone


def models_router(registry: ModelRegistry) -> APIRouter:
    router = APIRouter()

    @router.get("/v1/models", response_model=ModelList, responses=ERRORS)
    async def models() -> ModelList:
        """The models that are served, the default first."""
        return ModelList(data=[_facts(registry, model) for model in registry.served])

    @router.get("/v1/models/{model:path}", response_model=ModelFacts, responses=ERRORS)
    async def model(model: str) -> ModelFacts:
        """One of them, by its id or another of its names."""
        return _facts(registry, registry.find(model))

    return router


def embeddings_router(registry: ModelRegistry, settings: ServeSettings) -> APIRouter:
    router = APIRouter(route_class=StrictRoute)

    @router.post("/v1/embeddings", response_model=EmbeddingAnswer, responses=ERRORS)
    async def embeddings(body: EmbeddingRequest, request: Request) -> Response:
        """Texts as vectors of length 1."""
        served = registry.find(body.model)
        try:
            width = served.loaded.decoder.spec.d_model
        except UserError as error:
            raise translate(error, param="model") from error
        if body.dimensions not in (None, width):
            raise invalid(f"This model's vectors have {width} dimensions.", "dimensions")
        rows = await asyncio.to_thread(_rows, served, body, settings)
        try:
            vectors_ND = await unless_gone(request, asyncio.to_thread(served.engine.embed, rows))
        except (UserError, RuntimeError) as error:
            raise translate(error, param="input") from error
        vectors_ND = torch.nn.functional.normalize(vectors_ND.float(), dim=-1)
        data = [
            EmbeddingFacts(index=number, embedding=_encoded(vector_D, body.encoding_format))
            for number, vector_D in enumerate(vectors_ND)
        ]
        count = sum(map(len, rows))
        usage = EmbeddingUsage(prompt_tokens=count, total_tokens=count)
        answer = EmbeddingAnswer(data=data, model=served.id, usage=usage)
        return Response(answer.model_dump_json(), media_type="application/json")

    return router


def tokenize_router(registry: ModelRegistry) -> APIRouter:
    router = APIRouter(route_class=StrictRoute)

    @router.post("/tokenize", response_model=TokenizeAnswer, responses=ERRORS)
    async def tokenize(body: TokenizeRequest) -> TokenizeAnswer:
        """A text or a conversation as the model reads it."""
        served = registry.find(body.model) if body.model is not None else registry.default
        if (body.prompt is None) == (body.messages is None):
            raise invalid("Give either prompt or messages.", "prompt")
        if body.messages is not None:
            messages = [plain(message) for message in body.messages]
            ids = await asyncio.to_thread(chat_ids, served, messages, prompt=body.add_generation_prompt)
        else:
            opened = body.add_special_tokens
            ids = await asyncio.to_thread(text_ids, served, body.prompt or "", "prompt", opened=opened)
        names = None
        if body.return_token_strs:
            names = [token_bytes(served.loaded.tokenizer, id).decode("utf-8", "replace") for id in ids]
        return TokenizeAnswer(count=len(ids), max_model_len=served.context_length, tokens=ids, token_strs=names)

    return router


def feedback_router(
    registry: ModelRegistry, store: FeedbackStore, recent: RecentCompletions, metrics: Metrics
) -> APIRouter:
    router = APIRouter(route_class=StrictRoute)

    @router.post("/v1/feedback", response_model=FeedbackAnswer, responses=ERRORS, status_code=201)
    async def feedback(body: FeedbackRequest) -> FeedbackAnswer:
        """What somebody thinks of an answer, for training with ``--feedback``."""
        if body.rating is None and body.edit is None:
            raise ApiError(
                400, "Feedback needs a rating or an edit.", param="rating", code="missing_required_parameter"
            )
        feedback = _feedback(registry, body, recent)
        try:
            number = await asyncio.to_thread(store.add, feedback)
        except UserError as error:
            raise ApiError(503, "The feedback could not be kept.", kind=FAILED, code="storage_failed") from error
        metrics.feedback.labels(feedback.model, feedback.rating or "edit").inc()
        return FeedbackAnswer(id=number, model=feedback.model, rating=body.rating, edited=body.edit is not None)

    return router


def watching_router(registry: ModelRegistry, metrics: Metrics) -> APIRouter:
    router = APIRouter()

    @router.get("/health", response_model=HealthAnswer, responses=ERRORS | {503: {"model": HealthAnswer}})
    async def health() -> Response:
        """Whether every model's engine works: 200, or 503 if one has failed."""
        well = {model.id: model.healthy for model in registry.served}
        states: dict[str, Any] = {name: "ok" if good else "failing" for name, good in well.items()}
        answer = HealthAnswer(status="ok" if all(well.values()) else "failing", models=states)
        return Response(answer.model_dump_json(), 200 if all(well.values()) else 503, media_type="application/json")

    @router.get(
        "/metrics",
        response_class=Response,
        responses=ERRORS | {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def metrics_text() -> Response:
        """All counts, for Prometheus."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return router


def _facts(registry: ModelRegistry, served: Served) -> ModelFacts:
    documents = served.documents
    return ModelFacts(
        id=served.id,
        created=served.created,
        stage=served.loaded.stage,
        chats=served.loaded.chats,
        context_length=served.context_length,
        parameters=served.parameters,
        aliases=registry.aliases(served),
        index=documents.default if documents is not None else None,
        indexes=list(documents.retrievers) if documents is not None else [],
    )


def _rows(served: Served, body: EmbeddingRequest, settings: ServeSettings) -> list[list[int]]:
    given = prompts_of(body.input)
    if len(given) > settings.max_prompts:
        raise invalid(f"At most {settings.max_prompts} texts may come together.", "input")
    rows: Sequence[list[int]] = [item if isinstance(item, list) else text_ids(served, item, "input") for item in given]
    for row in rows:
        check_length(served, row, "input")
    return list(rows)


def _encoded(vector_D: torch.Tensor, encoding: str | None) -> list[float] | str:
    if encoding == "base64":
        return base64.b64encode(vector_D.numpy().astype("<f4").tobytes()).decode()
    return vector_D.tolist()


def _feedback(registry: ModelRegistry, body: FeedbackRequest, recent: RecentCompletions) -> Feedback:
    exchange = recent.get(body.id) if body.id is not None else None
    if body.messages is None and body.answer is None and body.id is not None:
        if exchange is None:
            raise ApiError(
                404,
                "That answer is not remembered; give model, messages and answer.",
                param="id",
                code="unknown_answer",
            )
        if body.choice >= len(exchange.answers):
            raise invalid(f"That request had {len(exchange.answers)} choices.", "choice")
        model, messages, answer = exchange.model, exchange.messages, exchange.answers[body.choice]
    else:
        for name in ("model", "messages", "answer"):
            if getattr(body, name) is None:
                raise ApiError(400, f"Missing field: {name}.", param=name, code="missing_required_parameter")
        model = registry.find(body.model or "").id
        messages, answer = [plain(message) for message in body.messages or ()], body.answer or ""
    return Feedback(
        model=model,
        messages=messages,
        answer=answer,
        rating=body.rating,
        edit=body.edit,
        comment=body.comment,
        completion=body.id,
    )
