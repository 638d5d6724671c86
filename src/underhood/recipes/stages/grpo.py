"""Group relative policy optimisation (GRPO; Shao et al. 2024) as a stage: rewards that the text itself can verify."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from underhood.recipes.stages.registry import DataSize, Stage, StageInputs, StageSettings, StageTraining

if TYPE_CHECKING:
    from underhood.core.protocols import Tokenizer
    from underhood.recipes.training_data import StageData
    from underhood.train.loop import FitResult


@dataclass(frozen=True, kw_only=True)
class GRPOStageSettings(StageSettings):
    """Settings of GRPO in a build.

    Attributes:
        beta: weight of the KL term that holds the model to what it was before.
    """

    lr_scale: float = 0.005
    beta: float = 0.04


def question_tokens(data: StageData, tokenizer: Tokenizer) -> DataSize:
    """See `recipes.policy_stage`."""
    from underhood.recipes import policy_stage

    return policy_stage.question_tokens(data, tokenizer)


def train(inputs: StageInputs, training: StageTraining) -> FitResult:
    """Trains by GRPO without the standard deviation and the lengths in its weights (Dr. GRPO)."""
    from underhood.align.policy_methods import GRPOMethod
    from underhood.align.policy_specs import GRPOSpec
    from underhood.recipes.policy_stage import ANSWER_TOKENS, train_policy_stage

    spec = GRPOSpec(normaliser="dr-grpo", scale_std=False, beta=inputs.settings.beta)
    return train_policy_stage(inputs, training, GRPOMethod(spec, ANSWER_TOKENS))


STAGE = Stage(
    name="grpo",
    model="grpo",
    starts_from="sft",
    title="Reinforcement learning (GRPO)",
    short_title="GRPO",
    model_title="GRPO",
    purpose="learns from its own answers",
    command="Aligns it by GRPO; with --data, any model on any reward.",
    help="""Trains the fine-tuned model of a run on its own answers to questions
    about passages: group relative policy optimisation with a reward that the
    text verifies: 1 for the passage's sentence, or for a refusal where the
    passage is about something else.

    With --data and --reward it trains any model: underhood grpo --data FILE
    --help. An interrupted training goes on.
    """,
    model_description="fine-tuned to answer questions, then trained on its own answers (GRPO)",
    data_name="questions with passages",
    colour=("#8a5a00", "#d9a441"),
    terminal_colour="yellow",
    mark="M.75.75h10.5v10.5H.75Z",
    share=0.1,
    epochs=1.0,
    cost=3.0,  # writing the answers takes longer than learning from them
    optional=True,
    improves=("right answers, retrieval",),
    curves=("reward", "kl", "entropy", "length"),
    settings=GRPOStageSettings,
    data_size=question_tokens,
    objective=None,
    train=train,
)
