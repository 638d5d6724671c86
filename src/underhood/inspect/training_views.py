"""Views for `through_training`: the lens, the rank of a token, attention patterns and scores at one checkpoint each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from underhood.infer.load import LoadedModel
from underhood.inspect.induction import InductionScores, induction_scores
from underhood.inspect.lens import Lens, logit_lens, read_logprobs, read_out
from underhood.inspect.probes import ProbeResult, probe_layers
from underhood.inspect.through_training import TraceView
from underhood.inspect.trace import Trace, checked_position


def lens_view(positions: Sequence[int] = (-1,), *, k: int = 5) -> TraceView[Lens]:
    """The logit lens of some positions; see `inspect.lens.logit_lens`."""
    return TraceView(("residual",), lambda loaded, trace: logit_lens(loaded, trace, positions=positions, k=k))


def rank_view(token: int, *, position: int = -1) -> TraceView[Tensor]:
    """The rank of a token in every layer's prediction after one position, (L + 1), from 1.

    Args:
        token: an id.
    """

    @torch.no_grad()
    def ranks(loaded: LoadedModel, trace: Trace) -> Tensor:
        logits_LV = read_out(loaded.decoder, trace.layers("residual")[:, checked_position(position, len(trace.ids))])
        return (logits_LV > logits_LV[:, [token]]).sum(dim=-1) + 1

    return TraceView(("residual",), ranks)


def probability_view(tokens: Sequence[int], *, position: int = -1) -> TraceView[Tensor]:
    """The log-probabilities of some tokens after one position, (N), in nats.

    Log-probabilities, since raw scores of two models may differ by a constant that means nothing.

    Args:
        tokens: ids.
    """

    def logprobs(loaded: LoadedModel, trace: Trace) -> Tensor:
        return logprobs_of(loaded, trace)[checked_position(position, len(trace.ids)), list(tokens)]

    return TraceView(("residual",), logprobs)


def loss_view() -> TraceView[Tensor]:
    """The surprise at each token of the prompt but the first, in nats, (T - 1)."""

    def losses(loaded: LoadedModel, trace: Trace) -> Tensor:
        following_T = torch.tensor(trace.ids[1:], dtype=torch.long)
        return -logprobs_of(loaded, trace)[:-1].gather(1, following_T[:, None])[:, 0]

    return TraceView(("residual",), losses)


def pattern_view(heads: Sequence[tuple[int, int]]) -> TraceView[Tensor]:
    """Attention patterns of some heads, (H, T, T).

    Args:
        heads: layer and head of each.
    """
    layers = sorted({layer for layer, _ in heads})
    sites = tuple(f"{kind}.{layer}" for layer in layers for kind in ("query", "key"))
    return TraceView(sites, lambda _, trace: torch.cat([trace.pattern(layer, [head]) for layer, head in heads]))


def induction_view(*, length: int = 50, seed: int = 0) -> TraceView[InductionScores]:
    """The induction scores of all heads; the prompt plays no part. See `inspect.induction.induction_scores`.

    Args:
        length: random tokens that are repeated; fewer where the context is too short for them.
    """

    def scores(loaded: LoadedModel, _: Trace) -> InductionScores:
        room = (loaded.decoder.context_length - len(loaded.prompt_ids(""))) // 2
        return induction_scores(loaded, length=min(length, room), seed=seed)

    return TraceView((), scores)


def probe_view(
    windows: Sequence[Sequence[int]], labels: Sequence[Sequence[int | None]], *, sites: Sequence[str] = ("residual",)
) -> TraceView[list[ProbeResult]]:
    """The accuracy of linear probes, trained anew at every checkpoint; the prompt plays no part.

    The first checkpoint of a build is untrained: it is the arm that the others are compared with.

    Args:
        windows, labels, sites: see `inspect.probes.probe_layers`.
    """
    return TraceView((), lambda loaded, _: probe_layers(loaded, windows, labels, sites=sites, untrained=False))


def logits_view() -> TraceView[Tensor]:
    """The scores of the next token after every position, (T, V)."""
    return TraceView(("logits",), lambda _, trace: trace["logits"].float())


@torch.no_grad()
def logprobs_of(loaded: LoadedModel, trace: Trace) -> Tensor:
    """Log-probabilities of the next token after every position, (T, V), from the last residual stream."""
    last_TD = trace[f"residual.{len(loaded.decoder.blocks)}"]
    return read_logprobs(loaded.decoder, last_TD)
