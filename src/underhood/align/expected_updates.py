"""Expected updates of reinforcement learning on an enumerable policy: what a method's sampled gradient is on average.

Every method samples answers from the policy and differentiates some loss of them. Its average over all samples is a sum
over all answers, each weighted by its probability, without gradient through that weight: a sampler has none either.
The sums call the losses of `align.ppo`, `align.grpo` and `align.kl`, so the code that trains is the code under test.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from underhood.align.enumerable import TablePolicy
from underhood.align.exact import kl_divergence, rlhf_objective
from underhood.align.gae import gae
from underhood.align.grpo import GRPOSpec, grpo_loss
from underhood.align.kl import ESTIMATORS, Estimator
from underhood.align.ppo import PPOSpec, clipped_policy_loss, token_rewards

Level = Literal["answer", "token"]
"""An estimator of the log-probabilities of whole answers, or of every token with the sum over tokens."""


def gradient(policy: TablePolicy, loss: Float[Tensor, ""]) -> Float[Tensor, "P"]:
    """The gradient with respect to all logits of the table, in one vector."""
    slopes = torch.autograd.grad(loss, list(policy.parameters()), allow_unused=True)
    pairs = zip(slopes, policy.parameters(), strict=True)
    return torch.cat([(torch.zeros_like(p) if slope is None else slope).flatten() for slope, p in pairs])


def objective_gradient(
    policy: TablePolicy, ref_logp_N: Float[Tensor, "N"], reward_N: Float[Tensor, "N"], beta: float
) -> Float[Tensor, "P"]:
    """The true gradient of ``E[r] − β KL(π ‖ π_ref)``."""
    return gradient(policy, rlhf_objective(policy.log_probs_N(), ref_logp_N, reward_N, beta))


def kl_gradient(
    policy: TablePolicy, ref_logp_N: Float[Tensor, "N"], direction: Literal["reverse", "forward"]
) -> Float[Tensor, "P"]:
    """The true gradient of ``KL(π ‖ π_ref)`` (reverse) or ``KL(π_ref ‖ π)`` (forward)."""
    logp_N = policy.log_probs_N()
    pair = (logp_N, ref_logp_N) if direction == "reverse" else (ref_logp_N, logp_N)
    return gradient(policy, kl_divergence(*pair))


def expected_kl_loss_gradient(
    policy: TablePolicy,
    ref_logp_NT: Float[Tensor, "N T"],
    estimator: Estimator,
    *,
    level: Level = "answer",
    ratio_weighted: bool = False,
) -> Float[Tensor, "P"]:
    """Expected gradient of a KL estimator that is used as a loss on answers drawn from the policy.

    Args:
        ref_logp_NT: the reference's log-probabilities of every token of every answer.
        ratio_weighted: multiplies the estimator by π / π_sampled, which is 1 but has the gradient of π: importance
            weighting, which brings back the gradient that sampling has lost.
    """
    logp_NT = policy.token_log_probs_NT()
    weight_N = logp_NT.detach().sum(dim=1).exp()
    if level == "answer":
        logp_NT, ref_logp_NT = logp_NT.sum(dim=1, keepdim=True), ref_logp_NT.sum(dim=1, keepdim=True)
    kl_NT = ESTIMATORS[estimator](logp_NT, ref_logp_NT)
    if ratio_weighted:
        kl_NT = kl_NT * (logp_NT - logp_NT.detach()).exp()
    return gradient(policy, (weight_N * kl_NT.sum(dim=1)).sum())


def expected_ppo_gradient(
    policy: TablePolicy,
    ref_logp_NT: Float[Tensor, "N T"],
    reward_N: Float[Tensor, "N"],
    spec: PPOSpec,
    *,
    values_NT: Float[Tensor, "N T"] | None = None,
    sampled: TablePolicy | None = None,
) -> Float[Tensor, "P"]:
    """Expected gradient of PPO's policy loss per answer (the sum over its tokens), the sign that of ascent.

    Args:
        values_NT: values of the states before each token, zeros if None. Rewards and advantages are not whitened.
        sampled: the policy that wrote the answers; the policy itself if None, as at the first update of a rollout.
    """
    logp_NT = policy.token_log_probs_NT()
    old_logp_NT = (policy if sampled is None else sampled).token_log_probs_NT().detach()
    mask_NT = torch.ones_like(old_logp_NT, dtype=torch.bool)
    rewards_NT = token_rewards(reward_N, old_logp_NT, ref_logp_NT, mask_NT, beta=spec.beta, estimator=spec.kl_estimator)
    values_NT = torch.zeros_like(rewards_NT) if values_NT is None else values_NT
    advantages_NT, _ = gae(rewards_NT, values_NT, mask_NT, spec.gamma, spec.lam)
    # The loss is a mean over tokens and linear in positive multiples of the advantage, which carries the weight here.
    weight_N1 = old_logp_NT.sum(dim=1, keepdim=True).exp() * logp_NT.numel()
    loss = clipped_policy_loss(
        logp_NT, old_logp_NT, advantages_NT * weight_N1, mask_NT, clip_low=spec.clip_low, clip_high=spec.clip_high
    )
    return -gradient(policy, loss)


@torch.no_grad()
def state_values_NT(
    policy: TablePolicy, ref_logp_NT: Float[Tensor, "N T"], reward_N: Float[Tensor, "N"], beta: float
) -> Float[Tensor, "N T"]:
    """The true value of the state before each token: what is still to come of reward and KL penalty, on average."""
    logp_NT, size = policy.token_log_probs_NT(), policy.spec.vocab_size
    penalty_NT = -beta * (logp_NT - ref_logp_NT)
    values = []
    value_C = reward_N
    for t in reversed(range(policy.spec.length)):
        stride = len(reward_N) // len(value_C)
        value_CV = (value_C + penalty_NT[::stride, t]).reshape(-1, size)
        value_C = (logp_NT[::stride, t].reshape(-1, size).exp() * value_CV).sum(dim=1)
        values.append(value_C.repeat_interleave(len(reward_N) // len(value_C)))
    return torch.stack(values[::-1], dim=1)


def expected_advantages(
    levels_S: Sequence[float],
    chances_S: Sequence[float],
    group: int,
    advantages: Callable[[Float[Tensor, "P G"]], Float[Tensor, "P G"]],
) -> Float[Tensor, "S"]:
    """Expected advantage of an answer by its reward, over the other ``group − 1`` answers to the same prompt.

    Args:
        levels_S: the rewards that occur; few, since all multisets of them are gone through.
        chances_S: how probable each is.
        advantages: of groups of rewards, such as `GRPOSpec.advantages`.
    """
    expected_S = torch.zeros(len(levels_S), dtype=torch.float64)
    for others in itertools.combinations_with_replacement(range(len(levels_S)), group - 1):
        counts = [others.count(level) for level in range(len(levels_S))]
        ways = math.factorial(group - 1) / math.prod(map(math.factorial, counts))
        chance = ways * math.prod(p**count for p, count in zip(chances_S, counts, strict=True))
        rewards = [[level, *(levels_S[other] for other in others)] for level in levels_S]
        expected_S += chance * advantages(torch.tensor(rewards, dtype=torch.float64))[:, 0]
    return expected_S


def expected_grpo_gradient(
    policy: TablePolicy,
    advantages_N: Float[Tensor, "N"],
    mask_NT: Bool[Tensor, "N T"],
    spec: GRPOSpec,
) -> Float[Tensor, "P"]:
    """Expected gradient of GRPO's loss without KL term at the first update of a rollout, the sign that of ascent.

    Args:
        advantages_N: expected advantage of every answer, see `expected_advantages`.
        mask_NT: tokens of every answer up to its end.
    """
    logp_NT = policy.token_log_probs_NT()
    weight_N = logp_NT.detach().sum(dim=1).exp() * len(logp_NT)
    loss = grpo_loss(
        logp_NT, logp_NT.detach(), advantages_N * weight_N, mask_NT, spec=spec, max_new_tokens=logp_NT.shape[1]
    )
    return -gradient(policy, loss)


def relative_difference(actual_P: Float[Tensor, "P"], expected_P: Float[Tensor, "P"]) -> float:
    """``|actual − expected| / |expected|``; 0 for equal gradients, about 1 where nothing of it is right."""
    return float((actual_P - expected_P).norm() / expected_P.norm())


def cosine(actual_P: Float[Tensor, "P"], expected_P: Float[Tensor, "P"]) -> float:
    """The cosine of the angle between two gradients: 1 for the same direction, however long."""
    return float(torch.nn.functional.cosine_similarity(actual_P, expected_P, dim=0))
