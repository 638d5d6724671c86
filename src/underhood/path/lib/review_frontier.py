"""Reward–KL frontier of the review world: six methods from one supervised model, its noisy judge's preferences."""

from __future__ import annotations

from collections.abc import Callable

from underhood.models.decoder import Decoder
from underhood.path.lib.gold_frontier import (
    BEST_OF,
    PAIR_LOSSES,
    ArmResult,
    ArmTraining,
    Curves,
    training_curves,
    watched,
)
from underhood.path.lib.gold_frontier import mean_curves as mean_curves
from underhood.path.lib.gold_policies import FrontierPoint, best_of, by_pairs
from underhood.path.lib.noisy_judge import golds, preferences
from underhood.path.lib.review_models import (
    FirstTwoSteps,
    grouped,
    pretrained,
    sampled_reviews,
    scores,
    small_spec,
    two_steps,
)
from underhood.path.lib.review_policies import by_policy_gradient, frontier_point, grpo, ppo, proxy_reward

PAIR_STEPS, POLICY_STEPS = 60, 40


def frontier(trained: FirstTwoSteps, seed: int, tell: Callable[[float, str], object]) -> tuple[Curves, Decoder]:
    """The curves of six methods from one start, and the model after PPO.

    Args:
        tell: hears the share that is done and the method.
    """
    here = review_point(trained, trained.start, seed)
    more, models = training_curves(
        trainings(trained, seed),
        lambda model: review_point(trained, model, seed),
        here,
        lambda number, name: tell((number + 2) / 7, name),
    )
    return {"best of n": best_reviews(trained, here)} | more, models["PPO"]


def review_point(trained: FirstTwoSteps, policy: Decoder, seed: int) -> FrontierPoint:
    return frontier_point(policy, trained.start, seed + 20, proxy=trained.reward)


def best_reviews(trained: FirstTwoSteps, here: FrontierPoint) -> list[FrontierPoint]:
    """Best-of-n by the reward model, among the answers that the judge compared."""
    proxy_N = scores(trained.reward, trained.answers)
    return [here, *(best_of(trained.answers, proxy_N, n) for n in BEST_OF)]


def trainings(trained: FirstTwoSteps, seed: int) -> dict[str, ArmTraining]:
    """Five methods: three on the noisy judge's preferences themselves, two on the reward model's scores."""
    start, reward = trained.start, proxy_reward(trained.reward)
    pairs = preferences(grouped(trained.answers, 2), trained.scale, seed)
    methods = {
        name: ArmTraining(
            PAIR_STEPS, lambda watch, loss=loss: by_pairs(start, pairs, loss, seed, steps=PAIR_STEPS, watch=watch)
        )
        for name, loss in PAIR_LOSSES.items()
    }
    for name, method in (("GRPO", grpo()), ("PPO", ppo())):
        methods[name] = ArmTraining(
            POLICY_STEPS,
            lambda watch, method=method: by_policy_gradient(
                start, reward, method, seed, steps=POLICY_STEPS, watch=watch
            ),
        )
    return methods


class ReviewLab:
    """The review world's part of the gold-reward lab, for one seed."""

    arms = ("best of n", *PAIR_LOSSES, "PPO", "GRPO")

    def __init__(self, seed: int):
        self.seed = seed

    def start(self) -> FirstTwoSteps:
        """A supervised model with the reward model of its noisy judge."""
        return two_steps(pretrained(small_spec(), self.seed, steps=200), self.seed, steps=80, answers=4800)

    def aligned(self, start: FirstTwoSteps, arm: str) -> ArmResult:
        """The supervised model after one of `arms`."""
        here = review_point(start, start.start, self.seed)
        if arm == "best of n":
            return ArmResult(best_reviews(start, here), [], [])
        curve, policy = watched(
            trainings(start, self.seed)[arm], lambda model: review_point(start, model, self.seed), here
        )
        return ArmResult(curve, *self.measured(policy))

    def measured(self, policy: Decoder | FirstTwoSteps) -> tuple[list[float], list[float]]:
        """Gold rewards of sampled answers; greedy ones would be six."""
        model = policy.start if isinstance(policy, FirstTwoSteps) else policy
        return golds(sampled_reviews(model, 600, self.seed + 40)).tolist(), []


def overvalued(curves: Curves, scale: float) -> float:
    """How much more than the truth the reward model's score rises in the second half of PPO and GRPO, their mean.

    Both in the judge's units, nats of preference: there the gold reward is multiplied by the judge's scale.
    """
    excess = [
        (end.proxy - middle.proxy) - scale * (end.gold - middle.gold)
        for middle, end in ((curves[name][len(curves[name]) // 2], curves[name][-1]) for name in ("PPO", "GRPO"))
    ]
    return sum(excess) / len(excess)
