"""The choices of a request while they are written, and what its asker sees of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from underhood.infer.request import Finish, OutputChunk
from underhood.infer.request_handle import RequestHandle
from underhood.infer.sampler import SequenceSampler, best
from underhood.infer.scheduler import Sequence

CUT_OFF = ("cancelled", "deadline", "error")
"""Ends that come from outside: such a choice is not compared with the others."""


@dataclass(eq=False)
class RequestChoice:
    """One text that is written for a request: its place in the engine, its sampler, and the chunks held back."""

    output: "RequestOutput"
    sequence: Sequence
    sampler: SequenceSampler
    held: list[OutputChunk] = field(default_factory=list)


class RequestOutput:
    """Hands chunks on as they come, or, for `best_of`, those of the best choices once all have ended.

    Args:
        on_finish: told how each returned choice ended.
    """

    def __init__(self, handle: RequestHandle, on_finish: Callable[[Finish], None]):
        self.handle = handle
        self.choices: list[RequestChoice] = []
        self._on_finish = on_finish
        self._chooses = (handle.request.best_of or handle.request.n) > handle.request.n

    def put(self, choice: RequestChoice, chunk: OutputChunk) -> None:
        """What is new of a choice."""
        if not self._chooses:
            self._hand_on(chunk)
            return
        choice.held.append(chunk)
        if all(other.sampler.finish is not None for other in self.choices):
            self._hand_on_best()

    def _hand_on_best(self) -> None:
        whole = [choice.sampler for choice in self.choices if choice.sampler.finish not in CUT_OFF]
        ranked = [*best(whole, len(whole)), *(c.sampler for c in self.choices if c.sampler.finish in CUT_OFF)]
        held = {choice.sampler: choice.held for choice in self.choices}
        for place, sampler in enumerate(ranked[: self.handle.request.n]):
            text = "".join(chunk.text for chunk in held[sampler])
            self._hand_on(OutputChunk(choice=place, tokens=tuple(sampler.tokens), text=text, finish=sampler.finish))

    def _hand_on(self, chunk: OutputChunk) -> None:
        if chunk.finish is not None:
            self._on_finish(chunk.finish)
        self.handle.put(chunk)
