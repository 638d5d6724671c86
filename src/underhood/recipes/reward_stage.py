"""Reward model as a stage of a run: trained on the run's preference pairs, measured on held-out ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from underhood.align.rankings import RankedAnswers, RankingBatches
from underhood.align.reward_model import RewardLoss, RewardModel, RewardSpec
from underhood.align.rewards import RewardFunction, SampledAnswer
from underhood.core.checkpoint import module_tensors
from underhood.core.config import to_json
from underhood.core.errors import UserError
from underhood.core.protocols import Tokenizer
from underhood.data.preferences import Pair
from underhood.evals.intervals import wilson
from underhood.evals.preference import TIE, credit
from underhood.evals.table import StageResults, measurement
from underhood.models.decoder import Decoder
from underhood.recipes.evaluation import Evaluated
from underhood.recipes.judged_training import JudgedObjective
from underhood.recipes.reward_tuning import MOST_REFERENCES, STAGE, LoadedRewardModel
from underhood.recipes.stages.preference_pairs import with_refusals
from underhood.recipes.stages.registry import StageInputs, StageOutcome, StageTraining
from underhood.recipes.training import save_every
from underhood.recipes.training_data import chosen, render_pairs
from underhood.text.chat import CHATML, Template
from underhood.train.loop import FitSpec, fit
from underhood.train.optim import AdamWSpec
from underhood.train.schedule import ScheduleSpec
from underhood.train.stopping import Interrupted

MEASURED = 200
"""Held-out pairs that the finished model is measured on, at most."""

SAVE_SECONDS = 30.0
"""Planned seconds between two checkpoints."""

TextPair = tuple[list[int], list[int]]
"""The ids of a better and of a worse answer, each behind its prompt."""


def pair_texts(
    tokenizer: Tokenizer, pairs: Sequence[Pair], *, context_length: int, template: Template
) -> list[TextPair]:
    """Both answers of each pair as the model reads them, up to the token that ends the answer; long ones left out."""
    sides = render_pairs(tokenizer, pairs, context_length=context_length - 1, template=template)
    return [(_ended(*better), _ended(*worse)) for better, worse in sides]


def _ended(ids: list[int], mask: list[bool]) -> list[int]:
    """Without what the template writes behind the answer's end: the score is read at the end token."""
    return ids[: len(mask) - mask[::-1].index(True)]


def train_reward_stage(inputs: StageInputs, training: StageTraining) -> StageOutcome:
    """Trains the model of a stage, with a new head, to score the better answer of a pair higher.

    The scores' zero is the mean score of the better answers. That of the worse ones is kept beside it.

    Raises:
        UserError: the model has another shape than a decoder, or no pair fits its context.
        Interrupted: the user stopped it; a checkpoint has been written.
    """
    decoder, plan, template = inputs.model, inputs.plan, inputs.template or CHATML
    if not isinstance(decoder, Decoder):
        raise UserError("a reward model needs a decoder", got=type(decoder).__name__)
    balanced = with_refusals(inputs.data.pairs, inputs.settings.refusals)
    room = {"context_length": decoder.context_length, "template": template}
    texts = pair_texts(inputs.tokenizer, balanced, **room)
    if not texts:
        raise UserError(f"no preference pair fits the model's context of {decoder.context_length} tokens")
    torch.manual_seed(inputs.seed)
    described = RewardSpec()
    model = described.build(decoder)
    objective = _objective(texts, plan.batch_size, inputs.seed)
    head_rate = (("head.", inputs.settings.head_lr),)
    result = fit(
        model,
        objective.batches,
        objective.loss_fn,
        AdamWSpec(lr=training.lr, betas=(0.9, 0.99), weight_decay=0.0, rates=head_rate).build(model),
        FitSpec(
            steps=plan.steps,
            seconds=training.seconds,
            max_steps=plan.max_steps,
            schedule=ScheduleSpec(warmup=0.1, decay=0.9),
            save_every=save_every(plan, SAVE_SECONDS),
            keep=1,
            trained_only=training.trained_only,
        ),
        stage=plan.stage,
        device=inputs.device,
        log=training.log,
        checkpoints=training.checkpoints,
        state=dict(training.state),
    )
    if result.stopped:
        raise Interrupted(plan.stage, result.last_step)
    model.eval()
    references = texts[:MOST_REFERENCES]
    with inputs.device.autocast():
        model.normalize([better for better, _ in references])
        rejected = float(model.scores([worse for _, worse in references]).double().mean())
    measured = pair_texts(inputs.tokenizer, chosen(inputs.data.held_out_pairs, MEASURED, inputs.seed), **room)
    if measured:
        figures = _objective(measured, plan.batch_size, inputs.seed).measure(model, inputs.device)
        accuracy, margin = figures["preference_accuracy"], figures["reward_margin"]
        training.log.event(
            plan.stage, "eval", step=result.last_step, preference_accuracy=accuracy, reward_margin=margin
        )
    facts = {"reward": to_json(described), "rejected": rejected}
    return StageOutcome(fit=result, groups={"head": module_tensors(model.head)}, facts=facts)


def _objective(texts: Sequence[TextPair], batch_size: int, seed: int) -> JudgedObjective:
    rankings = [RankedAnswers((better, worse), (0, 1)) for better, worse in texts]
    return JudgedObjective(RankingBatches(rankings, batch_size=batch_size, seed=seed), RewardLoss())


def run_reward(judge: LoadedRewardModel) -> RewardFunction:
    """The scores of a run's reward model as a reward; an answer that was cut off gets those of the worse answers.

    The reward model has only seen answers that ended, so what it says about others means nothing.
    """

    def reward(answers: Sequence[SampledAnswer]) -> list[float]:
        scores = judge.reward(answers)
        return [score if each.finished else judge.rejected for each, score in zip(answers, scores, strict=True)]

    return reward


def evaluate_reward_model(
    model: RewardModel, tokenizer: Tokenizer, pairs: Sequence[Pair], count: int, *, seed: int, template: Template
) -> Evaluated:
    """Measures how often a reward model scores the better answer of a held-out pair higher."""
    drawn = chosen(pairs, count, seed)
    texts = pair_texts(tokenizer, drawn, context_length=model.model.context_length, template=template)
    if not texts:
        return Evaluated(StageResults(stage=STAGE, measurements=()), {}, len(drawn))
    scores_N = model.scores([text for pair in texts for text in pair]).double().numpy()
    credit_N = credit(np.asarray(scores_N[::2] - scores_N[1::2]), TIE)
    accuracy = wilson(float(credit_N.sum()), len(credit_N))
    right = measurement("preference accuracy", accuracy, chance=0.5, numerators=credit_N)
    return Evaluated(StageResults(stage=STAGE, measurements=(right,)), {}, len(drawn) - len(texts))
