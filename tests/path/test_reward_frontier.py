"""Reward–KL frontier: the closed-form optima are on it, and no random policy is above it."""

from __future__ import annotations

import pytest
import torch

from underhood.align.enumerable import EnumerableSpec
from underhood.align.exact import rlhf_optimum
from underhood.path.lib.reward_frontier import RewardCurve, RewardFrontier
from underhood.path.lib.word_task import draw_task

TASK = draw_task(3, EnumerableSpec(vocab_size=8, length=3))


@pytest.mark.parametrize("beta", [5.0, 1.0, 0.3, 0.1])
def test_optimum_of_rlhf_is_on_the_frontier(beta: float):
    frontier, curve = RewardFrontier(TASK), RewardCurve()
    frontier.add(curve, rlhf_optimum(TASK.ref_logp_N, TASK.gold_N, beta)[0])
    assert curve.share(0) == pytest.approx(1.0, abs=1e-3)
    assert curve.gain[0] <= curve.best[0] + 1e-12


def test_policies_tilted_by_another_reward_are_below_it():
    frontier, curve = RewardFrontier(TASK), RewardCurve()
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        noise_N = torch.randn(len(TASK.gold_N), generator=generator, dtype=torch.float64)
        frontier.add(curve, rlhf_optimum(TASK.ref_logp_N, TASK.gold_N + noise_N, 0.5)[0])
    assert all(curve.share(i) < 0.999 for i in range(50))
