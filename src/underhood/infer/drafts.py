"""Guesses at the next few tokens, cheap to make: what speculative decoding starts from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Protocol

import torch
from torch import Tensor

from underhood.core.errors import UserError
from underhood.core.protocols import LanguageModel
from underhood.infer.growing import GrowingText
from underhood.infer.sample import GREEDY, SamplingSpec, distribution, draw
from underhood.infer.scheduler import Stream
from underhood.models.decoder import Decoder

GUESSES = 5
"""Tokens that are guessed at a time where nothing else is said: more are seldom all right, and cost more to read."""


@dataclass(frozen=True)
class Guess:
    """Tokens that may come next.

    Attributes:
        ids: the guess, in order; may be empty.
        chances_NV: for each, the distribution that it was drawn from; None for a guess without chance in it.
    """

    ids: list[int] = field(default_factory=list)
    chances_NV: Tensor | None = None


class Draft(Protocol):
    """Anything that guesses how a text goes on."""

    def guess(self, ids: Sequence[int], count: int, sampling: SamplingSpec, draws: Iterator[float]) -> Guess:
        """At most `count` tokens after `ids`; what is random comes from `draws`."""
        ...


class PromptLookup:
    """Guesses that what followed these last tokens before will follow them again (Saxena 2023, prompt lookup).

    It costs nothing, and is right where a text repeats itself: code, lists, answers that quote the question.

    Args:
        longest: so many last tokens are looked up first, then fewer.
        shortest: the fewest that are worth a guess.
    """

    def __init__(self, longest: int = 3, shortest: int = 2):
        if not 1 <= shortest <= longest:
            raise ValueError(f"expected 1 <= shortest <= longest, got {shortest} and {longest}")
        self.sizes = range(longest, shortest - 1, -1)
        self._after: dict[tuple[int, ...], int] = {}
        self._seen: list[int] = []

    def guess(self, ids: Sequence[int], count: int, sampling: SamplingSpec, draws: Iterator[float]) -> Guess:
        """See `Draft.guess`."""
        self._index(ids)
        for size in self.sizes:
            place = self._after.get(tuple(ids[-size:])) if len(ids) >= size else None
            if place is not None:
                return Guess(list(ids[place : place + count]))
        return Guess()

    def _index(self, ids: Sequence[int]) -> None:
        """Notes where each run of tokens ended last, those at the very end excepted: nothing has followed them yet."""
        known = len(self._seen)
        if list(ids[:known]) != self._seen:
            self._after, known = {}, 0
        for end in range(max(known, 1), len(ids)):
            for size in self.sizes:
                if end >= size:
                    self._after[tuple(ids[end - size : end])] = end
        self._seen = list(ids)


class DraftModel:
    """A smaller model with the same vocabulary guesses token by token, drawing as the request says."""

    def __init__(self, model: Decoder):
        self.model = model.eval()
        self._text = GrowingText(model, model.context)

    def guess(self, ids: Sequence[int], count: int, sampling: SamplingSpec, draws: Iterator[float]) -> Guess:
        """See `Draft.guess`."""
        count = min(count, self.model.context - len(ids) + 1)
        if count < 1:
            return Guess()
        text, rows = list(ids), []
        self._text.rewind(text)
        for _ in range(count):
            chances_V = distribution(self._text.scores(text)[0], sampling)
            rows.append(chances_V)
            text.append(draw_one(chances_V, next(draws)))
        return Guess(text[len(ids) :], torch.stack(rows))


class Drafts:
    """The drafts of an engine's texts: each has one of its own while there are enough.

    Args:
        model: guesses; without one, each text is searched for what followed its last tokens before.
        most: how many drafts there are; all their memory is taken at once.
        count: tokens guessed at a time, at most.
    """

    def __init__(self, model: Decoder | None, most: int, count: int):
        self.count = count
        self._free: list[Draft] = [PromptLookup() if model is None else DraftModel(model) for _ in range(most)]
        self._of: dict[Stream, Draft] = {}

    def guess(self, text: Stream, room: int) -> list[int]:
        """At most `room` tokens that may follow a text."""
        if text not in self._of:
            if not self._free:
                return []
            self._of[text] = self._free.pop()
        return certain(self._of[text], text.tokens, min(room, self.count))

    def end(self, text: Stream) -> None:
        """The text is done; another may have its draft."""
        if text in self._of:
            self._free.append(self._of.pop(text))


def certain(draft: Draft, ids: Sequence[int], count: int) -> list[int]:
    """At most `count` tokens that the draft holds for the likeliest, without chance in them."""
    return draft.guess(ids, count, GREEDY, repeat(0.0)).ids if count > 0 else []


def check_draft(model: LanguageModel, draft: Decoder) -> None:
    """Raises a `UserError` where a model can't guess for another."""
    if draft.vocab_size != model.vocab_size:
        raise UserError(
            "draft and model have different vocabularies",
            expected=f"{model.vocab_size} tokens",
            got=f"{draft.vocab_size}",
            fix="Take a draft that was trained with the same tokenizer",
        )


def draw_one(weights_V: Tensor, uniform: float) -> int:
    """One token, with probability proportional to its weight."""
    return int(draw(weights_V[None], torch.tensor([uniform], dtype=weights_V.dtype, device=weights_V.device)))
