"""Proximal policy optimisation (PPO; Schulman et al. 2017) as a stage: a value head learns what to expect."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from underhood.recipes.stages.own_answers import PolicyStageSettings, policy_stage

if TYPE_CHECKING:
    from underhood.align.policy_methods import PolicyMethod


@dataclass(frozen=True, kw_only=True)
class PPOStageSettings(PolicyStageSettings):
    """Settings of PPO in a build.

    Attributes:
        beta: weight of the KL in the reward, which holds the model to what it was before.
    """

    beta: float = 0.05


def short_ppo(settings: PPOStageSettings) -> PolicyMethod:
    """PPO for few steps: two passes over a rollout, a level learning rate; the value head is not kept."""
    from underhood.align.policy_methods import PPOMethod
    from underhood.align.policy_specs import PPOSpec

    return PPOMethod(PPOSpec(beta=settings.beta, missing_end_reward=None, epochs=2, anneal=False))


STAGE = policy_stage(
    "ppo",
    "proximal policy optimisation",
    PPOStageSettings,
    short_ppo,
    colour=("#a3475f", "#e58fa3"),
    terminal_colour="red",
    mark="M6 0 12 6 6 12 0 6Z",
)
