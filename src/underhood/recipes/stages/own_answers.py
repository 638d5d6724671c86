"""Reinforcement learning on a run's own answers as a stage: what the records of PPO and GRPO share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from underhood.recipes.stages.registry import DataSize, Stage, StageInputs, StageOutcome, StageSettings, StageTraining

if TYPE_CHECKING:
    from underhood.align.policy_methods import PolicyMethod
    from underhood.core.protocols import Tokenizer
    from underhood.recipes.training_data import StageData

POLICY_CURVES = ("reward", "kl", "entropy", "length", "cut_off", "equal_groups", "clip_fraction", "value_error")


@dataclass(frozen=True, kw_only=True)
class PolicyStageSettings(StageSettings):
    """Settings of reinforcement learning in a build.

    Attributes:
        reward: what scores an answer: the text itself (verifiable), or a reward model of the run (model), which a build
            trains first, on preference pairs.
    """

    lr_scale: float = 0.005
    reward: Literal["verifiable", "model"] = "verifiable"


def policy_stage(
    name: str,
    method: str,
    settings: type[PolicyStageSettings],
    make: Callable[[Any], PolicyMethod],
    *,
    colour: tuple[str, str],
    terminal_colour: str,
    mark: str,
) -> Stage:
    """The record of a stage that trains the fine-tuned model on its own answers to questions about passages.

    Args:
        name: of the stage and of its model, e.g. ``ppo``.
        method: the method's full name.
        make: makes the method from the stage's settings.
    """
    title = name.upper()

    def train(inputs: StageInputs, training: StageTraining) -> StageOutcome:
        from underhood.recipes.policy_stage import train_policy_stage

        return StageOutcome(fit=train_policy_stage(inputs, training, make(inputs.settings)))

    return Stage(
        name=name,
        model=name,
        starts_from="sft",
        title=f"Reinforcement learning ({title})",
        short_title=title,
        model_title=title,
        purpose="learns from its own answers",
        command=f"Aligns it by {title}; with --data, any model on any reward.",
        help=f"""Trains the fine-tuned model of a run on its own answers to questions
    about passages: {method}.

    The text verifies the answers: 1 for the passage's sentence, or for a
    refusal where the passage is about something else. With --reward model the
    run's reward model scores them (underhood reward RUN makes it).

    With --data and --reward it trains any model: underhood {name} --data FILE
    --help. An interrupted training goes on.
    """,
        model_description=f"fine-tuned to answer questions, then trained on its own answers ({title})",
        data_name="questions with passages",
        colour=colour,
        terminal_colour=terminal_colour,
        mark=mark,
        share=0.1,
        epochs=1.0,
        cost=3.0,  # writing the answers takes longer than learning from them
        optional=True,
        any_model="--data FILE --reward REWARD",
        uses=lambda chosen: ("reward",) if chosen.reward == "model" else (),
        improves=("right answers, retrieval",),
        curves=POLICY_CURVES,
        first_curves=4,
        settings=settings,
        data_size=_question_tokens,
        objective=None,
        train=train,
    )


def _question_tokens(data: StageData, tokenizer: Tokenizer) -> DataSize:
    from underhood.recipes.policy_stage import question_tokens

    return question_tokens(data, tokenizer)
