"""Reward–KL frontier: each method's gold reward against its distance from the same start, as training goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from underhood.core.figures import Series
from underhood.models.decoder import Decoder
from underhood.path.lib.review_models import FirstTwoSteps, grouped, preferences, scores
from underhood.path.lib.review_policies import (
    FrontierPoint,
    Watch,
    best_of,
    by_pairs,
    by_policy_gradient,
    frontier_point,
    grpo,
    ppo,
    proxy_reward,
)

Curves = dict[str, list[FrontierPoint]]

PAIR_LOSSES = {"DPO": "dpo", "preferred fine-tuning": "preferred", "unlikelihood": "unlikelihood"}
BEST_OF = (2, 4, 8, 16, 32, 64)
PAIR_STEPS, POLICY_STEPS = 60, 40


def frontier(trained: FirstTwoSteps, seed: int, tell: Callable[[float, str], object]) -> tuple[Curves, Decoder]:
    """The curves of six methods from one start, and the model after PPO.

    Args:
        tell: hears the share that is done and the method.
    """
    start, proxy = trained.start, trained.reward
    here = frontier_point(start, start, seed + 20, proxy=proxy)
    proxy_N = scores(proxy, trained.answers)
    curves: Curves = {"best of n": [here, *(best_of(trained.answers, proxy_N, n) for n in BEST_OF)]}
    pairs = preferences(grouped(trained.answers, 2), trained.scale, seed)

    def watched(name: str, every: int) -> Watch:
        curves[name] = [here]
        tell(len(curves) / 7, name)

        def watch(step: int, model: Decoder) -> None:
            if step and step % every == 0:
                training = model.training
                curves[name].append(frontier_point(model, start, seed + 20, proxy=proxy))
                model.train(training)

        return watch

    for name, loss in PAIR_LOSSES.items():
        by_pairs(start, pairs, loss, seed, steps=PAIR_STEPS, watch=watched(name, PAIR_STEPS // 5))
    reward, every = proxy_reward(proxy), POLICY_STEPS // 5
    by_policy_gradient(start, reward, grpo(), seed, steps=POLICY_STEPS, watch=watched("GRPO", every))
    plain = by_policy_gradient(start, reward, ppo(), seed, steps=POLICY_STEPS, watch=watched("PPO", every))
    return curves, plain


def mean_curves(curves: Sequence[Curves]) -> list[Series]:
    """Gold reward against KL, both the mean over seeds."""
    series: list[Series] = []
    for name in curves[0]:
        points_PX = np.array([[(point.kl, point.gold) for point in each[name]] for each in curves]).mean(axis=0)
        series.append(Series(name, tuple(points_PX[:, 0]), tuple(points_PX[:, 1])))
    return series


def overvalued(curves: Curves, scale: float) -> float:
    """How much more than the truth the reward model's score rises in the second half of PPO and GRPO, their mean.

    Both in the judge's units, nats of preference: there the gold reward is multiplied by the judge's scale.
    """
    excess = [
        (end.proxy - middle.proxy) - scale * (end.gold - middle.gold)
        for middle, end in ((curves[name][len(curves[name]) // 2], curves[name][-1]) for name in ("PPO", "GRPO"))
    ]
    return sum(excess) / len(excess)
