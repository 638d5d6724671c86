"""Answers about documentation as a world with a gold reward: a build's fine-tuned model, judged by the text itself."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from underhood.align.experience import PolicyPrompt
from underhood.align.policy_training import RolloutSpec
from underhood.core.errors import UserError
from underhood.data.grounded import FIRST_PASSAGE
from underhood.data.instruct import NOT_THERE
from underhood.models.decoder import Decoder
from underhood.path.lib.gold_frontier import ArmResult
from underhood.path.lib.gold_lab import FRONTIER, GoldLab, LabSizes
from underhood.path.lib.gold_world import GoldWorld
from underhood.recipes.documentation_gold import DocumentationGold
from underhood.recipes.grounded_evaluation import MEASURED
from underhood.recipes.policy_stage import ANSWER_TOKENS, passage_questions
from underhood.recipes.preparation import Clock, Prepared, prepare, run_retriever
from underhood.recipes.run import Run
from underhood.recipes.stage_jobs import load_model
from underhood.recipes.training_data import ReferenceAnswer, chosen
from underhood.retrieve.template import Message

HELD_OUT = 60
"""Questions of each kind to measure with; about what no model of the run was trained on."""

SIZES = LabSizes(
    pair_steps=30,
    pair_lr=2e-4,
    pair_questions=200,
    policy=RolloutSpec(
        steps=20, prompts=8, answers=8, max_new_tokens=ANSWER_TOKENS, micro_batch=32, lr=3e-4, warmup=0.1
    ),
    ppo_steps=10,
    ppo_lr=3e-4,
    best_of=(2, 4, 8),
    measured=90,
)


class DocumentationLab:
    """The lab on a finished run of ``underhood build``: all seeds begin with its fine-tuned model.

    Questions to learn from are those that the run's own alignment learns from. Each seed draws questions, answers and
    preferences of its own; the start is the same.

    Args:
        run: folder of the run.

    Raises:
        UserError: the run's text has no questions with passages, or its model has another shape than a decoder.
    """

    arms = FRONTIER

    def __init__(self, run: Path, seed: int, *, sizes: LabSizes = SIZES):
        self.seed = seed
        opened, prepared = _opened(run)
        template = prepared.template
        learnt = passage_questions(prepared.data, seed)
        if not learnt:
            raise UserError(f"{run} has no questions with passages", expected="a run on documentation, such as pydocs")
        model = load_model(opened, "sft")
        if not isinstance(model, Decoder):
            raise UserError("the lab aligns decoders", got=type(model).__name__)
        self.model = model

        def prompt(messages: Sequence[Message], answer: str) -> PolicyPrompt:
            ids = template.render(prepared.tokenizer, messages, add_generation_prompt=True).ids
            question, _, passage = messages[-1]["content"].partition(FIRST_PASSAGE)
            return PolicyPrompt(ids, question, {"answer": answer, "passage": passage}, messages)

        def fits(prompts: list[PolicyPrompt]) -> list[PolicyPrompt]:
            return [each for each in prompts if len(each.ids) + ANSWER_TOKENS <= model.context_length]

        world = GoldWorld(
            tokenizer=prepared.tokenizer,
            questions=fits([prompt(each.messages[:-1], each.answer) for each in learnt]),
            held_out=fits([prompt(*pair) for pair in held_out_questions(opened, prepared)]),
            stop_ids=tuple(template.stop_ids(prepared.tokenizer)),
            answer_tokens=ANSWER_TOKENS,
            gold=DocumentationGold(),
        )
        self.lab = GoldLab(world=world, sizes=sizes)

    def start(self) -> Decoder:
        return self.model

    def aligned(self, start: Decoder, arm: str) -> ArmResult:
        return self.lab.aligned(start, arm, self.seed)

    def measured(self, policy: Decoder) -> tuple[list[float], list[float]]:
        """Gold rewards of sampled and of greedy answers to all held-out questions."""
        return self.lab.measured(policy, self.seed)


def held_out_questions(run: Run, prepared: Prepared) -> list[tuple[Sequence[Message], str]]:
    """Questions about held-out functions with what the search gives for them, and the right answers."""
    retriever = run_retriever(run.spec, prepared)
    assert retriever is not None  # there are questions with passages
    kinds = [[each for each in prepared.data.grounded if each.kind == kind] for kind in MEASURED]
    picked: list[ReferenceAnswer] = [each for questions in kinds for each in chosen(questions, HELD_OUT, 0)]
    random.Random(0).shuffle(picked)  # curves are measured on the first of them
    turns = [[{"role": "user", "content": each.prompt}] for each in picked]
    return [
        (retriever.prepare(messages, quote=False).messages, right_answer(each))
        for messages, each in zip(turns, picked, strict=True)
    ]


def right_answer(question: ReferenceAnswer) -> str:
    """What the documentation says; of what it does not have, that it is not there."""
    return NOT_THERE if question.kind == "invented" or question.expected is None else question.expected


@cache
def _opened(run: Path) -> tuple[Run, Prepared]:
    opened = Run.open(run, write=False)
    return opened, prepare(opened, Clock(opened))
