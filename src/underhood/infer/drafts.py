"""Drafters for speculative decoding: prompt lookup, and a smaller model."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Protocol

import torch
from torch import Tensor

from underhood.core.errors import UserError
from underhood.core.protocols import LanguageModel
from underhood.infer.sample import GREEDY, SamplingSpec, distribution, draw
from underhood.infer.sequence_runner import FIRST_CAPACITY, SequenceRunner

DRAFT_TOKENS = 5
"""Default draft length: longer drafts are seldom accepted whole, and cost more to verify."""


@dataclass(frozen=True)
class DraftTokens:
    """Tokens that may come next.

    Attributes:
        ids: the guess, in order; may be empty.
        chances_NV: for each, the distribution that it was drawn from; None for a guess without chance in it.
    """

    ids: list[int] = field(default_factory=list)
    chances_NV: Tensor | None = None


class Drafter(Protocol):
    """Anything that guesses how a text goes on."""

    def propose(self, ids: Sequence[int], count: int, sampling: SamplingSpec, draws: Iterator[float]) -> DraftTokens:
        """At most `count` tokens after `ids`; what is random comes from `draws`."""
        ...


class NgramDrafter:
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

    def propose(self, ids: Sequence[int], count: int, sampling: SamplingSpec, draws: Iterator[float]) -> DraftTokens:
        """See `Drafter.propose`."""
        self._index(ids)
        for size in self.sizes:
            start = self._after.get(tuple(ids[-size:])) if len(ids) >= size else None
            if start is not None:
                return DraftTokens(list(ids[start : start + count]))
        return DraftTokens()

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

    def __init__(self, model: LanguageModel):
        self.model = model
        self._runner = SequenceRunner(model, capacity=model.context_length or FIRST_CAPACITY)

    def propose(self, ids: Sequence[int], count: int, sampling: SamplingSpec, draws: Iterator[float]) -> DraftTokens:
        """See `Drafter.propose`."""
        if self.model.context_length is not None:
            count = min(count, self.model.context_length - len(ids) + 1)
        if count < 1:
            return DraftTokens()
        text, rows = list(ids), []
        for _ in range(count):
            chances_V = distribution(self._runner.prefill([text])[0], sampling)
            rows.append(chances_V)
            text.append(draw_one(chances_V, next(draws)))
        return DraftTokens(text[len(ids) :], torch.stack(rows))


class DrafterPool:
    """The drafts of an engine's texts: each has one of its own while there are enough.

    Args:
        model: guesses; without one, each text is searched for what followed its last tokens before.
        most: how many drafts there are; all their memory is taken at once.
        count: tokens guessed at a time, at most.
    """

    def __init__(self, model: LanguageModel | None, most: int, count: int):
        self.count = count
        self._free: list[Drafter] = [NgramDrafter() if model is None else DraftModel(model) for _ in range(most)]
        self._of: dict[Hashable, Drafter] = {}

    def propose(self, owner: Hashable, tokens: Sequence[int], limit: int) -> list[int]:
        """Greedy draft of at most `limit` tokens after the owner's `tokens`; empty when no drafter is free."""
        if owner not in self._of:
            if not self._free:
                return []
            self._of[owner] = self._free.pop()
        return greedy_draft(self._of[owner], tokens, min(limit, self.count))

    def release(self, owner: Hashable) -> None:
        """Frees the owner's drafter for another sequence."""
        if owner in self._of:
            self._free.append(self._of.pop(owner))


def greedy_draft(draft: Drafter, ids: Sequence[int], count: int) -> list[int]:
    """At most `count` tokens that the draft holds for the likeliest, without chance in them."""
    return draft.propose(ids, count, GREEDY, repeat(0.0)).ids if count > 0 else []


def check_draft(model: LanguageModel, draft: LanguageModel) -> None:
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
