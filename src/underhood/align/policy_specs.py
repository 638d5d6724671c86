"""Settings of PPO and GRPO, with every published detail as a field; reading them loads no PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from underhood.align.kl import KLController

Estimator = Literal["k1", "k2", "k3"]
Normaliser = Literal["sequence", "local-token", "global-token", "dr-grpo"]
Baseline = Literal["group", "rloo"]


@dataclass(frozen=True, kw_only=True)
class PPOSpec:
    """PPO with every published detail as a field. [N] is Huang et al. 2024, "The N implementation details of RLHF
    with PPO"; [I] is Ouyang et al. 2022 (InstructGPT).

    Attributes:
        clip_low: ratios below 1 − this earn nothing more (Schulman et al. 2017, equation 7: 0.2).
        clip_high: the same above 1 (0.2; more lets rare tokens grow: Yu et al. 2025, section 3.1).
        value_clip: how far a value may move from the rollout's before its loss is clipped ([N]; 0.2); None: anywhere.
        value_weight: weight of the value loss beside the policy's ([N]: 0.1).
        gamma: discount ([N]: 1).
        lam: GAE's λ ([N]: 0.95).
        beta: KL coefficient at the start (Ziegler et al. 2019: 0.15; [I]: 0.02).
        kl_target: KL per answer that the adaptive controller aims at, in nats (Ziegler et al. 2019, section 2.2: 6);
            None keeps β fixed, as [I] does.
        kl_horizon: answers in which the controller corrects an error (Ziegler et al. 2019: 10,000).
        kl_estimator: the KL per token inside the reward ([N]: k1).
        whiten_rewards: if off, rewards per token stay as they are; else they are scaled to variance 1, and their mean
            stays ([N]).
        whiten_advantages: if off, advantages stay as they are; else they are scaled to variance 1 and mean 0 over a
            rollout's tokens ([N]).
        bessel: variances divide by n − 1. TensorFlow, and so the original, divides by n ([N]).
        missing_end_reward: the score of an answer that was cut off before its end, whatever the reward says ([N]: the
            EOS trick, −1); None scores it like any other.
        reward_clip: scores are clipped to ± this (Dai et al. 2024 and others: 5); None leaves them.
        ptx_weight: weight of the pretraining loss mixed into the updates, PPO-ptx ([I], equation 2: 27.8).
        epochs: passes over each rollout's answers ([N]: 4; [I]: 1).
        value_init_std: standard deviation of the value head's weights at the start ([N]: 0).
        adam_eps: Adam's ε ([N]: 1e-5 with TensorFlow's placement; PyTorch's makes early updates larger).
        anneal: if off, the learning rate stays; else it falls linearly to 0 ([N]).
        dropout: policies drop out in updates. Off: ratios would differ from 1 without any update ([N]).
    """

    clip_low: float = 0.2
    clip_high: float = 0.2
    value_clip: float | None = 0.2
    value_weight: float = 0.1
    gamma: float = 1.0
    lam: float = 0.95
    beta: float = 0.05
    kl_target: float | None = None
    kl_horizon: int = 10_000
    kl_estimator: Estimator = "k1"
    whiten_rewards: bool = True
    whiten_advantages: bool = True
    bessel: bool = False
    missing_end_reward: float | None = -1.0
    reward_clip: float | None = None
    ptx_weight: float = 0.0
    epochs: int = 4
    value_init_std: float = 0.0
    adam_eps: float = 1e-5
    anneal: bool = True
    dropout: bool = False

    def __post_init__(self):
        for name in ("clip_low", "clip_high", "value_weight", "beta", "ptx_weight", "value_init_std"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} can't be negative, got {getattr(self, name)}")
        for name in ("gamma", "lam"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a number from 0 to 1, got {getattr(self, name)}")
        if self.epochs < 1:
            raise ValueError(f"epochs must be at least 1, got {self.epochs}")
        if self.kl_target is not None and not self.kl_target > 0:
            raise ValueError(f"kl_target must be above 0, got {self.kl_target}")

    def controller(self) -> "KLController":
        """A fresh controller of the KL coefficient."""
        from underhood.align.kl import KLController  # it loads PyTorch, which reading settings should not

        return KLController(self.beta, self.kl_target, self.kl_horizon)


@dataclass(frozen=True, kw_only=True)
class GRPOSpec:
    """GRPO and its variants.

    Attributes:
        normaliser: what the tokens' losses are divided by. ``sequence``: each answer's mean, then the mean over answers
            (Shao et al. 2024, equation 3: long answers weigh less per token). ``local-token``: the tokens of each
            micro-batch. ``global-token``: the tokens of the whole update (DAPO, Yu et al. 2025, equation 8).
            ``dr-grpo``: answers times the longest allowed length, a constant (Liu et al. 2025, section 3).
        baseline: ``group`` subtracts the group's mean; ``rloo`` the mean of the *other* answers (Ahmadian et al. 2024),
            without a standard deviation.
        scale_std: if off, advantages are not divided by the group's standard deviation (Dr. GRPO: that favours groups
            which nearly agree).
        clip_low: ratios below 1 − this earn nothing more.
        clip_high: the same above 1; 0.28 in DAPO ("clip higher").
        beta: weight of the KL term k3 to the reference; 0 needs no reference.
        epochs: passes over each rollout's answers.
        missing_end_reward: the score of an answer that was cut off; None scores it like any other.
        adam_eps: Adam's ε.
        anneal: the learning rate falls linearly to 0.
    """

    normaliser: Normaliser = "sequence"
    baseline: Baseline = "group"
    scale_std: bool = True
    clip_low: float = 0.2
    clip_high: float = 0.2
    beta: float = 0.04
    epochs: int = 1
    missing_end_reward: float | None = None
    adam_eps: float = 1e-8
    anneal: bool = False

    def __post_init__(self):
        for name in ("clip_low", "clip_high", "beta"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} can't be negative, got {getattr(self, name)}")
        if self.epochs < 1:
            raise ValueError(f"epochs must be at least 1, got {self.epochs}")
