"""Proximal policy optimisation (PPO; Schulman et al. 2017) as a stage: rewards that the text itself can verify."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from underhood.recipes.stages.registry import DataSize, Stage, StageInputs, StageSettings, StageTraining

if TYPE_CHECKING:
    from underhood.core.protocols import Tokenizer
    from underhood.recipes.training_data import StageData
    from underhood.train.loop import FitResult


@dataclass(frozen=True, kw_only=True)
class PPOStageSettings(StageSettings):
    """Settings of PPO in a build.

    Attributes:
        beta: weight of the KL in the reward, which holds the model to what it was before.
    """

    lr_scale: float = 0.005
    beta: float = 0.05


def question_tokens(data: StageData, tokenizer: Tokenizer) -> DataSize:
    """See `recipes.policy_stage`."""
    from underhood.recipes import policy_stage

    return policy_stage.question_tokens(data, tokenizer)


def train(inputs: StageInputs, training: StageTraining) -> FitResult:
    """Trains by PPO with a value head beside the model; it is not kept."""
    from underhood.align.policy_methods import PPOMethod
    from underhood.align.policy_specs import PPOSpec
    from underhood.recipes.policy_stage import train_policy_stage

    spec = PPOSpec(beta=inputs.settings.beta, missing_end_reward=0.0, epochs=2, anneal=False)
    return train_policy_stage(inputs, training, PPOMethod(spec))


STAGE = Stage(
    name="ppo",
    model="ppo",
    starts_from="sft",
    title="Reinforcement learning (PPO)",
    short_title="PPO",
    model_title="PPO",
    purpose="learns from its own answers",
    command="Aligns it by PPO; with --data, any model on any reward.",
    help="""Trains the fine-tuned model of a run on its own answers to questions
    about passages: proximal policy optimisation with a reward that the text
    verifies: 1 for the passage's sentence, or for a refusal where the
    passage is about something else.

    With --data and --reward it trains any model: underhood ppo --data FILE
    --help. An interrupted training goes on.
    """,
    model_description="fine-tuned to answer questions, then trained on its own answers (PPO)",
    data_name="questions with passages",
    colour=("#a3475f", "#e58fa3"),
    terminal_colour="red",
    mark="M6 0 12 6 6 12 0 6Z",
    share=0.1,
    epochs=1.0,
    cost=3.0,  # writing the answers takes longer than learning from them
    optional=True,
    improves=("right answers, retrieval",),
    curves=("reward", "kl", "entropy", "length"),
    settings=PPOStageSettings,
    data_size=question_tokens,
    objective=None,
    train=train,
)
