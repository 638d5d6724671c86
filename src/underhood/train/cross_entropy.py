"""Cross-entropy that works out its gradient on the way, a few rows at a time.

The gradient of −log softmax(z)[t] with respect to the scores z is softmax(z) − onehot(t): whoever has the loss of a row
has its gradient for one subtraction. Done row by row, all passes over a row find it in the processor's cache; done
matrix by matrix (log-softmax, pick, and both once more backwards), each pass fetches the whole matrix from memory,
which for a small model with a vocabulary of thousands takes as long as its matrix products.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from underhood.data.batch import IGNORE

CACHED_VALUES = 1 << 18
"""Scores per slice on a CPU: 1 MB in fp32, half of a usual second-level cache."""


def cross_entropy(
    logits_NV: Float[Tensor, "N V"], targets_N: Int[Tensor, "N"], *, reduction: Literal["mean", "sum"] = "mean"
) -> Float[Tensor, ""]:
    """Mean or sum of −log softmax(logits)[target] over the targets that are not `IGNORE`, in nats, a scalar.

    The same number as `F.cross_entropy` with fp32 logits and ``ignore_index=IGNORE``: softmax and sum are taken in
    fp32 or better whatever the logits' type, for in bf16 the log-sum-exp of a large vocabulary loses the small
    differences that training lives on. The gradient has the logits' type. Without any target the mean is NaN, as there.
    """
    return _CrossEntropy.apply(logits_NV, targets_N, reduction)  # type: ignore[return-value]


@torch.no_grad()
def differentiate_in_place(logits_NV: Float[Tensor, "N V"], targets_N: Int[Tensor, "N"]) -> tuple[Tensor, int]:
    """Σ −log softmax(logits)[target] in nats, and how many targets are the likeliest token; the scores themselves
    become the gradient of the sum, in their own type.

    For a large vocabulary nothing else as large as the scores is ever in memory. Every target counts (no `IGNORE`).
    """
    count = logits_NV.shape[0]
    precise = torch.promote_types(logits_NV.dtype, torch.float32)
    rows = _rows(logits_NV)
    total, right = torch.zeros((), dtype=precise, device=logits_NV.device), 0
    for first in range(0, count, rows):
        here = slice(first, first + rows)
        z_nV, index_n1 = logits_NV[here].to(precise), targets_N[here, None]
        picked_n1 = _below_the_highest(z_nV, index_n1)
        maybe_n = picked_n1[:, 0] == 0  # several may be equally high, and the first of them is the one
        if maybe_n.any():
            right += int((z_nV[maybe_n].argmax(dim=-1, keepdim=True) == index_n1[maybe_n]).sum())
        sum_n1 = z_nV.exp_().sum(dim=-1, keepdim=True)
        total += (sum_n1.log() - picked_n1).sum()
        _take_target_away(z_nV, index_n1, sum_n1, torch.ones_like(sum_n1))
        if z_nV.dtype != logits_NV.dtype:
            logits_NV[here] = z_nV
    return total, right


def _rows(logits_NV: Tensor) -> int:
    """Rows per slice."""
    count, vocab = logits_NV.shape
    return max(1, CACHED_VALUES // vocab) if logits_NV.device.type == "cpu" else max(1, count)


def _below_the_highest(z_nV: Tensor, index_n1: Tensor) -> Tensor:
    """Takes each row's highest score away from all of it, in place; returns the remaining scores of the targets."""
    z_nV -= z_nV.amax(dim=-1, keepdim=True)
    return z_nV.gather(1, index_n1)


def _take_target_away(z_nV: Tensor, index_n1: Tensor, sum_n1: Tensor, weight_n1: Tensor) -> None:
    """From exponentials to the gradient, in place: ``weight · (softmax − onehot)``."""
    z_nV *= weight_n1 / sum_n1
    z_nV.scatter_add_(1, index_n1, -weight_n1)


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits_NV: Tensor, targets_N: Tensor, reduction: str) -> Tensor:
        count = logits_NV.shape[0]
        precise = torch.promote_types(logits_NV.dtype, torch.float32)
        rows = _rows(logits_NV)
        grad_NV = torch.empty_like(logits_NV) if ctx.needs_input_grad[0] else None
        kept_N = targets_N != IGNORE
        index_N1 = targets_N.where(kept_N, 0)[:, None]
        kept = kept_N.sum().to(precise)
        share = 1 / kept if reduction == "mean" else torch.ones_like(kept)
        weight_N1 = (kept_N * share)[:, None]
        total = torch.zeros((), dtype=precise, device=logits_NV.device)
        for first in range(0, count, rows):
            here = slice(first, first + rows)
            z_nV = logits_NV[here].to(precise, copy=True)
            picked_n1 = _below_the_highest(z_nV, index_N1[here])
            sum_n1 = z_nV.exp_().sum(dim=-1, keepdim=True)
            total += ((sum_n1.log() - picked_n1) * weight_N1[here]).sum()
            if grad_NV is not None:
                _take_target_away(z_nV, index_N1[here], sum_n1, weight_N1[here])
                grad_NV[here] = z_nV
        ctx.save_for_backward(grad_NV)
        return total if count or reduction == "sum" else total + share

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (grad_NV,) = ctx.saved_tensors
        return grad_NV * grad.to(grad_NV.dtype), None, None
