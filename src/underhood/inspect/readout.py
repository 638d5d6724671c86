"""Reading out a residual stream: the next-token distribution that the model's end gives it, without all its scores.

The scores of many streams over a large vocabulary are hundreds of megabytes. They are worked out a slice of the
vocabulary at a time, and a few numbers are kept: the likeliest tokens, the normaliser and the entropy (by the running
maximum of Milakov and Gimelshein 2018), and how many tokens are likelier than a given one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from underhood.infer.cache import device_of
from underhood.models.decoder import Decoder
from underhood.nn.softcap import SoftcappedLinear, apply_softcap

SLICE = 4096
"""Tokens of the vocabulary at a time: their scores for a hundred streams stay in a processor's cache.

Twice as many are as fast but take 60 MB more, since matrix products copy the slice.
"""

STREAMS = 32
"""Streams at a time where the unembedding can't be cut."""

GROUP = 64
"""Scores of which only the largest is compared first when the likeliest tokens are looked for."""


@dataclass(frozen=True)
class Readout:
    """What the model's end says about N residual streams.

    Attributes:
        ids: the k likeliest ids.
        logprobs: theirs, natural logarithms.
        entropy: of the whole distribution, in nats.
        ranks: of the followed ids, from 1; None where none were given.
    """

    ids: Int[Tensor, "N k"]
    logprobs: Float[Tensor, "N k"]
    entropy: Float[Tensor, "N"]
    ranks: Int[Tensor, "N"] | None


@torch.no_grad()
def read_top(
    model: Decoder, stream: Float[Tensor, "N D"], k: int, *, followed: Int[Tensor, "N"] | None = None
) -> Readout:
    """The `k` likeliest next tokens of each residual stream, the entropy, and the rank of one followed id of each.

    Args:
        stream: before the final norm, which is applied with the stream's own statistics.
    """
    if not _sliceable(model) and len(stream) > STREAMS:
        pieces = [
            read_top(
                model, stream[at : at + STREAMS], k, followed=None if followed is None else followed[at : at + STREAMS]
            )
            for at in range(0, len(stream), STREAMS)
        ]
        ranks = [piece.ranks for piece in pieces if piece.ranks is not None]
        return Readout(
            ids=torch.cat([piece.ids for piece in pieces]),
            logprobs=torch.cat([piece.logprobs for piece in pieces]),
            entropy=torch.cat([piece.entropy for piece in pieces]),
            ranks=torch.cat(ranks) if ranks else None,
        )
    hidden_ND = model.norm(stream.to(device_of(model)))
    limit = model.vocab_size if model.token_count is None else model.token_count
    followed = None if followed is None else followed.to(hidden_ND.device)
    followed_N1 = None if followed is None else _scores_of(model, hidden_ND, followed)[:, None]
    count = len(hidden_ND)
    highest_N = hidden_ND.new_full((count,), -torch.inf, dtype=torch.float32)
    total_N, weighted_N, above_N = (torch.zeros_like(highest_N) for _ in range(3))
    best = highest_N[:, None][:, :0], torch.zeros((count, 0), dtype=torch.long, device=hidden_ND.device)
    for start, scores_NV in _slices(model, hidden_ND, limit):
        values_Nk, indices_Nk = top_scores(scores_NV, k)
        values, ids = torch.cat([best[0], values_Nk], dim=1), torch.cat([best[1], indices_Nk + start], dim=1)
        kept_Nk, order_Nk = values.topk(min(k, values.shape[1]), dim=1)
        best = kept_Nk, ids.gather(1, order_Nk)
        if followed is not None and followed_N1 is not None:
            inside_N = ((followed >= start) & (followed < start + scores_NV.shape[1])).nonzero()[:, 0]
            scores_NV[inside_N, followed[inside_N] - start] = followed_N1[inside_N, 0]  # equal, but for rounding
            above_N += torch.gt(scores_NV, followed_N1, out=torch.empty_like(scores_NV)).sum(dim=1)
        raised_N = torch.maximum(highest_N, values_Nk[:, 0])
        shrunk_N = (highest_N - raised_N).exp()
        scores_NV -= raised_N[:, None]
        exp_NV = scores_NV.exp()
        moved_N = torch.where(total_N > 0, highest_N - raised_N, 0.0)  # at first −∞, with nothing to move
        weighted_N = shrunk_N * (weighted_N + moved_N * total_N) + (exp_NV * scores_NV).sum(dim=1)
        total_N = shrunk_N * total_N + exp_NV.sum(dim=1)
        highest_N = raised_N
    log_total_N = total_N.log()
    return Readout(
        ids=best[1].cpu(),
        logprobs=(best[0] - (highest_N + log_total_N)[:, None]).cpu(),
        entropy=(log_total_N - weighted_N / total_N).cpu(),
        ranks=None if followed is None else (above_N + 1).long().cpu(),
    )


def top_scores(scores: Float[Tensor, "N V"], k: int) -> tuple[Float[Tensor, "N k"], Int[Tensor, "N k"]]:
    """`torch.topk` of each row, several times as fast where k is small: the k largest lie in the k groups with the
    largest maxima."""
    count, size = scores.shape
    groups = size // GROUP
    if k >= groups:
        return scores.topk(min(k, size), dim=1)
    whole = groups * GROUP
    maxima_NG = scores[:, :whole].unflatten(1, (groups, GROUP)).amax(dim=2)
    chosen_Nk = maxima_NG.topk(k, dim=1).indices
    places = (chosen_Nk[:, :, None] * GROUP + torch.arange(GROUP, device=scores.device)).flatten(1)
    rest = torch.arange(whole, size, device=scores.device).expand(count, -1)
    places = torch.cat([places, rest], dim=1)
    values, order = scores.gather(1, places).topk(k, dim=1)
    return values, places.gather(1, order)


def _slices(model: Decoder, hidden_ND: Tensor, limit: int) -> Iterator[tuple[int, Tensor]]:
    """The scores of a slice of the vocabulary after another, in fp32."""
    unembed = model.unembed
    if not _sliceable(model):
        yield 0, unembed(hidden_ND).float()[:, :limit].clone()
        return
    for start in range(0, limit, SLICE):
        scores_NV = F.linear(hidden_ND, unembed.weight[start : min(start + SLICE, limit)]).float()
        yield start, apply_softcap(scores_NV, unembed.cap) if isinstance(unembed, SoftcappedLinear) else scores_NV


def _scores_of(model: Decoder, hidden_ND: Tensor, ids_N: Tensor) -> Tensor:
    """The score of one id of each stream."""
    unembed = model.unembed
    if not _sliceable(model):
        return unembed(hidden_ND).float().gather(1, ids_N[:, None])[:, 0]
    scores_N = (hidden_ND * unembed.weight[ids_N]).sum(dim=1).float()
    return apply_softcap(scores_N, unembed.cap) if isinstance(unembed, SoftcappedLinear) else scores_N


def _sliceable(model: Decoder) -> bool:
    """Whether the unembedding is a matrix that can be cut; packed weights are read whole."""
    return isinstance(model.unembed, nn.Linear | SoftcappedLinear)
