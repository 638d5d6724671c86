"""Questions of one and of two hops about a cycle that is written in the context.

A sequence lists who points to whom on a random cycle of symbols, ``; a b ; d a ; b c …`` in random order, and then asks
from random starts: ``1 a`` wants b, where a points to; ``2 a`` wants c, where b points to.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from underhood.data.batch import IGNORE
from underhood.inspect.lens import read_out
from underhood.models.decoder import Decoder
from underhood.path.lib.residual_streams import residual_streams

SYMBOLS = 6
SEPARATOR, ONE_HOP, TWO_HOPS = SYMBOLS, SYMBOLS + 1, SYMBOLS + 2
VOCABULARY = SYMBOLS + 3
QUESTIONS = 6
LENGTH = 3 * (SYMBOLS + QUESTIONS) - 1


@dataclass(frozen=True)
class Hops:
    """Sequences with their answers.

    Attributes:
        tokens: (N, T).
        targets: the answer at each question's symbol, elsewhere `IGNORE`, (N, T).
        between: the symbol between start and answer of a question of two hops, elsewhere `IGNORE`, (N, T).
    """

    tokens: Int[Tensor, "N T"]
    targets: Int[Tensor, "N T"]
    between: Int[Tensor, "N T"]


def hop_questions(count: int, generator: torch.Generator) -> Hops:
    """Random sequences."""
    cycle_NS = torch.rand(count, SYMBOLS, generator=generator).argsort(dim=1)
    points_to_NS = torch.empty_like(cycle_NS).scatter_(1, cycle_NS, cycle_NS.roll(-1, dims=1))
    shown_NS = torch.rand(count, SYMBOLS, generator=generator).argsort(dim=1)
    pairs = [torch.full_like(shown_NS, SEPARATOR), shown_NS, points_to_NS.gather(1, shown_NS)]
    start_NQ = torch.randint(SYMBOLS, (count, QUESTIONS), generator=generator)
    hops_NQ = torch.randint(ONE_HOP, TWO_HOPS + 1, (count, QUESTIONS), generator=generator)
    next_NQ = points_to_NS.gather(1, start_NQ)
    two_NQ = hops_NQ == TWO_HOPS
    answer_NQ = torch.where(two_NQ, points_to_NS.gather(1, next_NQ), next_NQ)
    questions = [hops_NQ, start_NQ, answer_NQ]
    tokens_NT = torch.cat([torch.stack(columns, dim=2).flatten(1) for columns in (pairs, questions)], dim=1)[:, :-1]
    targets_NT, between_NT = torch.full((2, *tokens_NT.shape), IGNORE)
    at = 3 * (SYMBOLS + torch.arange(QUESTIONS)) + 1
    targets_NT[:, at] = answer_NQ
    between_NT[:, at] = torch.where(two_NQ, next_NQ, IGNORE)
    return Hops(tokens_NT, targets_NT, between_NT)


def lens_of_answers(model: Decoder, hops: Hops) -> tuple[Int[Tensor, "L1 M"], Int[Tensor, "M"], Int[Tensor, "M"]]:
    """What each residual stream would answer to all M questions, the right answers, and what is between."""
    asked_NT = hops.targets != IGNORE
    streams = residual_streams(model, hops.tokens)[:, asked_NT]
    return torch.stack([_lens(model, x) for x in streams]), hops.targets[asked_NT], hops.between[asked_NT]


@torch.no_grad()
def _lens(model: Decoder, x_MD: Float[Tensor, "M D"]) -> Int[Tensor, "M"]:
    return read_out(model, x_MD).argmax(dim=-1)


def settled_layer(named_LM: Int[Tensor, "L1 M"], wanted_M: Int[Tensor, "M"]) -> Int[Tensor, "M"]:
    """The first stream from which on the lens always shows the wanted token; L + 1 if the last does not."""
    wrong_LM = named_LM != wanted_M
    layers = torch.arange(1, len(named_LM) + 1)[:, None]
    return (wrong_LM * layers).amax(dim=0)
