"""Expected updates by exact enumeration: KL estimators as losses, PPO, clipping, GRPO's biases."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor

from underhood.align.enumerable import EnumerableSpec, TablePolicy
from underhood.align.expected_updates import (
    cosine,
    expected_advantages,
    expected_grpo_gradient,
    expected_kl_loss_gradient,
    expected_ppo_gradient,
    gradient,
    kl_gradient,
    objective_gradient,
    relative_difference,
    state_values_NT,
)
from underhood.align.grpo import GRPOSpec, advantages_of
from underhood.align.kl import Estimator
from underhood.align.ppo import PPOSpec

SPEC = EnumerableSpec()
PPO = PPOSpec(beta=0.4, lam=1.0)


def random_policy(seed: int, spec: EnumerableSpec = SPEC, scale: float = 1.0) -> TablePolicy:
    policy, generator = spec.build(), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for logits_CV in policy.logits:
            logits_CV.copy_(scale * torch.randn(logits_CV.shape, generator=generator, dtype=torch.float64))
    return policy


@pytest.fixture(scope="module")
def policy() -> TablePolicy:
    return random_policy(0)


@pytest.fixture(scope="module")
def ref_logp_NT() -> Tensor:
    return random_policy(1).token_log_probs_NT().detach()


@pytest.fixture(scope="module")
def reward_N() -> Tensor:
    return torch.randn(SPEC.answers, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


# KL as a loss


def test_k1_as_a_loss_has_no_expected_gradient(policy: TablePolicy, ref_logp_NT: Tensor):
    reverse_P = kl_gradient(policy, ref_logp_NT.sum(dim=1), "reverse")
    for level in ("answer", "token"):
        k1_P = expected_kl_loss_gradient(policy, ref_logp_NT, "k1", level=level)
        assert float(k1_P.norm()) < 1e-12
    assert float(reverse_P.norm()) > 0.1


def test_k2_as_a_loss_descends_the_reverse_kl(policy: TablePolicy, ref_logp_NT: Tensor):
    k2_P = expected_kl_loss_gradient(policy, ref_logp_NT, "k2")
    ref_logp_N = ref_logp_NT.sum(dim=1)
    assert relative_difference(k2_P, kl_gradient(policy, ref_logp_N, "reverse")) < 1e-10
    assert relative_difference(k2_P, kl_gradient(policy, ref_logp_N, "forward")) > 0.5


def test_k3_as_a_loss_descends_the_forward_kl(policy: TablePolicy, ref_logp_NT: Tensor):
    k3_P = expected_kl_loss_gradient(policy, ref_logp_NT, "k3")
    ref_logp_N = ref_logp_NT.sum(dim=1)
    assert relative_difference(k3_P, kl_gradient(policy, ref_logp_N, "forward")) < 1e-10
    assert relative_difference(k3_P, kl_gradient(policy, ref_logp_N, "reverse")) > 0.5


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_importance_weight_makes_an_unbiased_estimator_descend_the_reverse_kl(
    policy: TablePolicy, ref_logp_NT: Tensor, estimator: Estimator
):
    weighted_P = expected_kl_loss_gradient(policy, ref_logp_NT, estimator, ratio_weighted=True)
    reverse_P = kl_gradient(policy, ref_logp_NT.sum(dim=1), "reverse")
    assert relative_difference(weighted_P, reverse_P) < 1e-10


def test_importance_weight_spoils_k2(policy: TablePolicy, ref_logp_NT: Tensor):
    """Its expectation is not the KL, so the gradient of its expectation is not the KL's."""
    weighted_P = expected_kl_loss_gradient(policy, ref_logp_NT, "k2", ratio_weighted=True)
    assert relative_difference(weighted_P, kl_gradient(policy, ref_logp_NT.sum(dim=1), "reverse")) > 0.1


@pytest.mark.parametrize("ratio_weighted", [False, True])
@pytest.mark.parametrize("estimator", ["k2", "k3"])
def test_no_loss_summed_over_tokens_descends_the_kl_of_answers(
    policy: TablePolicy, ref_logp_NT: Tensor, estimator: Estimator, ratio_weighted: bool
):
    """A token also decides which contexts come after it, and no such loss holds it responsible for their KL."""
    token_P = expected_kl_loss_gradient(policy, ref_logp_NT, estimator, level="token", ratio_weighted=ratio_weighted)
    ref_logp_N = ref_logp_NT.sum(dim=1)
    for direction in ("reverse", "forward"):
        assert relative_difference(token_P, kl_gradient(policy, ref_logp_N, direction)) > 0.1


def test_k2_summed_over_tokens_is_right_where_no_token_comes_after():
    spec = EnumerableSpec(vocab_size=8, length=1)
    policy, ref_logp_NT = random_policy(3, spec), random_policy(4, spec).token_log_probs_NT().detach()
    token_P = expected_kl_loss_gradient(policy, ref_logp_NT, "k2", level="token")
    assert relative_difference(token_P, kl_gradient(policy, ref_logp_NT[:, 0], "reverse")) < 1e-10


# PPO


def test_ppo_with_kl_in_the_reward_ascends_the_objective(policy: TablePolicy, ref_logp_NT: Tensor, reward_N: Tensor):
    true_P = objective_gradient(policy, ref_logp_NT.sum(dim=1), reward_N, PPO.beta)
    assert relative_difference(expected_ppo_gradient(policy, ref_logp_NT, reward_N, PPO), true_P) < 1e-10
    without_P = expected_ppo_gradient(policy, ref_logp_NT, reward_N, replace(PPO, beta=0.0))
    assert relative_difference(without_P, true_P) > 0.3


@pytest.mark.parametrize("estimator", ["k2", "k3"])
def test_other_estimators_in_the_reward_ascend_something_else(
    policy: TablePolicy, ref_logp_NT: Tensor, reward_N: Tensor, estimator: Estimator
):
    """k3's mean is the KL, but its gradient as a reward leaves out how k3 itself depends on the policy."""
    true_P = objective_gradient(policy, ref_logp_NT.sum(dim=1), reward_N, PPO.beta)
    biased_P = expected_ppo_gradient(policy, ref_logp_NT, reward_N, replace(PPO, kl_estimator=estimator))
    assert relative_difference(biased_P, true_P) > 0.3


@pytest.mark.parametrize("lam", [0.0, 0.5, 0.95])
def test_gae_leaves_the_gradient_unbiased_with_true_values_only(
    policy: TablePolicy, ref_logp_NT: Tensor, reward_N: Tensor, lam: float
):
    spec = replace(PPO, lam=lam)
    true_P = objective_gradient(policy, ref_logp_NT.sum(dim=1), reward_N, PPO.beta)
    values_NT = state_values_NT(policy, ref_logp_NT, reward_N, PPO.beta)
    right_P = expected_ppo_gradient(policy, ref_logp_NT, reward_N, spec, values_NT=values_NT)
    assert relative_difference(right_P, true_P) < 1e-10
    zero_P = expected_ppo_gradient(policy, ref_logp_NT, reward_N, spec)
    assert relative_difference(zero_P, true_P) > 0.01


def test_any_values_leave_the_gradient_unbiased_with_lambda_1(
    policy: TablePolicy, ref_logp_NT: Tensor, reward_N: Tensor
):
    """A value depends on the beginning alone: a baseline. Values that know the next token bend it."""
    true_P = objective_gradient(policy, ref_logp_NT.sum(dim=1), reward_N, PPO.beta)
    generator = torch.Generator().manual_seed(3)
    for known, biased in ((0, False), (1, True)):
        values = []
        for t in range(SPEC.length):
            value_C = torch.randn(SPEC.vocab_size ** (t + known), generator=generator, dtype=torch.float64)
            values.append(value_C.repeat_interleave(SPEC.answers // len(value_C)))
        with_P = expected_ppo_gradient(policy, ref_logp_NT, reward_N, PPO, values_NT=torch.stack(values, dim=1))
        assert (relative_difference(with_P, true_P) > 0.1) == biased
        if not biased:
            assert relative_difference(with_P, true_P) < 1e-10


def test_clipping_biases_every_update_but_the_first(policy: TablePolicy, ref_logp_NT: Tensor, reward_N: Tensor):
    """As soon as the sampler is another policy, against the same loss without clipping."""
    sampled = random_policy(0)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for logits_CV in sampled.logits:
            logits_CV += 0.3 * torch.randn(logits_CV.shape, generator=generator, dtype=torch.float64)
    differences = []
    for clip in (0.05, 0.2, 1e6):
        spec = replace(PPO, clip_low=min(clip, 1.0), clip_high=clip)
        first_P = expected_ppo_gradient(policy, ref_logp_NT, reward_N, spec)
        assert relative_difference(first_P, objective_gradient(policy, ref_logp_NT.sum(1), reward_N, 0.4)) < 1e-10
        later_P = expected_ppo_gradient(policy, ref_logp_NT, reward_N, spec, sampled=sampled)
        free_P = expected_ppo_gradient(
            policy, ref_logp_NT, reward_N, replace(PPO, clip_low=1.0, clip_high=1e6), sampled=sampled
        )
        differences.append(relative_difference(later_P, free_P))
    assert differences[0] > differences[1] > 0.1
    assert differences[2] == 0


# GRPO

END = 7


def answers_with_an_end() -> tuple[Tensor, Tensor]:
    """Tokens up to the first END (all if there is none), and lengths."""
    tokens_NT = SPEC.tokens_NT()
    ended_before_NT = (tokens_NT == END).cumsum(dim=1) - (tokens_NT == END).long() > 0
    return ~ended_before_NT, (~ended_before_NT).sum(dim=1)


def expected_reward_gradient(policy: TablePolicy, reward_N: Tensor) -> Tensor:
    return gradient(policy, (policy.log_probs_N().exp() * reward_N).sum())


@pytest.fixture(scope="module")
def right_N() -> Tensor:
    """A verifier's verdict, 1 or 0, on what comes before the end: no even token, at least one token."""
    mask_NT, lengths_N = answers_with_an_end()
    tokens_NT = SPEC.tokens_NT()
    even_NT = (tokens_NT % 2 == 0) & mask_NT
    return (~even_NT.any(dim=1) & (lengths_N > 1)).double()


def grpo_gradient(policy: TablePolicy, right_N: Tensor, spec: GRPOSpec, group: int = 8) -> Tensor:
    mask_NT, _ = answers_with_an_end()
    p = float((policy.log_probs_N().exp() * right_N).sum().detach())
    expected_S = expected_advantages([0.0, 1.0], [1 - p, p], group, partial(advantages_of, spec=spec))
    return expected_grpo_gradient(policy, expected_S[right_N.long()], mask_NT, spec)


def test_leave_one_out_with_a_constant_normaliser_is_unbiased(policy: TablePolicy, right_N: Tensor):
    """Divided by the longest length, which only scales it."""
    spec = GRPOSpec(normaliser="dr-grpo", baseline="rloo", beta=0.0)
    actual_P = SPEC.length * grpo_gradient(policy, right_N, spec)
    assert relative_difference(actual_P, expected_reward_gradient(policy, right_N)) < 1e-10


def test_mean_of_the_group_as_baseline_shrinks_the_gradient_by_one_answer(policy: TablePolicy, right_N: Tensor):
    spec = GRPOSpec(normaliser="dr-grpo", scale_std=False, beta=0.0)
    for group in (2, 8):
        actual_P = SPEC.length * grpo_gradient(policy, right_N, spec, group)
        expected_P = (group - 1) / group * expected_reward_gradient(policy, right_N)
        assert relative_difference(actual_P, expected_P) < 1e-10


def test_mean_over_each_answer_points_elsewhere(policy: TablePolicy, right_N: Tensor):
    """A token of an answer of 2 weighs 2.5 times as much as that of an answer of 5; no learning rate mends it."""
    spec = GRPOSpec(normaliser="sequence", baseline="rloo", beta=0.0)
    true_P = expected_reward_gradient(policy, right_N)
    actual_P = grpo_gradient(policy, right_N, spec)
    assert cosine(actual_P, true_P) < 0.99
    mask_NT, lengths_N = answers_with_an_end()
    logp_NT = policy.token_log_probs_NT()
    per_token_N = (logp_NT * mask_NT).sum(dim=1) / lengths_N
    centred_N = right_N - (logp_NT.detach().sum(dim=1).exp() * right_N).sum()
    expected_P = gradient(policy, (logp_NT.detach().sum(dim=1).exp() * centred_N * per_token_N).sum())
    assert relative_difference(actual_P, expected_P) < 1e-10


def test_standard_deviation_weighs_prompts_that_are_nearly_solved_or_hopeless_more():
    """Each prompt's expected gradient is the true one times a factor that depends on p alone, not constant."""
    spec, fair = GRPOSpec(beta=0.0), GRPOSpec(beta=0.0, baseline="rloo")
    factors, fair_factors = [], []
    for p in (0.02, 0.1, 0.5, 0.9, 0.98):
        for each, into in ((spec, factors), (fair, fair_factors)):
            wrong, right = expected_advantages([0.0, 1.0], [1 - p, p], 8, partial(advantages_of, spec=each)).tolist()
            # E[A ∇log π] = A(1) ∇p + A(0) ∇(1 − p)
            into.append(right - wrong)
    assert fair_factors == pytest.approx([1.0] * 5)
    assert factors[0] > factors[1] > factors[2]
    assert factors[2] < factors[3] < factors[4]
    assert factors[0] == pytest.approx(factors[4])
    assert factors[0] / factors[2] > 1.2


def test_group_of_equal_rewards_teaches_nothing():
    assert expected_advantages([1.0], [1.0], 8, partial(advantages_of, spec=GRPOSpec())).tolist() == [0.0]
