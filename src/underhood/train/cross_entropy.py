"""Cross-entropy that works out its gradient on the way, a few rows at a time.

The gradient of −log softmax(z)[t] with respect to the scores z is softmax(z) − onehot(t): whoever has the loss of a row
has its gradient for one subtraction. Done row by row, all passes over a row find it in the processor's cache; done
matrix by matrix (log-softmax, pick, and both once more backwards), each pass fetches the whole matrix from memory,
which for a small model with a vocabulary of thousands takes as long as its matrix products.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from underhood.data.batch import IGNORE

CACHED_VALUES = 1 << 18
"""Scores per slice on a CPU: 1 MB in fp32, half of a usual second-level cache."""


@dataclass(frozen=True, kw_only=True)
class LabelSmoothing:
    """Label smoothing: some of each target's probability goes to all other tokens (Szegedy et al. 2016, section 7).

    Two conventions are in use:

    - ``all``: ε is shared by the whole vocabulary, the target included: ``q = (1 − ε) onehot + ε / V`` (the paper, and
      `torch.nn.CrossEntropyLoss`);
    - ``others``: the target keeps 1 − ε, and each token but it and padding gets ``ε / (V − 2)`` (The Annotated
      Transformer). Its loss is the KL divergence, which is this cross-entropy less the constant entropy of q.

    Attributes:
        epsilon: ε.
        padding: id of the padding token, which never gets a share under ``others``.
    """

    epsilon: float = 0.1
    convention: Literal["all", "others"] = "all"
    padding: int | None = None

    def __post_init__(self):
        if not 0 <= self.epsilon < 1:
            raise ValueError(f"epsilon is a share from 0 up to 1, got {self.epsilon}")
        if (self.convention == "others") != (self.padding is not None):
            raise ValueError("padding belongs to the convention 'others', which needs it")

    def shares(self, vocab_size: int) -> tuple[float, float]:
        """The probability of the target, and of each of the other tokens."""
        if self.convention == "others":
            return 1 - self.epsilon, self.epsilon / (vocab_size - 2)
        return 1 - self.epsilon + self.epsilon / vocab_size, self.epsilon / vocab_size


def cross_entropy(
    logits_NV: Float[Tensor, "N V"],
    targets_N: Int[Tensor, "N"],
    *,
    reduction: Literal["mean", "sum"] = "mean",
    smoothing: LabelSmoothing | None = None,
) -> Float[Tensor, ""]:
    """Mean or sum of −log softmax(logits)[target] over the targets that are not `IGNORE`, in nats, a scalar.

    With `smoothing` it is −Σ q log softmax(logits) under the smoothed target distribution q.

    The same number as `F.cross_entropy` with fp32 logits and ``ignore_index=IGNORE``: softmax and sum are taken in
    fp32 or better whatever the logits' type, for in bf16 the log-sum-exp of a large vocabulary loses the small
    differences that training lives on. The gradient has the logits' type. Without any target the mean is NaN, as there.
    """
    return _CrossEntropy.apply(logits_NV, targets_N, reduction, smoothing)  # type: ignore[return-value]


@torch.no_grad()
def differentiate_in_place(logits_NV: Float[Tensor, "N V"], targets_N: Int[Tensor, "N"]) -> tuple[Tensor, int]:
    """Σ −log softmax(logits)[target] in nats, and how many targets are the likeliest token; the scores themselves
    become the gradient of the sum, in their own type.

    For a large vocabulary nothing else as large as the scores is ever in memory. Every target counts (no `IGNORE`).
    """
    nll_N, right = token_nll_in_place(logits_NV, targets_N)
    return nll_N.sum(), right


@torch.no_grad()
def token_nll_in_place(logits_NV: Float[Tensor, "N V"], targets_N: Int[Tensor, "N"]) -> tuple[Float[Tensor, "N"], int]:
    """−log softmax(logits)[target] of each row in nats, and how many targets are the likeliest token.

    The scores themselves become each row's gradient, softmax − onehot. See `differentiate_in_place`.
    """
    count = logits_NV.shape[0]
    precise = torch.promote_types(logits_NV.dtype, torch.float32)
    rows = _rows(logits_NV)
    nll_N, right = torch.empty(count, dtype=precise, device=logits_NV.device), 0
    for first in range(0, count, rows):
        here = slice(first, first + rows)
        z_nV, index_n1 = logits_NV[here].to(precise), targets_N[here, None]
        picked_n1 = _below_the_highest(z_nV, index_n1)
        maybe_n = picked_n1[:, 0] == 0  # several may be equally high, and the first of them is the one
        if maybe_n.any():
            right += int((z_nV[maybe_n].argmax(dim=-1, keepdim=True) == index_n1[maybe_n]).sum())
        sum_n1 = z_nV.exp_().sum(dim=-1, keepdim=True)
        nll_N[here] = (sum_n1.log() - picked_n1)[:, 0]
        _take_target_away(z_nV, index_n1, sum_n1, torch.ones_like(sum_n1))
        if z_nV.dtype != logits_NV.dtype:
            logits_NV[here] = z_nV
    return nll_N, right


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


def _expected_score(z_nV: Tensor, picked_n1: Tensor, smoothing: LabelSmoothing) -> Tensor:
    """The mean score under the smoothed targets, as ``Σ q (z − log Σ exp z)`` is that less the log-sum-exp."""
    target, other = smoothing.shares(z_nV.shape[-1])
    others_n1 = z_nV.sum(dim=-1, keepdim=True) - picked_n1
    if smoothing.padding is not None:
        others_n1 -= z_nV[:, smoothing.padding, None]
    return target * picked_n1 + other * others_n1


def _take_smoothed_away(
    z_nV: Tensor, index_n1: Tensor, sum_n1: Tensor, weight_n1: Tensor, smoothing: LabelSmoothing
) -> None:
    """From exponentials to the gradient, in place: ``weight · (softmax − q)``."""
    target, other = smoothing.shares(z_nV.shape[-1])
    z_nV *= weight_n1 / sum_n1
    z_nV -= other * weight_n1
    z_nV.scatter_add_(1, index_n1, (other - target) * weight_n1)
    if smoothing.padding is not None:
        z_nV[:, smoothing.padding] += other * weight_n1[:, 0]


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits_NV: Tensor, targets_N: Tensor, reduction: str, smoothing: LabelSmoothing | None
    ) -> Tensor:
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
            if smoothing is not None:
                picked_n1 = _expected_score(z_nV, picked_n1, smoothing)
            sum_n1 = z_nV.exp_().sum(dim=-1, keepdim=True)
            total += ((sum_n1.log() - picked_n1) * weight_N1[here]).sum()
            if grad_NV is not None:
                if smoothing is None:
                    _take_target_away(z_nV, index_N1[here], sum_n1, weight_N1[here])
                else:
                    _take_smoothed_away(z_nV, index_N1[here], sum_n1, weight_N1[here], smoothing)
                grad_NV[here] = z_nV
        ctx.save_for_backward(grad_NV)
        return total if count or reduction == "sum" else total + share

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (grad_NV,) = ctx.saved_tensors
        return grad_NV * grad.to(grad_NV.dtype), None, None, None
