"""The web page: its files, and what it needs to know beyond the OpenAI API, under ``/ui``.

Everything comes from this process. The policy sent with the page allows nothing else: no inline script or style, no
request to another host, no frame around it.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from underhood.core.errors import UserError
from underhood.infer.sample import GREEDY, SamplingSpec
from underhood.infer.stages import stages_of, steps_on_disk
from underhood.models.base import parameter_count
from underhood.recipes.stages.display import model_hue, page_data, stage_css
from underhood.web.checkpoint_samples import CheckpointSamples
from underhood.web.page_files import HEADERS, STATIC, TYPES, page_file, static_router
from underhood.web.registry import ModelRegistry, Served
from underhood.web.retrieval import retrieve
from underhood.web.run_views import Runs
from underhood.web.suggestions import suggestions, summary_of
from underhood.web.token_view import MOST_TOP, answer_ids, ids_by_bytes, prompt_of, score

REPORT_HEADERS = HEADERS | {"Content-Security-Policy": "sandbox allow-scripts allow-downloads"}
"""A report holds its own policy; the sandbox takes its origin away, so that it could not even ask this server."""

PLACES = ("/", "/runs", "/runs/{name}", "/compare")
"""Addresses of the page: one document, whose script shows what the address says."""

MOST_TEXT = 200_000


@dataclass
class Pages:
    """What the pages show.

    Attributes:
        models: the served models; each is read outside its engine by one request at a time.
        runs: the run folders.
        samples: answers of single checkpoints.
    """

    models: ModelRegistry
    runs: Runs
    samples: CheckpointSamples = field(default_factory=CheckpointSamples)
    _bytes: dict[str, dict[bytes, int]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def known_bytes(self, model: Served) -> Mapping[bytes, int]:
        """The model's tokens by their bytes, found out when they are first asked for."""
        with self._lock:
            if model.id not in self._bytes:
                self._bytes[model.id] = ids_by_bytes(model.loaded.tokenizer)
            return self._bytes[model.id]


class Message(BaseModel):
    model_config = ConfigDict(extra="forbid")
    role: str = Field(max_length=20)
    content: str = Field(max_length=MOST_TEXT)


class TokensAsked(BaseModel):
    """Either `messages` or `prompt` is what the answer followed.

    Attributes:
        retrieve: whether the model read retrieved passages too, if it has documents.
        pieces: the bytes of the answer's tokens in hexadecimal.
    """

    model_config = ConfigDict(extra="forbid")
    model: str
    messages: list[Message] | None = Field(default=None, min_length=1, max_length=1000)
    prompt: str | None = Field(default=None, max_length=MOST_TEXT)
    retrieve: bool = False
    text: str = Field(max_length=MOST_TEXT)
    pieces: list[str] | None = Field(default=None, max_length=100_000)
    top: int = Field(default=10, ge=1, le=MOST_TOP)


class SampleAsked(BaseModel):
    model_config = ConfigDict(extra="forbid")
    stage: str
    step: int = Field(ge=0)
    prompt: str = Field(max_length=20_000)
    max_tokens: int = Field(default=96, ge=1, le=1024)
    temperature: float = Field(default=0.0, ge=0, le=5)
    seed: int = Field(default=0, ge=0, le=2**63 - 1)


def pages_router(pages: Pages) -> APIRouter:
    """All routes of the web page. Only those under ``/ui`` tell secrets: they ask for the API key as ``/v1`` does."""
    router = APIRouter(include_in_schema=False)

    def page() -> Response:
        return page_file(STATIC / "index.html")

    for page_path in PLACES:
        router.add_api_route(page_path, page, methods=["GET"])

    router.include_router(static_router())

    @router.get("/ui/stages")
    def stages() -> dict[str, Any]:
        return {"stages": page_data()}

    @router.get("/ui/stages.css")
    def stage_colours() -> Response:
        return Response(stage_css(), media_type=TYPES[".css"], headers=HEADERS)

    @router.get("/ui/models")
    def models() -> dict[str, Any]:
        return {"models": [card(model) for model in pages.models.served]}

    @router.get("/ui/suggestions")
    def prompts(model: str) -> dict[str, Any]:
        served = pages.models.find(model)
        documents = served.documents
        searched = None if documents is None or documents.default is None else documents.retrievers[documents.default]
        passages = () if searched is None else searched.index.passages
        return {"suggestions": suggestions(served.loaded, summary_of(served.loaded.run), passages)}

    @router.post("/ui/tokens")
    def tokens(query: TokensAsked) -> dict[str, Any]:
        model = pages.models.find(query.model)
        loaded = model.loaded
        messages = [message.model_dump() for message in query.messages] if query.messages else None
        if messages and query.retrieve and model.documents is not None:
            retrieved = retrieve(model.documents, True, messages)
            messages = messages if retrieved is None else [dict(message) for message in retrieved.messages]
        prompt = prompt_of(loaded, messages, query.prompt)
        known = pages.known_bytes(model) if query.pieces else {}
        ids, exact = answer_ids(loaded.tokenizer, known, query.text, _bytes_of(query.pieces))
        with model.scoring:
            rows = score(loaded, prompt, ids, query.top)
        return {"prompt_ids": prompt, "exact": exact, "tokens": rows}

    @router.get("/ui/runs")
    def runs() -> dict[str, Any]:
        return {"runs": pages.runs.overview(), "places": [str(page_path) for page_path in pages.runs.places]}

    @router.get("/ui/runs/{name}")
    def run(name: str) -> dict[str, Any]:
        return pages.runs.whole(name)

    @router.get("/ui/runs/{name}/live")
    def live(name: str, seen: int = -1) -> dict[str, Any]:
        state = pages.runs.live(name)
        unchanged = state["seen"] == seen
        return {key: state[key] for key in ("seen", "status", "updated")} | {"same": True} if unchanged else state

    @router.post("/ui/runs/{name}/sample")
    def sample(name: str, query: SampleAsked) -> dict[str, Any]:
        folder = pages.runs.folder(name)
        models = stages_of(folder)
        if query.stage not in models:
            raise UserError(f"there is no model {query.stage!r} in {name}", expected=" or ".join(models))
        path = steps_on_disk(folder, query.stage).get(query.step)
        if path is None:
            raise UserError(
                f"the checkpoint of step {query.step} is gone", fix="Of every stage only some are kept; reload the page"
            )
        return pages.samples.answer(
            path, query.prompt, max_tokens=query.max_tokens, temperature=query.temperature, seed=query.seed
        )

    @router.get("/ui/runs/{name}/report")
    def report(name: str) -> Response:
        file = pages.runs.folder(name) / "report.html"
        if not file.is_file():
            raise UserError(f"{name} has no report yet", fix=f"Write one with underhood report {file.parent}")
        return Response(file.read_bytes(), media_type="text/html; charset=utf-8", headers=REPORT_HEADERS)

    @router.get("/ui/difference")
    def difference(a: str, b: str) -> dict[str, Any]:
        return pages.runs.difference(a, b)

    return router


def card(model: Served) -> dict[str, Any]:
    """A model as the picker shows it."""
    loaded = model.loaded
    return {
        "id": model.id,
        "run": loaded.run.resolve().name,
        "stage": loaded.stage,
        "hue": model_hue(loaded.stage) if loaded.roles is None else "imported",
        "step": loaded.step,
        "chats": loaded.chats,
        "context": model.context_length,
        "parameters": parameter_count(loaded.model),
        "documents": _documents(model),
        "sampling": _in_force(loaded.default_sampling(answers=True)),
    }


def _in_force(sampling: SamplingSpec) -> dict[str, Any]:
    """The settings by which text is drawn where a request names none."""
    return {name: value for name, value in asdict(sampling).items() if name not in ("seed", "logit_bias")}


def _documents(model: Served) -> dict[str, Any] | None:
    """The index that a chat with the model can search, and whether it does unless told otherwise."""
    documents = model.documents
    if documents is None or (documents.default is None and len(documents.retrievers) > 1):
        return None
    name = documents.default or next(iter(documents.retrievers))
    index = documents.retrievers[name].index
    corpus = " and ".join(index.facts.data) if 0 < len(index.facts.data) <= 2 else name
    return {"name": corpus, "passages": len(index), "on": documents.default is not None,
            "sampling": _in_force(GREEDY)}  # fmt: skip


def _bytes_of(pieces: Sequence[str] | None) -> list[bytes] | None:
    try:
        return None if pieces is None else [bytes.fromhex(piece) for piece in pieces]
    except ValueError as error:
        raise UserError("pieces must be bytes in hexadecimal", got=str(error)) from error
