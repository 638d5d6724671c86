"""Reward–KL frontier of the review world: six methods from one supervised model, its noisy judge's preferences."""

from __future__ import annotations

from collections.abc import Callable

from underhood.models.decoder import Decoder
from underhood.path.lib.gold_frontier import BEST_OF, PAIR_LOSSES, Curves, Training, training_curves
from underhood.path.lib.gold_frontier import mean_curves as mean_curves
from underhood.path.lib.gold_policies import best_of, by_pairs
from underhood.path.lib.noisy_judge import preferences
from underhood.path.lib.review_models import FirstTwoSteps, grouped, scores
from underhood.path.lib.review_policies import by_policy_gradient, frontier_point, grpo, ppo, proxy_reward

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
    reward = proxy_reward(proxy)
    trainings = {
        name: Training(
            PAIR_STEPS, lambda watch, loss=loss: by_pairs(start, pairs, loss, seed, steps=PAIR_STEPS, watch=watch)
        )
        for name, loss in PAIR_LOSSES.items()
    }
    for name, method in (("GRPO", grpo()), ("PPO", ppo())):
        trainings[name] = Training(
            POLICY_STEPS,
            lambda watch, method=method: by_policy_gradient(
                start, reward, method, seed, steps=POLICY_STEPS, watch=watch
            ),
        )
    more, models = training_curves(
        trainings,
        lambda model: frontier_point(model, start, seed + 20, proxy=proxy),
        here,
        lambda number, name: tell((number + 2) / 7, name),
    )
    return curves | more, models["PPO"]


def overvalued(curves: Curves, scale: float) -> float:
    """How much more than the truth the reward model's score rises in the second half of PPO and GRPO, their mean.

    Both in the judge's units, nats of preference: there the gold reward is multiplied by the judge's scale.
    """
    excess = [
        (end.proxy - middle.proxy) - scale * (end.gold - middle.gold)
        for middle, end in ((curves[name][len(curves[name]) // 2], curves[name][-1]) for name in ("PPO", "GRPO"))
    ]
    return sum(excess) / len(excess)
