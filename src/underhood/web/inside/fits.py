"""Background training for the page: lenses, autoencoders and probes, begun by a click and kept for each model.

Training takes seconds to minutes. It runs in a thread of its own, one at a time, while the page goes on and asks how
far it is. The thread works with modules of its own that share the model's weights: the hooks of views that are worked
out meanwhile are never called.
"""

from __future__ import annotations

import copy
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from underhood.core.errors import UserError
from underhood.infer.cache import device_of
from underhood.infer.load import LoadedModel
from underhood.web.inside.fit_kinds import KINDS, FitKind
from underhood.web.inside.known_text import known_text

FITS_KEPT = 24
TIMED_TOKENS, TIMED_PASSES = 64, 3
UNDER_WAY = ("waiting", "running")

Key = tuple[str, str, str]
"""The model's id, the kind, the variant."""


class Stopped(Exception):
    """The reader does not want the training any more."""


@dataclass
class Fit:
    """A training and what came of it.

    Attributes:
        state: ``waiting`` for another one to end, ``running``, ``done``, ``failed`` or ``stopped``.
        step, steps: how far it is.
        value: what was trained, when it is done.
        message: why it failed.
    """

    state: str = "waiting"
    step: int = 0
    steps: int = 1
    value: Any = None
    message: str = ""
    began: float = 0.0
    stop: threading.Event = field(default_factory=threading.Event)

    def progress(self, step: int, steps: int) -> None:
        if self.stop.is_set():
            raise Stopped
        self.step, self.steps = step, steps


@dataclass(eq=False)
class Fits:
    """All trainings of the models that a page shows; the last few are kept.

    Attributes:
        text: what ``--text`` says: trained on this instead of the run's own text.
        folder: where lenses and autoencoders are kept and read, or None.
    """

    text: str | None = None
    folder: Path | None = None
    _fits: OrderedDict[Key, Fit] = field(default_factory=OrderedDict)
    _rates: dict[str, float] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def look(self, id: str, loaded: LoadedModel, kind: str, variant: str) -> dict[str, Any]:
        """How far a training is; before it has begun, what it will be trained on and how long that takes.

        Raises:
            UserError: there is no such kind or variant.
        """
        chosen, key = self._key(id, loaded, kind, variant)
        facts: dict[str, Any] = {"title": chosen.title, "once": chosen.once}
        fit = self._fits.get(key)
        if fit is None or fit.state in ("stopped", "failed"):
            try:
                text = known_text(loaded, self.text)
            except UserError as error:
                return facts | {"state": "no text", "message": str(error)}
            estimate = chosen.flops(loaded) / self._rate(id, loaded) + chosen.overhead(loaded)
            return facts | {
                "state": "none" if fit is None else fit.state,
                "message": fit.message if fit else "",
                "text": text.name,
                "characters": chosen.characters,
                "seconds": estimate,
            }
        passed = time.monotonic() - fit.began if fit.state == "running" else 0.0
        left = passed * (fit.steps - fit.step) / fit.step if fit.step else None
        return facts | {"state": fit.state, "step": fit.step, "steps": fit.steps, "left": left}

    def start(self, id: str, loaded: LoadedModel, kind: str, variant: str) -> None:
        """Begins a training if it is neither done nor under way."""
        chosen, key = self._key(id, loaded, kind, variant)
        with self._lock:
            fit = self._fits.get(key)
            if fit is not None and (fit.state == "done" or (fit.state in UNDER_WAY and not fit.stop.is_set())):
                return
            fit = self._fits[key] = Fit()
            self._forget_old()
        work = with_own_modules(loaded)  # here: the caller holds the models, so that no view's hooks are copied
        threading.Thread(target=self._run, args=(fit, chosen, work, key), daemon=True).start()

    def stop(self, id: str, loaded: LoadedModel, kind: str, variant: str) -> None:
        """Ends a training at its next step."""
        fit = self._fits.get(self._key(id, loaded, kind, variant)[1])
        if fit is not None:
            fit.stop.set()

    def make(
        self, id: str, loaded: LoadedModel, kind: str, variant: str, progress: Callable[[int, int], None] | None = None
    ) -> None:
        """Trains in the foreground.

        Raises:
            UserError: no text is known, or it is too short.
        """
        chosen, key = self._key(id, loaded, kind, variant)
        fit = Fit()
        fit.value = self._made(chosen, loaded, key, progress or fit.progress)
        fit.state = "done"
        self._fits[key] = fit

    def value(self, id: str, loaded: LoadedModel, kind: str, variant: str = "") -> Any:
        """What was trained.

        Raises:
            UserError: it is not there yet.
        """
        chosen, key = self._key(id, loaded, kind, variant)
        with self._lock:
            fit = self._fits.get(key)
            if fit is None or fit.state != "done":
                raise UserError(f"the {chosen.title} of this model is not trained yet", fix="Press Train in its panel")
            self._fits.move_to_end(key)
            return fit.value

    def _run(self, fit: Fit, kind: FitKind, loaded: LoadedModel, key: Key) -> None:
        try:
            with self._turn:
                if fit.stop.is_set():
                    raise Stopped
                fit.began, fit.state = time.monotonic(), "running"
                fit.value = self._made(kind, loaded, key, fit.progress)
            fit.state = "done"
        except Stopped:
            fit.state = "stopped"
        except UserError as error:
            fit.message, fit.state = str(error), "failed"
        except Exception as error:  # a thread has no caller who would see it
            fit.message, fit.state = f"{type(error).__name__}: {error}", "failed"
            raise

    def _made(self, kind: FitKind, loaded: LoadedModel, key: Key, progress: Callable[[int, int], None]) -> Any:
        texts = known_text(loaded, self.text).sample(kind.characters)
        return kind.make(loaded, texts, key[2], progress, self._file(key))

    def _file(self, key: Key) -> Path | None:
        if self.folder is None:
            return None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"can't make the folder {self.folder}: {error.strerror}") from error
        name = "-".join(re.sub(r"[^A-Za-z0-9.]+", "-", each) for each in key if each)
        return self.folder / f"{name}.safetensors"

    def _key(self, id: str, loaded: LoadedModel, kind: str, variant: str) -> tuple[FitKind, Key]:
        if kind not in KINDS:
            raise UserError(f"the page does not train {kind!r}", expected=" or ".join(KINDS))
        variants = KINDS[kind].variants(loaded)
        if variant not in variants:
            raise UserError(f"there is no {variant!r} {KINDS[kind].title}", expected=", ".join(variants))
        return KINDS[kind], (id, kind, variant)

    def _forget_old(self) -> None:
        over = [key for key, fit in self._fits.items() if fit.state not in UNDER_WAY]
        for key in over[: max(0, len(self._fits) - FITS_KEPT)]:
            del self._fits[key]

    def _rate(self, id: str, loaded: LoadedModel) -> float:
        """Multiplications and additions in a second, as a pass of the model makes them here."""
        if id not in self._rates:
            model = loaded.decoder
            count = min(TIMED_TOKENS, model.context_length)
            tokens_1T = torch.zeros(1, count, dtype=torch.long, device=device_of(model))
            seconds = []
            for _ in range(TIMED_PASSES):  # the first one is slow
                began = time.perf_counter()
                with torch.no_grad():
                    model(tokens_1T)
                seconds.append(time.perf_counter() - began)
            self._rates[id] = count * model.spec.flops_per_token / min(seconds)
        return self._rates[id]


def with_own_modules(loaded: LoadedModel) -> LoadedModel:
    """The same model in other modules: the weights are shared, hooks are not."""
    model = loaded.decoder
    shared: dict[int, Any] = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return replace(loaded, model=copy.deepcopy(model, shared))
