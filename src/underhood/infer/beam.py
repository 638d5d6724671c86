"""Beam search: the likeliest whole text, as far as keeping the best few beginnings can find it.

Greedy search never looks back; here several beginnings go on side by side, and a weaker first token may win by what it
leads to. For open-ended writing the likeliest text is dull (Holtzman et al. 2020); for translations and other tasks
with one right answer it is what one wants.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from underhood.core.errors import UserError
from underhood.core.protocols import LanguageModel
from underhood.infer.decode import NextTokens, decode
from underhood.infer.generate import Completion
from underhood.infer.request import check_prompts, room_for
from underhood.infer.sequence_runner import SequenceRunner


@dataclass
class Hypothesis(Completion):
    """A text that beam search found.

    Attributes:
        score: its log-probability, with the stop token's, divided by its length to the power of the length penalty.
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
    *,
    beams: int = 4,
    n: int = 1,
    max_new_tokens: int = 128,
    length_penalty: float = 1.0,
    early_stop: bool = False,
    stop_ids: Collection[int] = (),
    cache: bool = True,
) -> list[Hypothesis]:
    """The `n` best texts found with `beams` beginnings at a time, best first.

    A text that ends competes only if it is among the best `beams` of its step, as in Hugging Face's search, whose
    options `early_stopping` = True and "never" are `early_stop` True and False here.

    Args:
        length_penalty: the power of the length (stop token included) that a log-probability is divided by: 0 compares
            whole texts, which favours short ones; 1 compares means per token (Wu et al. 2016 discuss the choice).
        early_stop: True ends the search when `beams` texts have ended; False when no beginning can overtake the worst
            of the best `beams` texts any more.
        cache: False reads the whole text again for every token.

    Raises:
        UserError: a prompt that is empty or longer than the context, or more texts wanted than beams.
    """
    check_prompts(model, [prompt], max_new_tokens)
    if not 1 <= n <= beams:
        got = f"{beams} beams, n = {n}"
        raise UserError("the number of beams is out of range", expected="at least 1, and n from 1 to it", got=got)
    room = room_for(model, len(prompt), max_new_tokens)
    search = _BeamSearch(prompt, beams, room, length_penalty, early_stop, frozenset(stop_ids))
    if room > 0:
        for _ in decode(SequenceRunner(model, capacity=len(prompt) + room, use_cache=cache), search):
            pass
    return search.done[:n]


class _BeamSearch:
    """The search as a decoding strategy: every row of the batch holds one beginning."""

    def __init__(
        self,
        prompt: Sequence[int],
        beams: int,
        room: int,
        length_penalty: float,
        early_stop: bool,
        stops: frozenset[int],
    ):
        self.next: NextTokens | None = None
        self.done: list[Hypothesis] = []
        self._prompt, self._beams, self._room = list(prompt), beams, room
        self._length_penalty, self._early_stop, self._stops = length_penalty, early_stop, stops
        self._live = [_Beam([], [], 0.0)]
        self._length = 0

    def prompts(self) -> tuple[list[list[int]], int]:
        """See `DecodingStrategy`."""
        return [self._prompt], 1

    def choose(self, logits_NV: Tensor, runner: SequenceRunner) -> tuple[()]:
        """See `DecodingStrategy`."""
        self._length += 1
        length, beams = self._length, self._beams
        candidates = _best(logits_NV.float().log_softmax(dim=-1), self._live, (len(self._stops) + 1) * beams)
        onward: list[tuple[int, _Beam]] = []
        for rank, (parent, token, logprob, total) in enumerate(candidates):
            beam, ends = self._live[parent], token in self._stops
            if ends or length == self._room:
                if rank < beams:
                    ids, logprobs = ([], []) if ends else ([token], [logprob])
                    self.done.append(
                        Hypothesis(
                            ids=beam.ids + ids,
                            finish="stop" if ends else "length",
                            logprobs=beam.logprobs + logprobs,
                            stop_id=token if ends else None,
                            score=total / length**self._length_penalty,
                        )
                    )
            elif len(onward) < beams:
                onward.append((parent, _Beam([*beam.ids, token], [*beam.logprobs, logprob], total)))
        self.done = sorted(self.done, key=lambda hypothesis: -hypothesis.score)[:beams]
        self._live = [beam for _, beam in onward]
        tokens = [[beam.ids[-1]] for beam in self._live]
        over = not onward or (len(self.done) == beams and (self._early_stop or self._hopeless()))
        self.next = None if over else NextTokens(tokens, parents=[parent for parent, _ in onward])
        return ()

    def _hopeless(self) -> bool:
        """Whether no beginning can still overtake: it can at best lose nothing, at the length that suits it most.

        A longer text has a greater divisor, which helps a negative number when the power is positive.
        """
        best_length = self._room if self._length_penalty > 0 else self._length + 1
        best_total = max(beam.total for beam in self._live)
        return best_total / best_length**self._length_penalty <= self.done[-1].score


def _best(logprobs_BV: Tensor, live: list[_Beam], count: int) -> list[tuple[int, int, float, float]]:
    """The likeliest continuations of all beams, best first: (beam, token, its log-probability, that of the text)."""
    totals_B = torch.tensor([beam.total for beam in live], dtype=torch.float64).to(logprobs_BV.device)
    totals_BV = logprobs_BV + totals_B[:, None]
    best_N = totals_BV.flatten().topk(min(count, totals_BV.numel()))
    continuations = []
    for index, total in zip(best_N.indices.tolist(), best_N.values.tolist(), strict=True):
        parent, token = divmod(index, totals_BV.shape[-1])
        continuations.append((parent, token, total - live[parent].total, total))
    return continuations
