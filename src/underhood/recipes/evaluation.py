"""The evaluation stage: the same measurements after every training stage, with intervals, beside simple baselines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from underhood.core.protocols import LanguageModel, Tokenizer
from underhood.data.instruct import is_refusal
from underhood.data.pack import EvaluationWindows
from underhood.data.preferences import Pair
from underhood.data.questions import Question
from underhood.data.shards import TokenShards
from underhood.evals.compression import compressors_bits_per_byte, compressors_bytes
from underhood.evals.generation import GeneratedAnswer, evaluate_answers, evaluate_refusals
from underhood.evals.intervals import wilson
from underhood.evals.multiple_choice import ChoiceItem, ChoiceReport, encode_chat_choices, encode_choices, score_choices
from underhood.evals.perplexity import held_out_loss
from underhood.evals.preference import PairLogProbs, PreferenceItem, compare_with_reference, score_pairs
from underhood.evals.table import Measurement, StageResults, measurement
from underhood.infer.generate import generate
from underhood.models.base import BuiltModel
from underhood.models.ngram import NGramSpec
from underhood.recipes.context_fit import LEAST_ROOM, UNBOUNDED, fitting_prompts, prompt_limit
from underhood.recipes.grounded_evaluation import MAX_TOKENS, evaluate_grounded
from underhood.recipes.stages.registry import Stage
from underhood.recipes.training_data import END, SEEN, UNSEEN, ReferenceAnswer, StageData, chosen
from underhood.retrieve.retriever import Retriever
from underhood.text.chat import CHATML, Template

UNPRIMED = "bz2 on its own"
"""The compressor as people use it: on the held-out text alone."""

BITS, ENDS = "bits per byte", "answers that end"
NGRAM_ORDER = 5
WINDOW = 1024
"""Tokens per window of held-out text for a model without a longest context."""
SAMPLE_TOKENS = 96
REWARD_BETA = 0.1
"""Scale of the reward margin of a stage that has no β of its own."""


CHAT = "chat"
"""Kind of the general prompts, whose first words are compared with those of the model before."""

SHORT_ANSWER = 24
"""Tokens of a general answer where time is short."""

GROUNDED_COST = 3 * 600
"""Tokens that could be read in the time of one question of each of three kinds, answered freely and in quotations."""


@dataclass(frozen=True, kw_only=True)
class EvalSize:
    """How much is measured.

    Attributes:
        questions: multiple-choice questions of each kind.
        pairs: preference pairs.
        answers: written answers of each kind.
        grounded: questions of each kind that are answered from passages, in each way of decoding.
        held_out_tokens: about how many tokens of the held-out text bits per byte reads; None reads all.
        answer_tokens, grounded_tokens: tokens of an answer, without and with passages, at most.
    """

    questions: int = 240
    pairs: int = 200
    answers: int = 120
    grounded: int = 60
    held_out_tokens: int | None = None
    answer_tokens: int = SAMPLE_TOKENS
    grounded_tokens: int = MAX_TOKENS

    @classmethod
    def for_minutes(cls, minutes: float) -> "EvalSize":
        """Evaluation in proportion to the job: a one-minute build is not judged for a minute."""
        scale = min(1.0, max(0.25, minutes / 5))
        return cls(
            questions=round(240 * scale),
            pairs=round(200 * scale),
            answers=round(80 * scale),
            grounded=round(60 * scale),
        )

    @classmethod
    def within(cls, tokens: float) -> "EvalSize":
        """Evaluation of a large model for the time in which it reads about so many tokens."""
        grounded = max(2, min(60, round(0.7 * tokens / GROUNDED_COST)))
        held_out = max(512, min(50_000, round(0.2 * tokens)))
        answers = max(2, min(10, round(0.1 * tokens / (2 * SHORT_ANSWER))))
        return cls(
            questions=0,
            pairs=min(200, grounded),
            answers=answers,
            grounded=grounded,
            held_out_tokens=held_out,
            answer_tokens=SHORT_ANSWER,
            grounded_tokens=MAX_TOKENS * 3 // 4,
        )


@dataclass(frozen=True)
class Evaluated:
    """What one model scored, what it wrote, and how many questions its context is too short for."""

    results: StageResults
    samples: dict[str, GeneratedAnswer]
    left_out: int = 0


def baselines(train: TokenShards, held_out: TokenShards, tokenizer: Tokenizer) -> list[Measurement]:
    """Bits per byte of the held-out text for compressors primed with the training text, and for an n-gram.

    The texts are decoded from the shards, which hold them byte for byte.
    """
    texts = [
        [tokenizer.decode_bytes(shards.document(n)[:-1].tolist()).decode() for n in range(len(shards))]
        for shards in (train, held_out)
    ]
    measurements = [
        Measurement(name=name, value=value, unit="bits/byte", higher_is_better=False, n=len(held_out))
        for name, value in compressors_bits_per_byte(*texts).items()
    ]
    alone = 8 * compressors_bytes("\0".join(texts[1]).encode())["bz2"] / max(held_out.bytes, 1)
    measurements.append(
        Measurement(name=UNPRIMED, value=alone, unit="bits/byte", higher_is_better=False, n=len(held_out))
    )
    model = NGramSpec(order=NGRAM_ORDER, vocab_size=tokenizer.vocab_size).build()
    start = train.eot_id  # what the windows of `EvaluationWindows` open a document with
    model.fit(np.concatenate([[start], train.document(n)]) for n in range(len(train)))
    report = held_out_loss(model, _windows(held_out, WINDOW))
    name = f"Kneser–Ney {NGRAM_ORDER}-gram"
    measurements.append(measurement(name, report.interval(), unit="bits/byte", higher_is_better=False))
    return measurements


def evaluate(
    stage: Stage,
    model: BuiltModel,
    data: StageData,
    held_out: TokenShards,
    tokenizer: Tokenizer,
    size: EvalSize,
    *,
    seed: int,
    beta: float,
    reference: PairLogProbs | None = None,
    retriever: Retriever | None = None,
    template: Template = CHATML,
    device: Any = "cpu",
) -> tuple[Evaluated, PairLogProbs | None]:
    """Measures the model that a stage made; returns its pair scores too, the next stage's reference.

    A model that has not learnt to chat reads the name alone where others get a question, as its documents have it.

    Args:
        beta: scales the reward margin.
        retriever: finds the passages for questions that are to be answered from them.
        template: how the model's conversations are written.
    """
    plain = not stage.chats
    measurements = [_bits_per_byte(held_out, model, device, tokenizer, size.held_out_tokens)]
    left_out = 0
    for split, questions in data.questions.items():
        selected = chosen(questions, size.questions, seed)
        report = _chosen_over_prior(model, tokenizer, selected, data, None if plain else template, device)
        left_out += len(selected) - (0 if report is None else len(report.answers))
        if report is None:
            continue
        credit = report.credit("raw")
        measurements.append(
            measurement(f"multiple choice, {split}", report.accuracy("raw"), chance=report.chance, numerators=credit)
        )
    if not plain:
        context = model.context_length
        answers = fitting_prompts(data.answers, tokenizer, template, prompt_limit(context, size.answer_tokens))
        limit = prompt_limit(context, size.grounded_tokens)
        grounded_questions = fitting_prompts(data.grounded, tokenizer, template, limit, passages=True)
        left_out += len(data.answers) - len(answers) + len(data.grounded) - len(grounded_questions)
        data = replace(data, answers=answers, grounded=grounded_questions)
    plain_prompts = data.plain if plain else None
    writer = _writer(model, tokenizer, plain_prompts, template, held_out.eot_id, size.answer_tokens)
    samples, written = _written(writer, data, size, seed, plain)
    measurements += written
    if retriever is not None and data.grounded and not plain:
        quoted, grounded = evaluate_grounded(
            model,
            tokenizer,
            retriever,
            data.grounded,
            size.grounded,
            seed=seed,
            template=template,
            max_tokens=size.grounded_tokens,
        )
        samples |= quoted
        measurements += grounded
    scores = None
    if data.held_out_pairs and not plain:
        limit = model.context_length or UNBOUNDED
        items = _preferences(tokenizer, chosen(data.held_out_pairs, size.pairs, seed), template)
        items = [item for item in items if len(item.prompt) + max(map(len, (item.chosen, item.rejected))) <= limit]
        if items:
            scores = score_pairs(model, items, device=device)
            measurements += _preference_measurements(scores, reference, beta)
    return Evaluated(StageResults(stage=stage.model, measurements=tuple(measurements)), samples, left_out), scores


def _bits_per_byte(
    held_out: TokenShards, model: BuiltModel, device: Any, tokenizer: Tokenizer, tokens: int | None
) -> Measurement:
    context = model.context_length or WINDOW
    if tokens is None:
        windows = _windows(held_out, context)
    else:
        windows = sampled_windows(held_out, tokenizer, tokens, min(context, WINDOW))
    report = held_out_loss(model, windows, device=device)
    return measurement(
        BITS,
        report.interval(),
        unit="bits/byte",
        higher_is_better=False,
        numerators=report.bits_N,
        denominators=report.bytes_N,
    )


def _windows(held_out: TokenShards, context: int) -> EvaluationWindows:
    # A quarter of each window is context only: nearly all that a longer overlap would give, at half its cost.
    return EvaluationWindows.of_shards(held_out, context_length=context, stride=max(1, context * 3 // 4))


SAMPLED = 192
"""Tokens of each document that a sample of the held-out text reads at most."""


def sampled_windows(held_out: TokenShards, tokenizer: Tokenizer, tokens: int, context: int) -> EvaluationWindows:
    """The beginnings of held-out documents, spread evenly over all of them, until `tokens` tokens are together."""
    limit = max(1, min(SAMPLED, context, tokens))
    count = max(1, min(len(held_out), tokens // limit))
    picked = [held_out.document(n * len(held_out) // count)[:limit].tolist() for n in range(count)]
    texts = [[id for id in ids if id != held_out.eot_id] for ids in picked]
    sizes = [len(tokenizer.decode_bytes(ids)) for ids in texts]
    return EvaluationWindows(picked, sizes, eot_id=held_out.eot_id, context_length=context)


def _chosen_over_prior(
    model: LanguageModel,
    tokenizer: Tokenizer,
    selected: Sequence[Question],
    data: StageData,
    template: Template | None,
    device: Any,
) -> ChoiceReport | None:
    """Choices scored by what the question adds to them: the same choices after a neutral question are the prior.

    Questions of which a choice is longer than the context are left out; None if none is left.
    """
    neutral = [replace(question, prompt=data.neutral[0]) for question in selected]
    plain = data.plain | dict([data.neutral])
    groups = [_choices(tokenizer, questions, plain, template) for questions in (selected, neutral)]
    limit = model.context_length or UNBOUNDED
    fitting = [
        pair for pair in zip(*groups, strict=True) if max(len(ids) for item in pair for ids in item.choices) <= limit
    ]
    if not fitting:
        return None
    reports = [score_choices(model, items, device=device) for items in zip(*fitting, strict=True)]
    return reports[0].over(reports[1])


def _choices(
    tokenizer: Tokenizer, questions: Sequence[Any], plain: dict[str, str], template: Template | None
) -> list[ChoiceItem]:
    if template is None:
        bare = [type(q)(plain[q.prompt], q.choices, q.answer, q.function) for q in questions]
        return encode_choices(tokenizer, bare, opening=[tokenizer.special[END]])
    end = template.stop_ids(tokenizer)[:1]
    return encode_chat_choices(tokenizer, questions, lambda prompt: _opened(tokenizer, prompt, template), end)


def _opened(tokenizer: Tokenizer, prompt: str, template: Template) -> list[int]:
    """A question in chat form, up to where the assistant begins to speak."""
    return template.render(tokenizer, [{"role": "user", "content": prompt}], add_generation_prompt=True).ids


def _writer(
    model: LanguageModel,
    tokenizer: Tokenizer,
    plain: dict[str, str] | None,
    template: Template,
    eot_id: int,
    max_tokens: int,
) -> Callable[[Sequence[str]], list[GeneratedAnswer]]:
    """Answers prompts greedily: the model's own best guess, and the same every time."""
    stop = [*template.stop_ids(tokenizer), *([] if plain is None else [eot_id])]

    def write(prompts: Sequence[str]) -> list[GeneratedAnswer]:
        if plain is None:
            ids = [_opened(tokenizer, prompt, template) for prompt in prompts]
        else:
            ids = [[eot_id, *tokenizer.encode(plain.get(prompt, prompt))] for prompt in prompts]
        limit = prompt_limit(model.context_length, LEAST_ROOM)
        done = generate(model, [piece[-limit:] for piece in ids], max_new_tokens=max_tokens, stop_ids=stop)
        return [
            GeneratedAnswer(tokenizer.decode(completion.ids).strip(), completion.finish == "stop")
            for completion in done
        ]

    return write


def _written(
    write: Callable[[Sequence[str]], list[GeneratedAnswer]], data: StageData, size: EvalSize, seed: int, plain: bool
) -> tuple[dict[str, GeneratedAnswer], list[Measurement]]:
    """Answers to a share of the prompts of each kind, and what can be counted about them."""
    kinds: dict[str, list[ReferenceAnswer]] = {}
    for answer in data.answers:
        kinds.setdefault(answer.kind, []).append(answer)
    samples: dict[str, GeneratedAnswer] = {}
    measurements: list[Measurement] = []
    picked = {kind: chosen(answers, size.answers, seed) for kind, answers in kinds.items()}
    if plain:  # the base model is shown beside the others, but it was never asked to answer anything
        for answers in picked.values():
            prompts = [answer.prompt for answer in answers[:12]]
            samples |= dict(zip(prompts, write(prompts), strict=True))
        return samples, measurements
    ended: list[float] = []
    for kind in (kind for kind in picked if kind != "invented"):
        if not picked[kind]:
            continue
        prompts = [answer.prompt for answer in picked[kind]]
        report = evaluate_answers(write, prompts, [answer.expected or "" for answer in picked[kind]])
        samples |= dict(zip(prompts, report.answers, strict=True))
        ended += report.ended_N.tolist() if kind != CHAT else []  # those are cut off on purpose
        if kind == UNSEEN:
            measurements.append(measurement("right answers, closed book", report.exact, numerators=report.exact_N))
        measurements.append(
            measurement(f"ROUGE-L of answers, {kind}", report.rouge_l, unit="", numerators=report.rouge_l_N)
        )
    if "invented" in picked and SEEN in picked:
        invented = [answer.prompt for answer in picked["invented"]]
        real = [answer.prompt for answer in picked[SEEN]]
        report = evaluate_refusals(
            lambda prompts: [samples[p] for p in prompts] if prompts[0] in samples else write(prompts),
            invented,
            real,
            is_refusal,
        )
        samples |= dict(zip(invented, report.invented_answers, strict=True))
        ended += [float(answer.ended) for answer in report.invented_answers]
        measurements.append(measurement("refuses invented functions", report.invented, numerators=report.invented_N))
        measurements.append(
            measurement("refuses real functions", report.real, higher_is_better=False, numerators=report.real_N)
        )
    if ended:
        measurements.insert(0, _share(ENDS, ended))
    return samples, measurements


def _share(name: str, items: Sequence[float]) -> Measurement:
    return measurement(name, wilson(float(np.sum(items)), len(items)), numerators=items)


def _preferences(tokenizer: Tokenizer, pairs: Sequence[Pair], template: Template) -> list[PreferenceItem]:
    end = template.stop_ids(tokenizer)[0]
    return [
        PreferenceItem(
            tuple(template.render(tokenizer, pair.prompt, add_generation_prompt=True).ids),
            (*tokenizer.encode(pair.chosen), end),
            (*tokenizer.encode(pair.rejected), end),
        )
        for pair in pairs
    ]


def _preference_measurements(scores: PairLogProbs, reference: PairLogProbs | None, beta: float) -> list[Measurement]:
    report = compare_with_reference(scores, reference, beta=beta)
    measurements = [
        measurement(
            "preference accuracy", report.likelihood_accuracy(), chance=0.5, numerators=report.likelihood_credit()
        )
    ]
    if reference is not None:
        measurements.append(measurement("reward margin", report.margin(), unit="nats", numerators=report.margins_N))
    return measurements
