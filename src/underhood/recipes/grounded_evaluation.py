"""Evaluation of answers from passages: free greedy decoding and decoding held to quotations, on the same questions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice

from underhood.core.protocols import Tokenizer
from underhood.data.instruct import is_refusal
from underhood.evals.generation import GeneratedAnswer, exact_match
from underhood.evals.intervals import wilson
from underhood.evals.table import Measurement, measurement
from underhood.infer.generate import generate
from underhood.models.base import BuiltModel
from underhood.recipes.context_fit import LEAST_ROOM, prompt_limit
from underhood.recipes.training_data import SHOWCASE, ReferenceAnswer, chosen
from underhood.retrieve.absence import absent_words
from underhood.retrieve.retriever import Retriever
from underhood.text.chat import CHATML, Template

MAX_TOKENS = 128

MODES = {"retrieval": False, "quoting": True}
"""Name of each way of decoding in the results, and whether it is held to quotations."""

MEASURED = {
    "describe": "right answers",
    "sentence": "right answers",
    "parameters": "right parameters",
    "invented": "refuses invented names",
}
SHOWN = 4
CITATION = re.compile(r"(?<!\s)\s*\[\d+\]")


def is_right(answer: str, expected: str) -> bool:
    """Whether an answer says what is expected, citations, case and punctuation aside."""
    return exact_match(CITATION.sub("", answer), CITATION.sub("", expected))


def answer_grounded(
    model: BuiltModel,
    tokenizer: Tokenizer,
    retriever: Retriever,
    questions: Sequence[str],
    *,
    quote: bool | None,
    template: Template = CHATML,
    max_tokens: int = MAX_TOKENS,
) -> list[GeneratedAnswer]:
    """Answers each question from the passages that are found for it, greedily."""
    prepared = [retriever.prepare([{"role": "user", "content": question}], quote=quote) for question in questions]
    ids = [template.render(tokenizer, each.messages, add_generation_prompt=True).ids for each in prepared]
    limit = prompt_limit(model.context_length, LEAST_ROOM)
    done = generate(
        model,
        [prompt[-limit:] for prompt in ids],
        max_new_tokens=max_tokens,
        stop_ids=template.stop_ids(tokenizer),
        grammars=[each.grammar for each in prepared],
        tokenizer=tokenizer,
    )
    return [GeneratedAnswer(tokenizer.decode(each.ids).strip(), each.finish == "stop") for each in done]


def evaluate_grounded(
    model: BuiltModel,
    tokenizer: Tokenizer,
    retriever: Retriever,
    questions: Sequence[ReferenceAnswer],
    count: int,
    *,
    seed: int,
    template: Template = CHATML,
    max_tokens: int = MAX_TOKENS,
) -> tuple[dict[str, GeneratedAnswer], list[Measurement]]:
    """Answers `count` questions of each kind in both modes; the samples are those held to quotations.

    Args:
        template: how the model's conversations are written.
        max_tokens: of an answer at most.
    """
    kinds = {kind: [question for question in questions if question.kind == kind] for kind in MEASURED}
    picked = [question for kind in MEASURED for question in chosen(kinds[kind], count, seed)]
    samples: dict[str, GeneratedAnswer] = {}
    measurements: list[Measurement] = []
    for mode, quote in MODES.items():
        prompts = [each.prompt for each in picked]
        answers = answer_grounded(
            model, tokenizer, retriever, prompts, quote=quote, template=template, max_tokens=max_tokens
        )
        samples = {question.prompt: answer for question, answer in zip(picked, answers, strict=True)}
        for kind, name in MEASURED.items():
            right = [
                float(is_refusal(answer.text) if kind == "invented" else is_right(answer.text, question.expected or ""))
                for question, answer in zip(picked, answers, strict=True)
                if question.kind == kind
            ]
            if right:
                interval = wilson(sum(right), len(right))
                measurements.append(measurement(f"{name}, {mode}", interval, numerators=right))
        real = [
            float(is_refusal(answer.text))
            for question, answer in zip(picked, answers, strict=True)
            if question.kind != "invented"
        ]
        if real:
            interval = wilson(sum(real), len(real))
            name = f"refuses what is there, {mode}"
            measurements.append(measurement(name, interval, higher_is_better=False, numerators=real))
    return samples, measurements


def showcase(
    model: BuiltModel,
    tokenizer: Tokenizer,
    retriever: Retriever,
    questions: Sequence[ReferenceAnswer],
    template: Template = CHATML,
) -> list[dict[str, str]]:
    """Questions that the model answers rightly as a chat would ask it: each with its answer and its source.

    Those from different files come first.
    """
    candidates = [each for each in questions if each.kind == SHOWCASE] or [
        each for each in questions if each.kind == "sentence"
    ][: 4 * SHOWN]
    candidates = [each for each in candidates if not _is_plain_chat(retriever, each.prompt)]
    prompts = [each.prompt for each in candidates]
    answers = answer_grounded(model, tokenizer, retriever, prompts, quote=None, template=template) if prompts else []
    shown = []
    for question, answer in zip(candidates, answers, strict=True):
        prepared = retriever.prepare([{"role": "user", "content": question.prompt}])
        cited = prepared.citations(answer.text)
        if cited and is_right(answer.text, question.expected or ""):
            passage = cited[0].passage
            source = f"{passage.source}, line {passage.line}" if passage.line > 1 else passage.source
            title = passage.title or passage.source
            shown.append({"question": question.prompt, "answer": answer.text, "title": title, "source": source})
    files: dict[str, int] = {}
    for example in shown:
        file = example["source"].partition(", line ")[0]
        files[file] = files.get(file, 0) + 1
        example["of_file"] = str(files[file])
    shown.sort(key=lambda example: int(example.pop("of_file")))
    return shown[:SHOWN]


def refused_example(
    model: BuiltModel,
    tokenizer: Tokenizer,
    retriever: Retriever,
    questions: Sequence[ReferenceAnswer],
    template: Template = CHATML,
) -> dict[str, str] | None:
    """A question about an invented name that the model refuses, with the refusal; None if it refuses none of a few.

    A word of the question is nowhere in the index, so that refusing is right whatever the search finds.
    """
    invented = (each.prompt for each in questions if each.kind == "invented")
    candidates = list(islice((text for text in invented if absent_words(text, retriever.index.passages)), 2 * SHOWN))
    well_put = [prompt for prompt in candidates if prompt[0].isupper() and prompt.endswith("?")]
    ordered = [*well_put, *(prompt for prompt in candidates if prompt not in well_put)]
    candidates = [prompt for prompt in ordered if not _is_plain_chat(retriever, prompt)]
    if not candidates:
        return None
    answers = answer_grounded(model, tokenizer, retriever, candidates, quote=None, template=template)
    for prompt, answer in zip(candidates, answers, strict=True):
        if is_refusal(answer.text):
            return {"question": prompt, "answer": answer.text}
    return None


def _is_plain_chat(retriever: Retriever, prompt: str) -> bool:
    """Whether a chat would put the question to the model as it is, with no word about passages."""
    return retriever.prepare([{"role": "user", "content": prompt}]).messages[-1]["content"] == prompt
