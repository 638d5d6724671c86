"""Beam search: the likeliest whole text, as far as keeping the best few beginnings can find it.

Greedy search never looks back; here several beginnings go on side by side, and a weaker first token may win by what it
leads to. For open-ended writing the likeliest text is dull (Holtzman et al. 2020); for translations and other tasks
with one right answer it is what one wants.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from underhood.core.errors import UserError
from underhood.core.protocols import LanguageModel
from underhood.infer.decode import NextTokens, decode
from underhood.infer.generate import Completion
from underhood.infer.request import check_prompts, room_for
from underhood.infer.sequence_runner import SequenceRunner

Penalty = Literal["power", "gnmt"]
StopRule = Literal["full", "likely", "certain"]


@dataclass(frozen=True, kw_only=True)
class BeamSpec:
    """How to search.

    Attributes:
        beams: beginnings kept at a time, and the most texts that compete at the end.
        length_penalty: α. A log-probability is divided by ``l^α`` for l tokens, the stop token included: 0 compares
            whole texts, which favours short ones; 1 compares means per token.
        penalty: the divisor: ``power`` is ``l^α``; ``gnmt`` is ``((5 + l) / 6)^α``, gentler for short texts
            (Wu et al. 2016, equation 14).
        stop: when the search ends, other than where no beginning is left. ``full``: once `beams` texts have ended.
            ``likely``: once no beginning would be better, at the length it has now, than the worst of the best `beams`
            texts. ``certain``: once none can be at any length, bounded by α and the room that is left. In Hugging
            Face's search these are `early_stopping` = True, False and "never".
    """

    beams: int = 4
    length_penalty: float = 1.0
    penalty: Penalty = "power"
    stop: StopRule = "certain"

    def __post_init__(self):
        if self.beams < 1:
            raise ValueError(f"beams must be at least 1, got {self.beams}")
        if not math.isfinite(self.length_penalty):
            raise ValueError(f"length_penalty must be a number, got {self.length_penalty}")

    def score(self, logprob: float, length: int) -> float:
        """What texts are compared by."""
        base = length if self.penalty == "power" else (5 + length) / 6
        return logprob / base**self.length_penalty

    def best_score(self, logprob: float, length: int, room: int) -> float:
        """A bound for the score of what a beginning of `length` tokens can become within `room` tokens in all.

        At best it loses no more probability, at the length that suits it most. A longer text has a greater divisor,
        which helps a negative number when α is positive.
        """
        return self.score(logprob, room if self.length_penalty > 0 else length + 1)


@dataclass
class Hypothesis(Completion):
    """A text that beam search found.

    Attributes:
        score: its log-probability, with the stop token's, divided by the length penalty.
    """

    score: float = -math.inf


@dataclass
class _Beam:
    """A beginning that may still be continued."""

    ids: list[int]
    logprobs: list[float]
    total: float


def beam_search(
    model: LanguageModel,
    prompt: Sequence[int],
    spec: BeamSpec = BeamSpec(),
    *,
    n: int = 1,
    max_new_tokens: int = 128,
    stop_ids: Collection[int] = (),
    cache: bool = True,
) -> list[Hypothesis]:
    """The `n` best texts after one prompt, best first (see `beam_search_batch`)."""
    options = {"n": n, "max_new_tokens": max_new_tokens, "stop_ids": stop_ids, "cache": cache}
    return beam_search_batch(model, [prompt], spec, **options)[0]  # type: ignore[arg-type]


def beam_search_batch(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    spec: BeamSpec = BeamSpec(),
    *,
    n: int = 1,
    max_new_tokens: int = 128,
    stop_ids: Collection[int] = (),
    cache: bool = True,
) -> list[list[Hypothesis]]:
    """For each prompt the `n` best texts found with `spec.beams` beginnings at a time, best first.

    A text that ends competes only if it is among the best `spec.beams` of its step, as in Hugging Face's search. All
    prompts are searched side by side; what one gets does not depend on the others.

    Args:
        cache: False reads the whole text again for every token.

    Raises:
        UserError: a prompt that is empty or longer than the context, or more texts wanted than beams.
    """
    check_prompts(model, prompts, max_new_tokens)
    if not 1 <= n <= spec.beams:
        got = f"{spec.beams} beams, n = {n}"
        raise UserError("the number of beams is out of range", expected="at least 1, and n from 1 to it", got=got)
    rooms = [room_for(model, len(prompt), max_new_tokens) for prompt in prompts]
    searches = [_Search(spec, room, frozenset(stop_ids)) for room in rooms]
    if min(rooms, default=0) > 0:
        capacity = max(map(len, prompts)) + max(rooms)
        runner = SequenceRunner(model, capacity=capacity, batch=len(prompts), use_cache=cache)
        for _ in decode(runner, _BeamSearch(prompts, searches)):
            pass
    return [search.done[:n] for search in searches]


class _BeamSearch:
    """Beam search as a decoding strategy: every row of the batch holds one beginning, those of a prompt together."""

    def __init__(self, prompts: Sequence[Sequence[int]], searches: Sequence["_Search"]):
        self.next: NextTokens | None = None
        self._prompts, self._searches = prompts, list(searches)

    def prompts(self) -> tuple[Sequence[Sequence[int]], int]:
        """See `DecodingStrategy`."""
        return self._prompts, 1

    def choose(self, logits_NV: Tensor, runner: SequenceRunner) -> tuple[()]:
        """See `DecodingStrategy`."""
        tokens: list[list[int]] = []
        parents: list[int] = []
        first = 0
        continuations = _best_of_each(logits_NV.float().log_softmax(dim=-1), self._searches)
        for search, candidates in zip(self._searches, continuations, strict=True):
            rows = len(search.live)
            for parent in search.advance(candidates):
                parents.append(first + parent)
            tokens += [[beam.ids[-1]] for beam in search.live]
            first += rows
        self._searches = [search for search in self._searches if search.live]
        self.next = NextTokens(tokens, parents=parents) if tokens else None
        return ()


class _Search:
    """The search after one prompt.

    Attributes:
        live: beginnings that may still be continued; none when the search is over.
        done: the best texts that have ended, best first.
        wanted: candidates to choose from in each step, so that enough go on even if many end.
    """

    def __init__(self, spec: BeamSpec, room: int, stops: frozenset[int]):
        self.live = [_Beam([], [], 0.0)]
        self.done: list[Hypothesis] = []
        self.wanted = (len(stops) + 1) * spec.beams
        self._spec, self._room, self._stops, self._length = spec, room, stops, 0

    def advance(self, candidates: Sequence[tuple[int, int, float, float]]) -> list[int]:
        """Takes a step; returns which beginning each of the new `live` continues.

        Args:
            candidates: the likeliest continuations, best first: (beam, token, its log-probability, that of the text).
        """
        self._length += 1
        length, beams = self._length, self._spec.beams
        onward: list[tuple[int, _Beam]] = []
        for rank, (parent, token, logprob, total) in enumerate(candidates):
            beam, ends = self.live[parent], token in self._stops
            if ends or length == self._room:
                if rank < beams:
                    ids, logprobs = ([], []) if ends else ([token], [logprob])
                    self.done.append(
                        Hypothesis(
                            ids=beam.ids + ids,
                            finish="stop" if ends else "length",
                            logprobs=beam.logprobs + logprobs,
                            stop_id=token if ends else None,
                            score=self._spec.score(total, length),
                        )
                    )
            elif len(onward) < beams:
                onward.append((parent, _Beam([*beam.ids, token], [*beam.logprobs, logprob], total)))
        self.done = sorted(self.done, key=lambda hypothesis: -hypothesis.score)[:beams]
        self.live = [beam for _, beam in onward]
        if self.live and len(self.done) == beams and self._over():
            self.live = []
        return [parent for parent, _ in onward] if self.live else []

    def _over(self) -> bool:
        if self._spec.stop == "full":
            return True
        best_total = max(beam.total for beam in self.live)
        if self._spec.stop == "likely":
            best = self._spec.score(best_total, self._length)
        else:
            best = self._spec.best_score(best_total, self._length, self._room)
        return best <= self.done[-1].score


def _best_of_each(logprobs_NV: Tensor, searches: Sequence[_Search]) -> list[list[tuple[int, int, float, float]]]:
    """For each search the likeliest continuations of all its beams (see `_Search.advance`)."""
    vocab_size, counts = logprobs_NV.shape[-1], [len(search.live) for search in searches]
    totals_N = torch.tensor([beam.total for search in searches for beam in search.live], dtype=torch.float64)
    totals_NV = logprobs_NV + totals_N.to(logprobs_NV.device)[:, None]
    even = len({*counts}) == 1
    blocks = [totals_NV.view(len(searches), -1)] if even else [block.view(1, -1) for block in totals_NV.split(counts)]
    best = [block.topk(min(searches[0].wanted, block.shape[-1])) for block in blocks]
    indices = [row for pair in best for row in pair.indices.tolist()]
    values = [row for pair in best for row in pair.values.tolist()]
    continuations = []
    for search, flat_indices, totals in zip(searches, indices, values, strict=True):
        mine = []
        for index, total in zip(flat_indices, totals, strict=True):
            parent, token = divmod(index, vocab_size)
            mine.append((parent, token, total - search.live[parent].total, total))
        continuations.append(mine)
    return continuations
