"""Settings of PPO, GRPO and best-of-n on a file of prompts; reading them loads no PyTorch."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal, Self

from underhood.align.policy_specs import GRPOSpec, PPOSpec
from underhood.recipes.finetune_spec import TrainingSettings


@dataclass(frozen=True, kw_only=True)
class PolicySettings(TrainingSettings):
    """Settings that both trainings by policy gradients have.

    Attributes:
        data: a file of prompts: JSON lines, JSON or Parquet.
        reward: what scores an answer: exact, number, contains or finished; FILE.py:FUNCTION of your own; or the folder
            of a reward model.
        steps: rollouts in all; enough to read the prompts once if left out.
        prompts: prompts per rollout.
        answers: answers per prompt.
        max_new_tokens: the longest answer, in tokens.
        temperature: of the sampling, and of the log-probabilities.
        top_k: keeps the k best tokens in sampling and log-probabilities.
        top_p: keeps the fewest best tokens that together reach this probability, in both.
        minibatches: optimiser steps per pass over a rollout.
        micro_batch: answers per forward pass: memory grows with it; only the normaliser local-token notices otherwise.
        lr: learning rate; by the model's width if left out.
        warmup: share of the steps over which the learning rate rises.
        clip: largest gradient norm.
        lora_alpha: LoRA's alpha; twice the rank if left out.
        lora_targets: which linear layers get adapters, by names like query or blocks.0.*.
        validation: share of the prompts that is held out to measure the reward before and after.
        dtype: format of matrix products in updates. Rollouts are float32: in bfloat16 the ratios are a little off 1.
        save_every: rollouts between checkpoints.
    """

    data: str
    reward: str
    steps: int | None = None
    prompts: int = 8
    answers: int = 8
    max_new_tokens: int = 64
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    minibatches: int = 1
    micro_batch: int = 16
    lr: float | None = None
    warmup: float = 0.05
    clip: float = 1.0
    lora_alpha: float | None = None
    lora_targets: tuple[str, ...] = ("blocks.*",)
    validation: float = 0.1
    dtype: Literal["float32", "bfloat16"] = "float32"
    save_every: int = 50

    def __post_init__(self):
        super().__post_init__()
        for name in ("prompts", "answers", "max_new_tokens", "minibatches", "micro_batch", "save_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")
        if not self.temperature > 0:
            raise ValueError(f"temperature must be above 0, got {self.temperature}")
        if not 0 <= self.validation <= 0.9:
            raise ValueError(f"validation is a share of at most 0.9, got {self.validation}")
        if self.minibatches > self.prompts * self.answers:
            raise ValueError(f"{self.minibatches} minibatches of {self.prompts * self.answers} answers")

    @property
    def settings(self) -> Self:
        """These settings alone, where a subclass (the options of a command) holds more."""
        own: type[Any] = next(cls for cls in type(self).__mro__ if cls.__module__ == __name__)
        return own(**{each.name: getattr(self, each.name) for each in fields(own)})


@dataclass(frozen=True, kw_only=True)
class GRPOSettings(PolicySettings, GRPOSpec):
    """Everything that decides what a training by GRPO does."""

    def __post_init__(self):
        PolicySettings.__post_init__(self)
        GRPOSpec.__post_init__(self)
        if self.answers < 2:
            raise ValueError("GRPO compares the answers to a prompt: it needs at least 2")

    @property
    def method(self) -> GRPOSpec:
        """The method's own settings."""
        return GRPOSpec(**{each.name: getattr(self, each.name) for each in fields(GRPOSpec)})


@dataclass(frozen=True, kw_only=True)
class PPOSettings(PolicySettings, PPOSpec):
    """Everything that decides what a training by PPO does.

    Attributes:
        answers: answers per prompt.
        ptx_data: a text file whose next-token loss is mixed into the updates, for --ptx-weight.
    """

    answers: int = 4
    ptx_data: str | None = None

    def __post_init__(self):
        PolicySettings.__post_init__(self)
        PPOSpec.__post_init__(self)
        if (self.ptx_weight > 0) != (self.ptx_data is not None):
            raise ValueError("ptx_weight and ptx_data belong together")

    @property
    def method(self) -> PPOSpec:
        """The method's own settings."""
        return PPOSpec(**{each.name: getattr(self, each.name) for each in fields(PPOSpec)})


@dataclass(frozen=True, kw_only=True)
class BestOfSettings:
    """Everything that decides what best-of-n writes.

    Attributes:
        model: a run's folder or a model's.
        stage: which of a run's models; the last one if left out.
        data: a file of prompts: JSON lines, JSON or Parquet.
        reward: what scores an answer: exact, number, contains or finished; FILE.py:FUNCTION of your own; or the folder
            of a reward model.
        n: answers per prompt, of which one is kept.
        max_new_tokens: the longest answer, in tokens.
        temperature: of the sampling.
        top_k: keeps the k best tokens.
        top_p: keeps the fewest best tokens that together reach this probability.
        min_reward: best answers with less are left out.
        cut_off: also keeps best answers that were cut off at the longest length.
        seed: of the sampling.
        device: where to compute: cpu, cuda or mps; the fastest if left out.
    """

    model: str
    stage: str | None = None
    data: str
    reward: str
    n: int = 8
    max_new_tokens: int = 64
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_reward: float | None = None
    cut_off: bool = False
    seed: int = 0
    device: str | None = None

    def __post_init__(self):
        if self.n < 1 or self.max_new_tokens < 1:
            raise ValueError(f"n and max_new_tokens must be at least 1, got {self.n} and {self.max_new_tokens}")

    @property
    def settings(self) -> BestOfSettings:
        """These settings alone, where a subclass (the options of a command) holds more."""
        return BestOfSettings(**{each.name: getattr(self, each.name) for each in fields(BestOfSettings)})


GRPO_FILE, PPO_FILE = "grpo.toml", "ppo.toml"
