"""Reinforcement learning as a stage of a build: its own answers to questions about passages, scored.

The reward is verifiable: each question comes with a passage, so the right answer is known. It is a sentence of the
passage, or a refusal where the passage is about something else. Or it is the score of the run's reward model.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from underhood.align.experience import PolicyPrompt
from underhood.align.policy import Policy
from underhood.align.policy_methods import PolicyMethod
from underhood.align.policy_training import PolicyTask, PolicyTrainer, RolloutSpec
from underhood.align.rewards import SampledAnswer
from underhood.core.errors import UserError
from underhood.core.protocols import Tokenizer
from underhood.data.grounded import has_passage
from underhood.data.instruct import Example, is_refusal
from underhood.models.decoder import Decoder
from underhood.recipes.grounded_evaluation import is_right
from underhood.recipes.reward_stage import run_reward
from underhood.recipes.reward_tuning import load_reward_model
from underhood.recipes.stages.registry import DataSize, StageInputs, StageTraining
from underhood.recipes.training_data import StageData
from underhood.text.chat import CHATML, Template
from underhood.train.loop import FitResult

ANSWERS = 8
"""Answers to each question of a step: they are compared with each other."""

ANSWER_TOKENS = 96
"""The longest answer, in tokens."""

PER_KIND = 400
"""Questions of each kind at most; all kinds get as many as the rarest has."""

SAMPLED = 64
"""Questions that are looked at for how long they are."""


def documentation_reward(answers: Sequence[SampledAnswer]) -> list[float]:
    """1 for an answer that ended and says what the passage says, or refuses where it should; else 0."""
    return [float(each.finished and _is_right(each)) for each in answers]


def _is_right(answer: SampledAnswer) -> bool:
    text, expected = answer.answer.strip(), str(answer.record["answer"])
    return is_refusal(text) if is_refusal(expected) else is_right(text, expected)


def passage_questions(data: StageData, seed: int) -> list[Example]:
    """Questions about passages, as many of each kind, in random order."""
    kinds: dict[str, list[Example]] = {}
    for example in data.examples:
        if has_passage(example):
            kinds.setdefault("refusal" if is_refusal(example.answer) else example.kind, []).append(example)
    if not kinds:
        return []
    count = min(PER_KIND, *(len(examples) for examples in kinds.values()))
    pick = random.Random(seed)
    questions = [example for examples in kinds.values() for example in pick.sample(examples, count)]
    pick.shuffle(questions)
    return questions


def policy_prompts(
    questions: Sequence[Example], tokenizer: Tokenizer, template: Template, context_length: int
) -> list[PolicyPrompt]:
    """The questions that leave room for an answer, as the model reads them."""
    rendered = [template.render(tokenizer, each.messages[:-1], add_generation_prompt=True).ids for each in questions]
    return [
        PolicyPrompt(ids, each.question, {"answer": each.answer}, each.messages[:-1])
        for each, ids in zip(questions, rendered, strict=True)
        if len(ids) + ANSWER_TOKENS <= context_length
    ]


def question_tokens(data: StageData, tokenizer: Tokenizer) -> DataSize:
    """Tokens of all questions with their answers; every answer to a question is a row."""
    questions = passage_questions(data, 0)
    if not questions:
        return DataSize(tokens=0)
    lengths = [len(CHATML.render(tokenizer, each.messages).ids) for each in questions[:SAMPLED]]
    average = sum(lengths) // len(lengths)
    return DataSize(tokens=len(questions) * ANSWERS * average, row_tokens=average)


def train_policy_stage(inputs: StageInputs, training: StageTraining, method: PolicyMethod) -> FitResult:
    """Trains the model of a stage by PPO or GRPO on questions about passages.

    Raises:
        UserError: it has another shape than a decoder, or no question leaves room for an answer.
        Interrupted: the user stopped it; a checkpoint has been written.
    """
    model, plan, template = inputs.model, inputs.plan, inputs.template or CHATML
    if not isinstance(model, Decoder):
        raise UserError("reinforcement learning needs a decoder", got=type(model).__name__)
    questions = passage_questions(inputs.data, inputs.seed)
    prompts = policy_prompts(questions, inputs.tokenizer, template, model.context_length)
    if not prompts:
        raise UserError(
            f"no question leaves room for an answer of {ANSWER_TOKENS} tokens in the model's context of "
            f"{model.context_length} tokens"
        )
    reward = documentation_reward
    if inputs.settings.reward == "model":
        assert inputs.run is not None
        reward = run_reward(load_reward_model(inputs.run, device=inputs.device.name))
    rollouts = RolloutSpec(
        steps=plan.steps if plan.fixed else max(plan.steps, plan.max_steps or plan.steps),
        seconds=training.seconds,
        prompts=max(1, plan.batch_size // ANSWERS),
        answers=ANSWERS,
        max_new_tokens=ANSWER_TOKENS,
        lr=training.lr,
        warmup=0.1 if plan.fixed else 0.0,
        save_every=50,
        seed=inputs.seed,
        trained_only=training.trained_only,
    )
    policy = Policy(
        model,
        sampling=rollouts.sampling,
        value_init_std=method.value_init_std,
        reference=method.needs_reference,
        seed=inputs.seed,
    )
    task = PolicyTask(
        prompts=prompts,
        reward=reward,
        reward_name="the reward model" if inputs.settings.reward == "model" else "the reward",
        tokenizer=inputs.tokenizer,
        stop_ids=list(template.stop_ids(inputs.tokenizer)),
    )
    trainer = PolicyTrainer(
        policy,
        method,
        task,
        rollouts,
        stage=plan.stage,
        log=training.log,
        device=inputs.device,
        checkpoints=training.checkpoints,
        state=training.state,
    )
    return trainer.train()
