"""Direct preference optimisation (DPO; Rafailov et al. 2023): the fine-tuned model learns which answer is better."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from underhood.recipes.stages.preference_pairs import PairSettings, pair_tokens, with_refusals
from underhood.recipes.stages.registry import Stage, StageInputs

if TYPE_CHECKING:
    from underhood.train.loop import Objective


@dataclass(frozen=True, kw_only=True)
class DPOSettings(PairSettings):
    """Settings of preference training.

    Attributes:
        beta: DPO's β: how strongly the model is held to what it was before.
    """

    lr_scale: float = 0.02
    beta: float = 0.1


def dpo_objective(inputs: StageInputs) -> Objective:
    """DPO's loss against the model as it is now, with a share of the chosen answers' own loss."""
    from underhood.align.dpo import DPOLoss, DPOSpec, score_all_pairs
    from underhood.align.pairs import PairBatches
    from underhood.recipes.training_data import render_pairs
    from underhood.text.chat import CHATML
    from underhood.train.loop import Objective

    plan, model = inputs.plan, inputs.model
    context = model.context_length or 1 << 20
    chosen = with_refusals(inputs.data.pairs, inputs.settings.refusals)
    template = inputs.template or CHATML
    pairs = render_pairs(inputs.tokenizer, chosen, context_length=context, template=template)
    # Only as many pairs as the planned steps read: the reference scores none in vain.
    count = min(len(pairs), plan.steps * plan.batch_size)
    drawn = sorted(random.Random(inputs.seed).sample(range(len(pairs)), count))
    batches = PairBatches(
        [pairs[i] for i in drawn], batch_size=plan.batch_size, seed=inputs.seed, context_length=context
    )
    with inputs.device.autocast():
        reference = score_all_pairs(model, batches)
    return Objective(batches, DPOLoss(reference, DPOSpec(beta=inputs.settings.beta, sft_weight=0.2)))


STAGE = Stage(
    name="dpo",
    model="dpo",
    starts_from="sft",
    title="Preference training (DPO)",
    short_title="DPO",
    model_title="DPO",
    purpose="learns to prefer",
    command="Aligns it with preferences.",
    help="""Aligns the fine-tuned model of a run with preferences: direct preference
    optimisation on pairs of a better and a worse answer.

    A short alignment moves above all how readily the model refuses: --refusals
    is the dial.

    An interrupted alignment goes on. With --feedback, what people said about
    answers is half of what is learnt: edited answers are preferred to the
    originals, answers with thumbs up to those with thumbs down.

    With --data FILE it aligns any model with pairs of your own, by DPO, IPO,
    KTO, ORPO or SimPO: see underhood dpo --data FILE --help.
    """,
    model_description="fine-tuned to answer questions, then aligned with preferences (DPO)",
    data_name="preference pairs",
    colour=("#007553", "#2fbf93"),
    terminal_colour="green",
    mark="M6 .5 12 11H0Z",
    share=0.05,
    epochs=1.0,
    cost=4 / 3,  # the frozen reference reads each pair once more, forwards only: a third of a training step
    warmup=0.1,
    decay=0.9,
    optional=True,
    takes_feedback=True,
    any_model="--data FILE",
    improves=("preference accuracy",),
    curves=("preference_accuracy", "reward_margin"),  # the loss falls whenever the margin grows, in plainer units
    settings=DPOSettings,
    data_size=pair_tokens,
    objective=dpo_objective,
)
