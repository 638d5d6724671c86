"""Log-probabilities and entropies of sampled answers, recomputed with gradient for reinforcement learning.

The distribution is the one that the answers were drawn from: the same temperature first, then the same top-k and top-p
(`infer.sample`). Recomputed at another temperature, the importance ratio of an unchanged policy would not be 1 (Huang
et al. 2024, "The N implementation details of RLHF with PPO").
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from underhood.core.protocols import LanguageModel
from underhood.infer.sample import keep_top_k, keep_top_p
from underhood.train.loss import SplitModel


@dataclass(frozen=True)
class ResponseScores:
    """Scores of a batch's answers, token by token; 0 outside the answers.

    Attributes:
        logp_NT: log-probability of each response token in nats; gradient flows.
        entropy_NT: entropy of the distribution that the token was drawn from, in nats, without gradient; None unless
            it was wanted.
    """

    logp_NT: Float[Tensor, "N T"]
    entropy_NT: Float[Tensor, "N T"] | None


def response_log_probs(
    model: LanguageModel,
    ids_NT: Int[Tensor, "N T"],
    mask_NT: Bool[Tensor, "N T"],
    response_mask_NT: Bool[Tensor, "N T"],
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Float[Tensor, "N T"]:
    """Log-probability of each response token under the sampling distribution, in nats; 0 elsewhere. Gradient flows.

    Args:
        mask_NT: tokens of the sequences; False is padding.
        response_mask_NT: tokens of the answers, as in `infer.rollout.Rollout`.
        temperature, top_k, top_p: those of the sampling. A response token always belongs to the support, also when
            an update has moved it out of the k best: its probability is then small, not zero.
    """
    return score_responses(
        model, ids_NT, mask_NT, response_mask_NT, temperature=temperature, top_k=top_k, top_p=top_p
    ).logp_NT


def score_responses(
    model: LanguageModel,
    ids_NT: Int[Tensor, "N T"],
    mask_NT: Bool[Tensor, "N T"],
    response_mask_NT: Bool[Tensor, "N T"],
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    entropy: bool = False,
) -> ResponseScores:
    """`response_log_probs`, with the entropies on request.

    Only the positions before response tokens are unembedded where the model can be taken apart.
    """
    rows_M, columns_M = (response_mask_NT[:, 1:]).nonzero(as_tuple=True)  # the token before each response token
    if isinstance(model, SplitModel):
        hidden_NTD = model.hidden_states(ids_NT[:, :-1], positions=padded_positions(mask_NT[:, :-1]))
        logits_MV = model.unembed(hidden_NTD[rows_M, columns_M])
    else:
        logits_MV = model(ids_NT[:, :-1], positions=padded_positions(mask_NT[:, :-1]))[rows_M, columns_M]
    targets_M = ids_NT[rows_M, columns_M + 1]
    logp_M, entropy_M = token_log_probs(
        logits_MV, targets_M, temperature=temperature, top_k=top_k, top_p=top_p, entropy=entropy
    )
    entropy_NT = None if entropy_M is None else scattered(entropy_M, response_mask_NT)
    return ResponseScores(scattered(logp_M, response_mask_NT), entropy_NT)


def padded_positions(mask_NT: Bool[Tensor, "N T"]) -> Int[Tensor, "N T"] | None:
    """Positions of rows with padding (−1); None where all padding is at the rows' ends, which no token attends to."""
    if not (mask_NT[:, 1:] & ~mask_NT[:, :-1]).any():
        return None
    return (mask_NT.cumsum(dim=1) - 1).masked_fill(~mask_NT, -1)


def scattered(values_M: Float[Tensor, "M"], response_mask_NT: Bool[Tensor, "N T"]) -> Float[Tensor, "N T"]:
    """One value per response token (the first token of a row is never one) in the shape of the batch; 0 elsewhere."""
    rows_M, columns_M = response_mask_NT[:, 1:].nonzero(as_tuple=True)
    empty_NT = values_M.new_zeros(response_mask_NT.shape)
    return empty_NT.index_put((rows_M, columns_M + 1), values_M)


def token_log_probs(
    logits_MV: Float[Tensor, "M V"],
    targets_M: Int[Tensor, "M"],
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    entropy: bool = False,
) -> tuple[Float[Tensor, "M"], Float[Tensor, "M"] | None]:
    """Log-probability of one target per row under temperature and truncation, and the rows' entropies on request."""
    if not temperature > 0:
        raise ValueError(f"log-probabilities need a temperature above 0, got {temperature}")
    if top_k is not None or (top_p is not None and top_p < 1):
        kept_MV = _support(logits_MV.detach(), targets_M, temperature, top_k, top_p)
        logits_MV = logits_MV.masked_fill(~kept_MV, -math.inf)
    logp_M, entropy_M = _TokenLogProbs.apply(logits_MV, targets_M, temperature, entropy)  # type: ignore[misc]
    return logp_M, entropy_M if entropy else None


def _support(
    logits_MV: Tensor, targets_M: Tensor, temperature: float, top_k: int | None, top_p: float | None
) -> Tensor:
    """The tokens that could have been drawn, found in float64 as `infer.sample.distribution` does."""
    wide = torch.float32 if logits_MV.device.type == "mps" else torch.float64
    filtered_MV = logits_MV.to(wide) / temperature
    if top_k is not None:
        filtered_MV = keep_top_k(filtered_MV, top_k)
    if top_p is not None and top_p < 1:
        filtered_MV = keep_top_p(filtered_MV, top_p)
    return (filtered_MV > -math.inf).scatter(1, targets_M[:, None], True)


class _TokenLogProbs(torch.autograd.Function):
    """``log softmax(z / T)[target]`` with gradient ``(onehot − softmax(z / T)) / T``, and the entropy without.

    Composed of ordinary operations, scaling, log-softmax and picking each make another array of M × V in both
    directions; here the probabilities are the only one that is kept.
    """

    @staticmethod
    def forward(
        ctx: Any, logits_MV: Tensor, targets_M: Tensor, temperature: float, entropy: bool
    ) -> tuple[Tensor, Tensor]:
        precise = torch.promote_types(logits_MV.dtype, torch.float32)
        z_MV = logits_MV.to(precise, copy=True)
        z_MV -= z_MV.amax(dim=-1, keepdim=True)
        if temperature != 1:
            z_MV /= temperature
        picked_M = z_MV.gather(1, targets_M[:, None])[:, 0]
        finite_MV = z_MV.clamp(min=torch.finfo(precise).min) if entropy else None  # 0 · −∞ is NaN
        p_MV = z_MV.exp_()
        sum_M = p_MV.sum(dim=-1)
        p_MV /= sum_M[:, None]
        log_sum_M = sum_M.log()
        entropy_M = log_sum_M - (p_MV * finite_MV).sum(dim=-1) if finite_MV is not None else torch.zeros_like(sum_M)
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(p_MV, targets_M)
        ctx.temperature, ctx.dtype = temperature, logits_MV.dtype
        ctx.mark_non_differentiable(entropy_M)
        return picked_M - log_sum_M, entropy_M

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_M: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        p_MV, targets_M = ctx.saved_tensors
        scaled_M1 = (grad_M / ctx.temperature)[:, None]
        gradient_MV = p_MV * -scaled_M1
        gradient_MV.scatter_add_(1, targets_M[:, None], scaled_M1)
        return gradient_MV.to(ctx.dtype), None, None, None
