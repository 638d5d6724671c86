"""Speculative decoding: a cheap guess at the next few tokens, checked in one pass of the model.

Reading five tokens at once takes a CPU hardly longer than reading one, for the weights are fetched once either way. So
a draft guesses, the model scores all guesses together, and those that hold are kept. What is kept is decided so that
the text has exactly the distribution that the model alone would give it (Leviathan et al. 2023, "Fast inference from
transformers via speculative decoding", theorem 1 in appendix A.1; Chen et al. 2023).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from underhood.core.errors import UserError
from underhood.infer.cache import ContiguousCache
from underhood.infer.generate import check_prompts, device_of, last_logits, room_for
from underhood.infer.request import Finish, WrittenToken
from underhood.infer.sample import GREEDY, SamplingSpec, distribution, draw, uniforms
from underhood.infer.session import CHUNK
from underhood.models.decoder import Decoder


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
        self._cache: ContiguousCache | None = None
        self._read: list[int] = []

    def guess(self, ids: Sequence[int], count: int, sampling: SamplingSpec, draws: Iterator[float]) -> Guess:
        """See `Draft.guess`."""
        count = min(count, self.model.context - len(ids) + 1)
        if count < 1:
            return Guess()
        text, rows = list(ids), []
        for _ in range(count):
            chances_V = distribution(self._scores(text), sampling)
            rows.append(chances_V)
            text.append(_draw(chances_V, next(draws)))
        return Guess(text[len(ids) :], torch.stack(rows))

    def _scores(self, text: list[int]) -> Tensor:
        """The scores (V) after the text, of which only what is new is read."""
        if self._cache is None:
            self._cache = ContiguousCache.for_model(self.model, 1, self.model.context)
        common = 0
        for known, wanted in zip(self._read, text[:-1], strict=False):
            if known != wanted:
                break
            common += 1
        self._cache.truncate(common)
        fresh = torch.tensor([text[common:]], device=device_of(self.model))
        scores_V = last_logits(self.model, fresh, self._cache, None)[0]
        self._read = list(text)
        return scores_V


class Speculation:
    """Writes texts with a model and a draft.

    Args:
        count: tokens guessed at a time, at most.

    Attributes:
        guessed, kept: tokens guessed by the draft so far, and how many of them became text.
        passes: passes through the model that wrote text.
        finish: how the last text ended, "stop" or "length"; None while it is being written.

    Raises:
        UserError: draft and model have different vocabularies.
    """

    def __init__(self, model: Decoder, draft: Draft, *, count: int = 5):
        if count < 1:
            raise ValueError(f"count must be at least 1, got {count}")
        other = draft.model.vocab_size if isinstance(draft, DraftModel) else model.vocab_size
        if other != model.vocab_size:
            raise UserError(
                "draft and model have different vocabularies",
                expected=f"{model.vocab_size} tokens",
                got=f"{other}",
                fix="Take a draft that was trained with the same tokenizer",
            )
        self.model, self.draft, self.count = model.eval(), draft, count
        self.guessed = self.kept = self.passes = 0
        self.finish: Finish | None = None

    def stream(
        self,
        ids: Sequence[int],
        *,
        max_new_tokens: int = 128,
        sampling: SamplingSpec = GREEDY,
        stop_ids: Collection[int] = (),
        request: int = 0,
    ) -> Iterator[WrittenToken]:
        """Continues `ids`; greedily the same tokens as `generate` gives, else tokens of the same distribution.

        (With a seed the draws are repeatable, but they are other draws than those of `generate`.)

        Raises:
            UserError: the prompt is empty or longer than the model's context; the model can't be cached.
        """
        check_prompts(self.model, [ids], max_new_tokens)
        return self._stream(list(ids), max_new_tokens, sampling, frozenset(stop_ids), request)

    def _stream(
        self, ids: list[int], max_new_tokens: int, sampling: SamplingSpec, stop_ids: frozenset[int], request: int
    ) -> Iterator[WrittenToken]:
        self.finish = None
        end = len(ids) + room_for(self.model, len(ids), max_new_tokens)
        cache = ContiguousCache.for_model(self.model, 1, max(end, len(ids)))
        draws = uniforms(sampling.seed, request)
        with torch.inference_mode():
            for start in range(0, len(ids) - 1, CHUNK):
                self._hidden(ids[start : min(start + CHUNK, len(ids) - 1)], cache)
        while len(ids) < end:
            with torch.inference_mode():
                written = self._round(ids, end - len(ids), cache, sampling, draws)
            for token in written:
                if token.id in stop_ids:
                    self.finish = "stop"
                    return
                ids.append(token.id)
                if len(ids) == end:
                    self.finish = "length"
                yield token
            cache.truncate(len(ids) - 1)
        self.finish = "length"

    def _round(
        self, ids: list[int], room: int, cache: ContiguousCache, sampling: SamplingSpec, draws: Iterator[float]
    ) -> list[WrittenToken]:
        """One pass of the model: the guesses that hold, and one token more."""
        most = min(self.count, room - 1)
        guess = self.draft.guess(ids, most, sampling, draws) if most else Guess()
        hidden_1TD = self._hidden([ids[-1], *guess.ids], cache)
        logits_TV = self.model.unembed(hidden_1TD)[0]
        chances_TV = distribution(logits_TV, sampling)
        written = []
        for place, guessed in enumerate(guess.ids):
            model_V = chances_TV[place]
            draft_V = torch.zeros_like(model_V) if guess.chances_NV is None else guess.chances_NV[place]
            if guess.chances_NV is None:
                draft_V[guessed] = 1.0
            # A guess is kept with probability min(1, p / q); what that gives too little of fills the gap it leaves.
            if next(draws) * float(draft_V[guessed]) < float(model_V[guessed]):
                written.append(guessed)
                continue
            written.append(_draw((model_V - draft_V).clamp_(min=0), next(draws)))
            break
        else:
            written.append(_draw(chances_TV[-1], next(draws)))
        self.passes += 1
        self.guessed += len(guess.ids)
        self.kept += len(written) - 1
        logprobs_TV = logits_TV[: len(written)].float().log_softmax(dim=-1)
        return [WrittenToken(id=id, logprob=float(logprobs_TV[place, id])) for place, id in enumerate(written)]

    def _hidden(self, ids: Sequence[int], cache: ContiguousCache) -> Tensor:
        return self.model.hidden(torch.tensor([ids], device=device_of(self.model)), cache=cache)


def _draw(weights_V: Tensor, uniform: float) -> int:
    return int(draw(weights_V[None], torch.tensor([uniform], dtype=weights_V.dtype, device=weights_V.device)))
