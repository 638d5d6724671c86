"""Samples of the checkpoints of a run for the same prompt: each is loaded, asked and released in turn."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import psutil

from underhood.core.errors import UserError
from underhood.infer.load import LoadedModel, load
from underhood.infer.sample import SamplingSpec
from underhood.infer.session import Session
from underhood.ui.visible_bytes import visible

KEPT = 256
"""Answers remembered: a checkpoint never changes, and greedy or seeded answers can be repeated."""


class CheckpointSamples:
    """Answers of checkpoints. One model is in memory at a time, the last one asked."""

    def __init__(self):
        self._lock = threading.Lock()
        self._open: LoadedModel | None = None
        self._known: OrderedDict[tuple[Any, ...], dict[str, Any]] = OrderedDict()

    def answer(
        self, path: Path, prompt: str, *, max_tokens: int = 96, temperature: float = 0.0, seed: int = 0
    ) -> dict[str, Any]:
        """What the checkpoint writes: an answer if it has learnt to chat, else a continuation of the prompt.

        Returns:
            ``text``, ``ended`` (by itself, not at the limit) and ``tokens``: each token as it is shown, with its
            log-probability.

        Raises:
            UserError: the checkpoint can't be read or is too large for the free memory, or the prompt is too long.
        """
        key = (path.resolve(), prompt, max_tokens, temperature, seed)
        with self._lock:
            if key not in self._known:
                self._known[key] = self._ask(path, prompt, max_tokens, SamplingSpec(temperature=temperature, seed=seed))
                while len(self._known) > KEPT:
                    self._known.popitem(last=False)
            return self._known[key]

    def _ask(self, path: Path, prompt: str, max_tokens: int, sampling: SamplingSpec) -> dict[str, Any]:
        loaded = self._load(path)
        if loaded.template is not None:
            messages = [{"role": "user", "content": prompt}]
            ids = loaded.template.render(loaded.tokenizer, messages, add_generation_prompt=True).ids
        else:
            ids = loaded.prompt_ids(prompt)
        session = Session(loaded.model)
        written = list(session.stream(ids, max_new_tokens=max_tokens, sampling=sampling, stop_ids=loaded.stop_ids))
        raw = [loaded.tokenizer.decode_bytes([token.id]) for token in written]
        return {
            "text": loaded.tokenizer.decode([token.id for token in written]),
            "ended": session.finish == "stop",
            "chats": loaded.chats,
            "tokens": [
                {"id": token.id, "shown": visible(piece), "hex": piece.hex(), "logprob": token.logprob}
                for token, piece in zip(written, raw, strict=True)
            ],
        }

    def _load(self, path: Path) -> LoadedModel:
        if self._open is not None and self._open.path.resolve() == path.resolve():
            return self._open
        self._open = None  # its memory is free before the next one comes
        size = (path / "model.safetensors").stat().st_size if (path / "model.safetensors").is_file() else 0
        free = psutil.virtual_memory().available
        if size > free / 2:
            raise UserError(
                "this checkpoint is too large to open beside the model that is served",
                expected=f"at most {free / 2e9:.1f} GB",
                got=f"{size / 1e9:.1f} GB",
            )
        self._open = load(path)
        return self._open
