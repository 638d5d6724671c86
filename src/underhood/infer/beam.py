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
from torch import Tensor, nn

from underhood.core.errors import UserError
from underhood.core.protocols import LanguageModel
from underhood.infer.cache import ContiguousCache
from underhood.infer.generate import Completion, check_prompts, device_of, last_logits, new_cache, room_for


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


@torch.inference_mode()
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
    if isinstance(model, nn.Module):
        model.eval()
    room, stops = room_for(model, len(prompt), max_new_tokens), frozenset(stop_ids)
    tokens_BT = torch.tensor([list(prompt)], device=device_of(model))
    store = new_cache(model, 1, len(prompt) + room) if cache and room > 0 else None
    live, done = [_Beam([], [], 0.0)], list[Hypothesis]()
    for length in range(1, room + 1):
        logprobs_BV = last_logits(model, tokens_BT, store, None).float().log_softmax(dim=-1)
        candidates = _best(logprobs_BV, live, (len(stops) + 1) * beams)
        onward: list[tuple[int, _Beam]] = []
        for rank, (parent, token, logprob, total) in enumerate(candidates):
            beam, ends = live[parent], token in stops
            if ends or length == room:
                if rank < beams:
                    kept = ([], []) if ends else ([token], [logprob])
                    done.append(
                        Hypothesis(
                            ids=beam.ids + kept[0],
                            finish="stop" if ends else "length",
                            logprobs=beam.logprobs + kept[1],
                            stop_id=token if ends else None,
                            score=total / length**length_penalty,
                        )
                    )
            elif len(onward) < beams:
                onward.append((parent, _Beam([*beam.ids, token], [*beam.logprobs, logprob], total)))
        done = sorted(done, key=lambda one: -one.score)[:beams]
        if not onward or (len(done) == beams and (early_stop or _hopeless(onward, done, length, room, length_penalty))):
            break
        parents, live = [parent for parent, _ in onward], [beam for _, beam in onward]
        newest_B1 = torch.tensor([[beam.ids[-1]] for beam in live], device=tokens_BT.device)
        if store is None:
            tokens_BT = torch.cat((tokens_BT[torch.tensor(parents, device=tokens_BT.device)], newest_B1), dim=1)
        else:
            store, tokens_BT = _follow(store, parents), newest_B1
    return done[:n]


def _best(logprobs_BV: Tensor, live: list[_Beam], count: int) -> list[tuple[int, int, float, float]]:
    """The likeliest continuations of all beams, best first: (beam, token, its log-probability, that of the text)."""
    totals_B = torch.tensor([beam.total for beam in live], dtype=torch.float64).to(logprobs_BV.device)
    totals_BV = logprobs_BV + totals_B[:, None]
    best_N = totals_BV.flatten().topk(min(count, totals_BV.numel()))
    found = []
    for place, total in zip(best_N.indices.tolist(), best_N.values.tolist(), strict=True):
        parent, token = divmod(place, totals_BV.shape[-1])
        found.append((parent, token, total - live[parent].total, total))
    return found


def _hopeless(
    onward: list[tuple[int, _Beam]], done: list[Hypothesis], length: int, room: int, length_penalty: float
) -> bool:
    """Whether no beginning can still overtake: it can at best lose nothing, and end at the length that suits it most.

    A longer text has a greater divisor, which helps a negative number when the power is positive.
    """
    best_length = room if length_penalty > 0 else length + 1
    return max(beam.total for _, beam in onward) / best_length**length_penalty <= done[-1].score


def _follow(store: ContiguousCache, parents: list[int]) -> ContiguousCache:
    """The cache in which every row holds its beam's parent."""
    if store.batch < len(parents):  # there was one row at first
        return store.spread(parents)
    store.select(parents)
    return store
