"""The gold-reward lab: a world's start is aligned by every method, and each is measured by the gold reward itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from underhood.align.grpo import GRPOSpec
from underhood.align.policy_methods import GRPOMethod, PPOMethod
from underhood.align.policy_training import RolloutSpec
from underhood.align.ppo import PPOSpec
from underhood.align.rewards import RewardFunction, SampledAnswer
from underhood.models.decoder import Decoder
from underhood.path.lib.gold_frontier import PAIR_LOSSES, ArmResult, ArmTraining, watched
from underhood.path.lib.gold_policies import (
    FrontierPoint,
    Watch,
    best_of,
    by_pairs,
    divergence,
    policy_gradient,
)
from underhood.path.lib.gold_world import GoldAnswer, GoldWorld
from underhood.path.lib.noisy_judge import golds, pair_scale, preferences

BEST_OF_N, PPO, GRPO, RANDOM = "best of n", "PPO", "GRPO", "GRPO, random rewards"

GRPO_SPECS = {
    GRPO: GRPOSpec(beta=0.0),
    "GRPO, token mean per micro-batch": GRPOSpec(beta=0.0, normaliser="local-token"),
    "GRPO, token mean": GRPOSpec(beta=0.0, normaliser="global-token"),
    "Dr. GRPO": GRPOSpec(beta=0.0, normaliser="dr-grpo", scale_std=False),
    "RLOO": GRPOSpec(beta=0.0, normaliser="dr-grpo", baseline="rloo"),
    RANDOM: GRPOSpec(beta=0.0),
}
FRONTIER = (BEST_OF_N, *PAIR_LOSSES, PPO, GRPO)


@dataclass(frozen=True, kw_only=True)
class LabSizes:
    """How long the methods train, and how much is measured.

    Attributes:
        pair_steps, pair_lr: of training on pairs (32 a step), from `pair_questions` questions with 4 answers each.
        policy: the outer loop of GRPO; of PPO, which makes four passes, with `ppo_steps` and `ppo_lr`.
        best_of: the counts n of best-of-n.
        measured: held-out questions that the points of a curve are measured on.
    """

    pair_steps: int
    pair_lr: float
    pair_questions: int
    policy: RolloutSpec
    ppo_steps: int
    ppo_lr: float
    best_of: tuple[int, ...] = (2, 4, 8, 16)
    measured: int = 300


@dataclass(frozen=True, kw_only=True)
class GoldLab:
    """Every method on one world.

    Attributes:
        expected: a policy's expected gold reward on each held-out question, if the world can tell it exactly; by
            sampled answers if not.
    """

    world: GoldWorld
    sizes: LabSizes
    expected: Callable[[Decoder], Sequence[float]] | None = None

    def aligned(self, start: Decoder, arm: str, seed: int) -> ArmResult:
        """The start after the method `arm` (of `FRONTIER` or `GRPO_SPECS`)."""
        here = self.point(start, start, seed)
        if arm == BEST_OF_N:
            return self.best(start, here, seed)
        curve, policy = watched(self.training(start, arm, seed), lambda model: self.point(model, start, seed), here)
        return ArmResult(curve, *self.measured(policy, seed))

    def measured(self, policy: Decoder, seed: int) -> tuple[list[float], list[float]]:
        """A policy's expected gold rewards and those of its greedy answers, on all held-out questions."""
        held_out = self.world.held_out
        if self.expected is not None:
            gold_N = [*self.expected(policy)]
        else:
            gold_N = golds(self.world.answers(policy, held_out, seed + 30)).tolist()
        return gold_N, golds(self.world.answers(policy, held_out, 0, greedy=True)).tolist()

    def point(self, policy: Decoder, start: Decoder, seed: int) -> FrontierPoint:
        """Gold reward and KL of sampled answers to some of the held-out questions."""
        answers = self.world.answers(policy, self.world.held_out[: self.sizes.measured], seed + 20)
        return FrontierPoint(divergence(policy, start, answers), float(golds(answers).mean()))

    def best(self, start: Decoder, here: FrontierPoint, seed: int) -> ArmResult:
        """Best-of-n by the gold reward."""
        most, held_out = self.sizes.best_of[-1], self.world.held_out[: self.sizes.measured]
        answers = self.world.answers(start, held_out, seed + 21, each=most)
        gold_N = golds(answers)
        return ArmResult([here, *(best_of(answers, gold_N, n) for n in self.sizes.best_of)], [], [])

    def pairs(self, start: Decoder, seed: int) -> list[tuple[GoldAnswer, GoldAnswer]]:
        """Preferences of a noisy judge between the start's own answers: a question's best and its worst of four.

        The judge agrees with the gold reward in 73 % of the pairs; questions whose answers are equally good give none.
        """
        answers = self.world.answers(start, self.world.questions[: self.sizes.pair_questions], seed + 22, each=4)
        groups = [sorted(answers[n : n + 4], key=lambda answer: answer.gold) for n in range(0, len(answers), 4)]
        order = np.random.default_rng([seed, 7])
        different: list[tuple[GoldAnswer, GoldAnswer]] = [
            (group[0], group[-1]) for group in groups if group[0].gold < group[-1].gold
        ]
        shown = [(best, worst) if order.random() < 0.5 else (worst, best) for worst, best in different]
        return preferences(shown, pair_scale(shown), seed)

    def training(self, start: Decoder, arm: str, seed: int) -> ArmTraining:
        """A method's training."""
        sizes, world = self.sizes, self.world
        if arm in PAIR_LOSSES:
            return ArmTraining(sizes.pair_steps, lambda watch: self._by_pairs(start, arm, seed, watch))
        task = world.task(random_rewards(seed) if arm == RANDOM else None)
        if arm == PPO:
            rollouts = replace(sizes.policy, steps=sizes.ppo_steps, lr=sizes.ppo_lr, seed=seed)
            method = PPOMethod(PPOSpec(beta=0.05, missing_end_reward=None, anneal=False))
        else:
            rollouts = replace(sizes.policy, seed=seed)
            method = GRPOMethod(GRPO_SPECS[arm], world.answer_tokens)
        return ArmTraining(rollouts.steps, lambda watch: policy_gradient(start, task, method, rollouts, watch))

    def _by_pairs(self, start: Decoder, arm: str, seed: int, watch: Watch) -> Decoder:
        pairs = self.pairs(start, seed)
        steps, lr = self.sizes.pair_steps, self.sizes.pair_lr
        return by_pairs(start, pairs, PAIR_LOSSES[arm], seed, steps=steps, lr=lr, watch=watch)


def random_rewards(seed: int) -> RewardFunction:
    """A control: 0 or 1 by the toss of a coin, whatever the answer."""
    generator = torch.Generator().manual_seed(seed)
    return lambda answers: _coins(answers, generator)


def _coins(answers: Sequence[SampledAnswer], generator: torch.Generator) -> list[float]:
    return torch.randint(2, (len(answers),), generator=generator).float().tolist()
