"""PPO's losses and token rewards against loops in float64, torchrl, and themselves with one detail taken away."""

from __future__ import annotations

import math

import pytest
import torch
from sampled_answers import batch, random_NT
from torch import Tensor

from underhood.align.policy_specs import PPOSpec
from underhood.align.ppo import (
    answer_scores,
    clip_fraction,
    clipped_policy_loss,
    clipped_value_loss,
    token_rewards,
)

MASK = batch(rows=8).response_mask_NT


def tokens_of(mask_NT: Tensor) -> list[tuple[int, int]]:
    return [(n, t) for n, t in mask_NT.nonzero().tolist()]


def loop_policy_loss(logp: Tensor, old: Tensor, advantages: Tensor, low: float, high: float) -> Tensor:
    terms = []
    for n, t in tokens_of(MASK):
        ratio = torch.exp(logp[n, t] - old[n, t])
        clipped = min(max(float(ratio), 1 - low), 1 + high)
        plain, cut = ratio * advantages[n, t], clipped * advantages[n, t]
        terms.append(-plain if float(plain) <= float(cut) else -cut)
    return torch.stack(terms).mean()


@pytest.mark.parametrize(("low", "high"), [(0.2, 0.2), (0.1, 0.4)])
def test_policy_loss_and_gradient_match_a_loop(low: float, high: float):
    old, advantages = random_NT(MASK, 1), random_NT(MASK, 2)
    logp = (old + random_NT(MASK, 3, scale=0.3)).requires_grad_(True)
    loss = clipped_policy_loss(logp, old, advantages, MASK, clip_low=low, clip_high=high)
    expected = loop_policy_loss(logp, old, advantages, low, high)
    assert float(loss) == pytest.approx(float(expected), abs=1e-12)
    [gradient], [expected_gradient] = torch.autograd.grad(loss, logp), torch.autograd.grad(expected, logp)
    assert torch.allclose(gradient, expected_gradient, atol=1e-12)
    cut = float(((expected_gradient == 0) & MASK).sum()) / int(MASK.sum())
    assert float(clip_fraction(logp, old, advantages, MASK, clip_low=low, clip_high=high)) == pytest.approx(cut)
    assert cut > 0


def test_policy_loss_matches_torchrl():
    """One token per row, so that torchrl's mean over samples is ours over tokens."""
    from tensordict import TensorDict
    from tensordict.nn import TensorDictModule
    from torchrl.modules import ProbabilisticActor, ValueOperator
    from torchrl.objectives import ClipPPOLoss

    generator = torch.Generator().manual_seed(0)
    logits_NV = torch.randn(32, 5, generator=generator)
    actions_N = torch.randint(0, 5, (32,), generator=generator)
    old_N = torch.randn(32, generator=generator) * 0.3 + logits_NV.log_softmax(-1).gather(1, actions_N[:, None])[:, 0]
    advantages_N = torch.randn(32, generator=generator)
    net = torch.nn.Identity()
    actor = ProbabilisticActor(
        TensorDictModule(net, in_keys=["obs"], out_keys=["logits"]),
        in_keys=["logits"],
        distribution_class=torch.distributions.Categorical,
    )
    critic = ValueOperator(torch.nn.Linear(5, 1), in_keys=["obs"])
    loss = ClipPPOLoss(actor, critic, clip_epsilon=0.2, entropy_bonus=False, normalize_advantage=False)
    data = TensorDict(
        {
            "obs": logits_NV,
            "action": actions_N,
            "action_log_prob": old_N,
            "advantage": advantages_N[:, None],
            "value_target": torch.zeros(32, 1),
        },
        [32],
    )
    expected = float(loss(data)["loss_objective"])
    logp_N = logits_NV.log_softmax(-1).gather(1, actions_N[:, None])[:, 0]
    ours = clipped_policy_loss(
        logp_N[:, None], old_N[:, None], advantages_N[:, None], torch.ones(32, 1, dtype=torch.bool)
    )
    assert float(ours) == pytest.approx(expected, abs=1e-5)


def test_value_loss_and_gradient_match_a_loop():
    old, returns = random_NT(MASK, 4), random_NT(MASK, 5)
    values = (old + random_NT(MASK, 6, scale=0.4)).requires_grad_(True)
    terms = []
    for n, t in tokens_of(MASK):
        value, before, target = values[n, t], float(old[n, t]), float(returns[n, t])
        plain = (value - target) ** 2
        cut = (min(max(float(value), before - 0.2), before + 0.2) - target) ** 2
        terms.append(0.5 * (plain if float(plain) >= cut else (value - value.detach()) * 0 + cut))
    expected = torch.stack(terms).mean()
    loss = clipped_value_loss(values, old, returns, MASK, clip=0.2)
    assert float(loss) == pytest.approx(float(expected), abs=1e-12)
    assert float(clipped_value_loss(values, old, returns, MASK, clip=None)) < float(loss)
    [gradient], [expected_gradient] = torch.autograd.grad(loss, values), torch.autograd.grad(expected, values)
    assert torch.allclose(gradient, expected_gradient, atol=1e-12)


def test_losses_of_micro_batches_sum_to_the_batchs():
    old, advantages = random_NT(MASK, 1), random_NT(MASK, 2)
    logp, count = old + random_NT(MASK, 3, scale=0.3), float(MASK.sum())
    halves = [
        clipped_policy_loss(logp[rows], old[rows], advantages[rows], MASK[rows], token_count=count)
        for rows in (slice(0, 3), slice(3, 8))
    ]
    assert float(sum(halves)) == pytest.approx(float(clipped_policy_loss(logp, old, advantages, MASK)), abs=1e-12)


def test_the_score_comes_with_the_last_real_token_and_each_token_pays_its_kl():
    logp, ref = random_NT(MASK, 7), random_NT(MASK, 8)
    scores_N = torch.arange(1.0, 9.0, dtype=torch.float64)
    rewards = token_rewards(scores_N, logp, ref, MASK, beta=0.1)
    for n, mask_T in enumerate(MASK):
        columns = mask_T.nonzero()[:, 0].tolist()
        for t in columns:
            expected = -0.1 * float(logp[n, t] - ref[n, t]) + (float(scores_N[n]) if t == columns[-1] else 0.0)
            assert float(rewards[n, t]) == pytest.approx(expected, abs=1e-12)
    assert not rewards[~MASK].any()


def test_an_answer_without_an_end_gets_the_fixed_score():
    scores_N, finished_N = torch.tensor([3.0, 9.0]), torch.tensor([True, False])
    assert answer_scores(scores_N, finished_N, PPOSpec()).tolist() == [3.0, -1.0]
    assert answer_scores(scores_N, finished_N, PPOSpec(missing_end_reward=None)).tolist() == [3.0, 9.0]
    assert answer_scores(scores_N, finished_N, PPOSpec(reward_clip=2.0, missing_end_reward=None)).tolist() == [2.0, 2.0]


def test_a_ratio_at_the_first_update_is_1_so_the_loss_is_the_mean_advantage():
    old, advantages = random_NT(MASK, 1), random_NT(MASK, 2)
    assert float(clipped_policy_loss(old, old, advantages, MASK)) == pytest.approx(-float(advantages[MASK].mean()))
    assert float(clip_fraction(old, old, advantages, MASK)) == 0


def test_without_the_clip_a_large_ratio_goes_on_earning():
    """Ablation: the gradient of a token far above the bound is zero with the clip, and not without."""
    mask, advantages = torch.ones(1, 1, dtype=torch.bool), torch.ones(1, 1)
    for high, expected in ((0.2, 0.0), (math.inf, -math.exp(1.0))):
        logp = torch.ones(1, 1, requires_grad=True)
        loss = clipped_policy_loss(logp, torch.zeros(1, 1), advantages, mask, clip_high=high)
        loss.backward()
        assert logp.grad is not None
        assert float(logp.grad) == pytest.approx(expected)
