"""Log-probabilities of tokens over a large vocabulary, without keeping more logits than fit.

A preference loss needs the log-probability of every answer token before it knows how much each of them counts, so the
trick of `train.chunked`, to differentiate a slice at once, is open to it only in part: softmax − onehot can be worked
out at once, in the memory of the scores, but is to be scaled by a factor that comes later. Up to `KEPT_VALUES` scores
are kept so; beyond that the backward pass unembeds slice by slice again, as fused heads do, for a third more products.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from underhood.train.chunked import FEWEST_ROWS, SLICE_VALUES
from underhood.train.cross_entropy import token_nll_in_place

KEPT_VALUES = 1 << 25
"""Scores that are kept until the backward pass: 128 MB in fp32."""


def unembedded_log_probs(
    hidden_ND: Float[Tensor, "N D"],
    unembed: nn.Module,
    targets_N: Int[Tensor, "N"],
    *,
    vocab_size: int,
    kept_values: int = KEPT_VALUES,
) -> Float[Tensor, "N"]:
    """log softmax(unembed(hidden))[target] of each position in nats, in fp32 or better.

    Args:
        unembed: scores from hidden states, position by position: nothing may mix positions.
        kept_values: scores to keep until the backward pass; those of the last positions are worked out again.
    """
    learning = torch.is_grad_enabled()
    trained = [parameter for parameter in unembed.parameters() if parameter.requires_grad and learning]
    rows = max(FEWEST_ROWS, SLICE_VALUES // vocab_size)
    kept = kept_values // vocab_size if learning else 0
    return _LogProbs.apply(hidden_ND, targets_N, unembed, rows, kept, *trained)  # type: ignore[return-value]


class _LogProbs(torch.autograd.Function):
    """Log-probabilities whose slices of scores are kept as their gradients, or made anew on the way back."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        targets_N: Tensor,
        unembed: Callable[[Tensor], Tensor],
        rows: int,
        kept: int,
        *trained: Tensor,
    ) -> Tensor:
        wanted = ctx.needs_input_grad[0] or bool(trained)
        pieces: list[Tensor] = []
        ctx.slices = []
        for first in range(0, hidden_ND.shape[0], rows):
            here = slice(first, first + rows)
            keep = wanted and min(first + rows, hidden_ND.shape[0]) <= kept
            with torch.set_grad_enabled(keep):
                piece_nD = hidden_ND[here].detach().requires_grad_(keep)
                logits_nV = unembed(piece_nD)
            pieces.append(-token_nll_in_place(logits_nV.detach(), targets_N[here])[0])  # the scores' own memory
            ctx.slices.append((here, piece_nD, logits_nV) if keep else (here, None, None))
            del piece_nD, logits_nV
        ctx.unembed, ctx.trained = unembed, trained
        device = hidden_ND.device.type
        ctx.autocast = (device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device))
        ctx.save_for_backward(hidden_ND, targets_N)
        if pieces:
            return torch.cat(pieces)
        return hidden_ND.new_zeros(0, dtype=torch.promote_types(hidden_ND.dtype, torch.float32))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_N: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        hidden_ND, targets_N = ctx.saved_tensors
        # The first pass uses the scores up as their gradients; a second one makes them anew.
        slices, ctx.slices = ctx.slices, [(here, None, None) for here, *_ in ctx.slices]
        device, dtype, enabled = ctx.autocast
        grad_ND = torch.empty_like(hidden_ND)
        sums: list[Tensor | None] = [None for _ in ctx.trained]
        while slices:
            here, piece_nD, logits_nV = slices.pop(0)  # each slice's memory is free after it
            if logits_nV is None:
                with torch.enable_grad(), torch.autocast(device, dtype, enabled=enabled):
                    piece_nD = hidden_ND[here].detach().requires_grad_()
                    logits_nV = ctx.unembed(piece_nD)
                token_nll_in_place(logits_nV.detach(), targets_N[here])
            gradient_nV = logits_nV.detach()
            gradient_nV *= -grad_N[here, None].to(gradient_nV.dtype)
            gradients = torch.autograd.grad(logits_nV, [piece_nD, *ctx.trained], gradient_nV)
            grad_ND[here] = gradients[0]
            sums = [new if old is None else old.add_(new) for old, new in zip(sums, gradients[1:], strict=True)]
            del piece_nD, logits_nV, gradient_nV, gradients
        return grad_ND, None, None, None, None, *sums
