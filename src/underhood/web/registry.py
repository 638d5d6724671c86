"""The models of a server, each with an engine of its own, found by their ids."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from underhood.core.errors import UserError
from underhood.infer.engine import Engine
from underhood.infer.engine_spec import EngineSpec
from underhood.infer.engine_thread import EngineThread
from underhood.infer.fetch import fetch, model_title
from underhood.infer.load import LoadedModel, load
from underhood.infer.memory import UNLIMITED, share_memory
from underhood.infer.opening import open_draft
from underhood.infer.optimize import Quantized, optimize_for_inference
from underhood.infer.packed_loading import load_for_inference
from underhood.infer.sequence_runner import warm_up
from underhood.infer.stages import stages_of
from underhood.models.base import parameter_count
from underhood.retrieve.index import PassageIndex
from underhood.web.documents import Documents, RetrievalSettings, open_documents
from underhood.web.errors import unknown_model


@dataclass(eq=False)
class Served:
    """A model that is served.

    Attributes:
        id: by which requests choose it, e.g. ``RUN:MODEL``.
        engine: writes its answers.
        created: Unix time of its files.
        parameters: how many it has.
        documents: what it can answer from; None where there is nothing.
        scoring: held while the model is read outside its engine, one text at a time.
    """

    id: str
    loaded: LoadedModel
    engine: EngineThread
    created: int
    parameters: int
    documents: Documents | None = None
    scoring: threading.Lock = field(default_factory=threading.Lock)

    @property
    def context_length(self) -> int:
        return self.loaded.spec.context_length or UNLIMITED

    def answer_room(self, prompt: int) -> int:
        """The most tokens that an answer to a prompt of `prompt` tokens can have: context and cache end it."""
        blocks = self.engine.engine.scheduler.blocks
        return max(1, min(self.context_length, blocks.total * blocks.size + 1 - prompt))

    @cached_property
    def longest_token(self) -> int:
        """Bytes of the longest token: a text of many times more bytes can't fit, which is known without reading it."""
        tokenizer = self.loaded.tokenizer
        special = set(tokenizer.special.values())
        return max(
            (len(tokenizer.decode_bytes([id])) for id in range(tokenizer.vocab_size) if id not in special), default=1
        )

    @property
    def fingerprint(self) -> str:
        """Changes with the weights, so that a client sees when a seed no longer repeats an answer."""
        return f"{self.loaded.stage}-{self.loaded.step}-{self.created:x}"

    @property
    def healthy(self) -> bool:
        return self.engine.healthy


class ModelRegistry:
    """All models of a server, the default first.

    A model answers to its id and, where only one does, to its run's name (the best stage) and its stage.
    """

    def __init__(self, served: Sequence[Served]):
        if not served:
            raise ValueError("a server needs a model")
        self.served = list(served)
        self._known: dict[str, Served] = {}
        for model in served:
            self._known.setdefault(model.id, model)
        for model in served:  # the first of a run is its best stage
            self._known.setdefault(model.id.rpartition(":")[0] or model.id, model)
        stages = [model.loaded.stage for model in served]
        for model in served:
            if stages.count(model.loaded.stage) == 1 and ":" in model.id:
                self._known.setdefault(model.loaded.stage, model)

    @classmethod
    def open(
        cls,
        models: Sequence[str | Path],
        *,
        stage: str | None = None,
        quantize: Quantized | None = None,
        spec: EngineSpec | None = None,
        draft: str | Path | None = None,
        retrieval: RetrievalSettings | None = None,
    ) -> "ModelRegistry":
        """Loads the models: of a run all stages, the best first, or only `stage`.

        Where `spec` leaves the memory for their caches open, they share what the machine can spare once all are there.

        Args:
            draft: a smaller model that drafts for all of them; see `EngineSpec.draft_tokens`.
            retrieval: which documents they answer from; None gives each its run's own.

        Raises:
            UserError: there is no such model, or two have the same name, or the draft can't guess for one of them, or
                an index can't be read.
        """
        spec = spec or EngineSpec()
        opened: dict[str, LoadedModel] = {}
        for name in models:
            for loaded, id in _open(name, stage, quantize):
                if id in opened:
                    raise UserError(f"two models are called {id}", fix="Rename one of the folders")
                opened[id] = loaded
        documents = open_documents([*opened.values()], retrieval or RetrievalSettings())
        parameters = [parameter_count(entry.model) for entry in opened.values()]  # before packing
        for id, loaded in opened.items():
            opened[id] = replace(loaded, model=optimize_for_inference(loaded.model, quantize))
            warm_up(opened[id].model)
        helper = None if draft is None else open_draft(draft, [*opened.values()], quantize)
        rooms: list[int | None] = [spec.cache_bytes] * len(opened)
        if spec.cache_bytes is None:
            rooms = [*share_memory([(entry.model, spec) for entry in opened.values()])]
        engines = [
            Engine(entry.model, entry.tokenizer, replace(spec, cache_bytes=room), helper)
            for entry, room in zip(opened.values(), rooms, strict=True)
        ]
        return cls(
            [
                _serve(loaded, id, count, engine, own)
                for (id, loaded), count, engine, own in zip(opened.items(), parameters, engines, documents, strict=True)
            ]
        )

    @property
    def default(self) -> Served:
        return self.served[0]

    def find(self, name: str) -> Served:
        """The model that a request names.

        Raises:
            ApiError: 404, with the nearest name.
        """
        if name not in self._known:
            raise unknown_model(name, list(self._known))
        return self._known[name]

    def aliases(self, model: Served) -> list[str]:
        """The other names that a model answers to."""
        return [name for name, other in self._known.items() if other is model and name != model.id]

    def default_indexes(self) -> list[PassageIndex]:
        """The passage indexes that models answer from where a request does not say otherwise."""
        own = [model.documents for model in self.served if model.documents is not None]
        indexes = [documents.retrievers[documents.default].index for documents in own if documents.default is not None]
        return list({id(index): index for index in indexes}.values())

    def names(self) -> list[str]:
        """The ids of all models, the default first."""
        return [model.id for model in self.served]

    def loaded(self, name: str) -> LoadedModel:
        """A model by its name.

        Raises:
            UserError: there is no such model.
        """
        if name not in self._known:
            raise UserError(f"there is no model {name!r}", expected=" or ".join(self.names()))
        return self._known[name].loaded

    def drain(self, timeout: float) -> bool:
        """Takes no more requests and waits until those there are have been answered; True if they all have."""
        until = time.monotonic() + timeout
        for model in self.served:
            model.engine.engine.stop_accepting()
        drained = [model.engine.drain(max(0.0, until - time.monotonic())) for model in self.served]
        return all(drained)

    def close(self) -> None:
        """Ends all engines and what they are still working on."""
        for model in self.served:
            model.engine.close()


def _open(name: str | Path, stage: str | None, quantize: Quantized | None) -> list[tuple[LoadedModel, str]]:
    folder = fetch(name)
    stages = stages_of(folder)
    title = model_title(name, folder)
    if (folder / "state.json").exists():  # a single checkpoint
        loaded = load(folder, stage)
        return [(loaded, f"{loaded.run.resolve().name}:{loaded.stage}")]
    if not stages:  # a published model, or nothing, which `load` explains
        return [(load_for_inference(folder, stage, quantize=quantize), title)]
    wanted = [stage] if stage is not None else stages[::-1]
    return [(load(folder, wanted_stage), f"{title}:{wanted_stage}") for wanted_stage in wanted]


def _serve(loaded: LoadedModel, id: str, parameters: int, engine: Engine, documents: Documents | None) -> Served:
    created = int(loaded.path.stat().st_mtime)
    return Served(id, loaded, EngineThread(engine, name=f"engine {id}"), created, parameters, documents)
