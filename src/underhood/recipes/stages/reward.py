"""Reward model (Bradley–Terry; Stiennon et al. 2020) as a stage: it scores answers, for reinforcement learning."""

from __future__ import annotations

from dataclasses import dataclass

from underhood.recipes.stages.preference_pairs import PairSettings, pair_tokens
from underhood.recipes.stages.registry import Stage, StageInputs, StageOutcome, StageTraining


@dataclass(frozen=True, kw_only=True)
class RewardStageSettings(PairSettings):
    """Settings of a build's reward model.

    Attributes:
        head_lr: learning rate of the scalar head.
    """

    lr_scale: float = 0.04
    head_lr: float = 5e-3

    def __post_init__(self):
        super().__post_init__()
        if not self.head_lr > 0:
            raise ValueError(f"head_lr must be above 0, got {self.head_lr}")


def train(inputs: StageInputs, training: StageTraining) -> StageOutcome:
    """See `recipes.reward_stage`."""
    from underhood.recipes.reward_stage import train_reward_stage

    return train_reward_stage(inputs, training)


STAGE = Stage(
    name="reward",
    model="reward",
    starts_from="sft",
    title="Reward model",
    short_title="Reward",
    model_title="Reward",
    purpose="learns to score answers",
    command="Trains a reward model on comparisons, and scores with it.",
    help="""Trains a reward model on the run's preference pairs, the same that
    underhood dpo learns from: a copy of the fine-tuned model with a head that
    scores answers. underhood ppo RUN --reward model (or grpo) learns from its
    scores, best-of and others take it as --reward RUN, and --score FILE scores
    the answers of a file. An interrupted training goes on.

    With --data FILE it trains a reward model from any model, on comparisons of
    your own: see underhood reward --data FILE --help.
    """,
    model_description="fine-tuned to answer questions, then trained to score answers (reward model)",
    data_name="preference pairs",
    colour=("#6b4fa0", "#b39ddb"),
    terminal_colour="magenta",
    mark="M6 0 7.8 4.2 12 6 7.8 7.8 6 12 4.2 7.8 0 6 4.2 4.2Z",
    share=0.08,
    epochs=1.0,  # more than one overfits (Ouyang et al. 2022, section 3.5)
    optional=True,
    scores=True,
    any_model="--data FILE",
    improves=("preference accuracy",),
    curves=("preference_accuracy", "reward_margin"),
    settings=RewardStageSettings,
    data_size=pair_tokens,
    objective=None,
    train=train,
)
