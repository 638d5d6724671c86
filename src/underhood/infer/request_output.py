"""The choices of a request while they are written, and what its asker sees of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from underhood.core.protocols import Tokenizer
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
        finished: counts how the returned choices ended.
    """

    def __init__(self, handle: RequestHandle, finished: Counter[Finish]):
        self.handle = handle
        self.choices: list[RequestChoice] = []
        self._finished = finished
        self._chooses = (handle.request.best_of or handle.request.n) > handle.request.n

    @classmethod
    def of(cls, handle: RequestHandle, limit: int, tokenizer: Tokenizer, finished: Counter[Finish]) -> "RequestOutput":
        """The output of a new request: one sequence with its sampler per choice, none of which runs yet.

        Args:
            limit: tokens that a sequence may grow to, prompt included.
        """
        request = handle.request
        output, length = cls(handle, finished), len(request.prompt)
        for number in range(request.best_of or request.n):
            parent = output.choices[0].sequence if number else None
            sequence = Sequence(
                tokens=list(request.prompt), prompt=length, limit=limit, cache_salt=request.cache_salt, parent=parent
            )
            sampler = SequenceSampler(request, number, tokenizer, room=limit - length)
            output.choices.append(RequestChoice(output, sequence, sampler))
        return output

    def put(self, choice: RequestChoice, chunk: OutputChunk) -> None:
        """Hands on the new tokens of a choice."""
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
        for rank, sampler in enumerate(ranked[: self.handle.request.n]):
            text = "".join(chunk.text for chunk in held[sampler])
            self._hand_on(OutputChunk(choice=rank, tokens=tuple(sampler.tokens), text=text, finish=sampler.finish))

    def _hand_on(self, chunk: OutputChunk) -> None:
        if chunk.finish is not None:
            self._finished[chunk.finish] += 1
        self.handle.put(chunk)
