"""Supervised fine-tuning (SFT): the base model learns to answer from conversations about its text."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from underhood.recipes.stages.registry import DataSize, Stage, StageInputs, StageSettings

if TYPE_CHECKING:
    from underhood.core.protocols import Tokenizer
    from underhood.recipes.training_data import StageData
    from underhood.train.held_out import HeldOut
    from underhood.train.loop import Objective


@dataclass(frozen=True, kw_only=True)
class SFTSettings(StageSettings):
    """Settings of supervised fine-tuning.

    Attributes:
        unlikelihood: weight of the loss on what an answer has said before (see `align.unlikelihood`).
    """

    lr_scale: float = 0.5
    unlikelihood: float = 0.0


def conversation_tokens(data: StageData, tokenizer: Tokenizer) -> DataSize:
    """Tokens of all conversations; they are packed into rows."""
    from underhood.recipes.training_data import render_examples

    return DataSize(tokens=sum(len(example.ids) for example in render_examples(tokenizer, data.examples)))


def sft_objective(inputs: StageInputs) -> Objective:
    """The loss of the answers' tokens."""
    from underhood.align.rehearsal import RehearsalLoss, rehearsal_weights, remember
    from underhood.align.sft import SFTLoss
    from underhood.data.render import ChatBatches
    from underhood.recipes.training_data import REHEARSED_KINDS, render_examples
    from underhood.text.chat import CHATML
    from underhood.train.loop import Objective

    examples = render_examples(inputs.tokenizer, inputs.data.examples, inputs.template or CHATML)
    plan, loss_fn = inputs.plan, SFTLoss(unlikelihood=inputs.settings.unlikelihood)
    if inputs.template is not None:
        rehearsed = [example.kind in REHEARSED_KINDS for example in inputs.data.examples]
        with inputs.device.autocast():
            changed, reference_MD = remember(inputs.model, examples, rehearsed)
        weights_M = rehearsal_weights(examples, changed, inputs.model.vocab_size, len(reference_MD))
        examples, loss_fn = changed, RehearsalLoss(reference_MD, weights_M)
    batches = ChatBatches(
        examples,
        batch_size=plan.batch_size,
        context_length=plan.context_length,
        seed=inputs.seed,
        in_order=inputs.template is not None,  # `recipes.tuning_data` has put them in proportion
    )
    return Objective(batches, loss_fn)


def sft_held_out(inputs: StageInputs, tokens: int) -> HeldOut | None:
    """Conversations about held-out texts, of the kinds that are trained on."""
    from underhood.align.sft import SFTLoss
    from underhood.data.render import ChatBatches
    from underhood.recipes.training_data import render_examples
    from underhood.text.chat import CHATML, Rendered
    from underhood.train.held_out import HeldOut

    context, examples = inputs.plan.context_length, inputs.data.held_out_examples
    drawn = random.Random(inputs.seed).sample(examples, len(examples))
    answers: list[Rendered] = []
    for answer in render_examples(inputs.tokenizer, drawn, inputs.template or CHATML):
        if len(answer.ids) - 1 > context:
            continue
        if answers and sum(len(each.ids) for each in answers) + len(answer.ids) > tokens:
            break
        answers.append(answer)
    if not answers:
        return None
    batches = ChatBatches(answers, batch_size=1, context_length=context, seed=inputs.seed)
    return HeldOut(batches=[batches(number) for number in range(batches.rows_per_epoch)], loss_fn=SFTLoss())


STAGE = Stage(
    name="sft",
    model="sft",
    starts_from="base",
    title="Fine-tuning (SFT)",
    short_title="SFT",
    model_title="SFT",
    purpose="learns to answer",
    command="Fine-tunes it on conversations.",
    help="""Fine-tunes the base model of a run on conversations about its text; only
    the answers are learnt.

    An interrupted fine-tuning goes on. What was aligned from an earlier
    fine-tuning is removed: it would no longer belong to this one. To fine-tune
    any model on a file of conversations, see underhood finetune.
    """,
    model_description="fine-tuned to answer questions (SFT)",
    data_name="conversations",
    colour=("#0063a0", "#56b4e9"),
    terminal_colour="blue",
    mark="M1 1H11V11H1Z",
    share=0.57,
    epochs=6.0,
    warmup=0.05,
    decay=0.9,
    improves=("answers that end", "right answers, retrieval", "refuses invented names, quoting"),
    curves=("loss", "answer_accuracy"),
    settings=SFTSettings,
    data_size=conversation_tokens,
    objective=sft_objective,
    held_out=sft_held_out,
    keep_best=True,
)
