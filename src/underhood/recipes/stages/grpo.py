"""Group relative policy optimisation (GRPO; Shao et al. 2024) as a stage: answers to a question compared in a group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from underhood.recipes.stages.own_answers import PolicyStageSettings, policy_stage

if TYPE_CHECKING:
    from underhood.align.policy_methods import PolicyMethod


@dataclass(frozen=True, kw_only=True)
class GRPOStageSettings(PolicyStageSettings):
    """Settings of GRPO in a build.

    Attributes:
        beta: weight of the KL term that holds the model to what it was before.
    """

    beta: float = 0.04


def dr_grpo(settings: GRPOStageSettings) -> PolicyMethod:
    """GRPO without the standard deviation and the lengths in its weights (Dr. GRPO)."""
    from underhood.align.policy_methods import GRPOMethod
    from underhood.align.policy_specs import GRPOSpec
    from underhood.recipes.policy_stage import ANSWER_TOKENS

    return GRPOMethod(GRPOSpec(normaliser="dr-grpo", scale_std=False, beta=settings.beta), ANSWER_TOKENS)


STAGE = policy_stage(
    "grpo",
    "group relative policy optimisation",
    GRPOStageSettings,
    dr_grpo,
    colour=("#8a5a00", "#d9a441"),
    terminal_colour="yellow",
    mark="M.75.75h10.5v10.5H.75Z",
)
