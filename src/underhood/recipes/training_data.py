"""Training data of the later stages: conversations, preferences and test questions, kept in the run's folder.

They are made once, before the plan is, and written as JSON lines beside the token shards. So a run can be read by a
person, resumed, and evaluated again, without the corpus it came from.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from underhood.core.errors import UserError
from underhood.core.files import write_text
from underhood.core.protocols import Tokenizer
from underhood.data.documents import Corpus
from underhood.data.instruct import REFUSAL, Example, generic_examples, instruction_examples, invented_functions
from underhood.data.preferences import Pair, generic_pairs, preference_pairs
from underhood.data.pydocs import pydocs_functions
from underhood.data.questions import Question, continuation_questions, summary_questions
from underhood.data.split import contaminated, split_functions
from underhood.text.chat import ChatTemplate, Rendered

SEEN, UNSEEN = "seen", "held-out"
MOST_QUESTIONS, MOST_HELD_OUT, INVENTED = 400, 400, 200


@dataclass(frozen=True)
class ReferenceAnswer:
    """A prompt to answer and what a right answer would be (None: anything goes)."""

    prompt: str
    expected: str | None
    kind: str


@dataclass(frozen=True)
class StageData:
    """Everything that the later stages learn from and are tested on.

    Attributes:
        examples: conversations to fine-tune on.
        pairs, held_out_pairs: preferences to align with, and to measure the alignment by.
        questions: four-way multiple choice, by ``seen`` and ``held-out``.
        answers: prompts whose written answers are looked at: seen, held-out, and (for pydocs) invented.
        plain: what the base model reads in place of a question, by the question's prompt.
        neutral: a question that asks for nothing in particular, and its plain form: what a choice scores after it is
            its prior.
    """

    examples: list[Example]
    pairs: list[Pair]
    held_out_pairs: list[Pair]
    questions: dict[str, list[Question]]
    answers: list[ReferenceAnswer]
    plain: dict[str, str]
    neutral: tuple[str, str]


ABOUT_FUNCTIONS = ("What does `it` do?", "it\n")
ABOUT_TEXT = ("Continue this text:\n\n", "")


def make_stage_data(data: str, train: Corpus, held_out: Corpus, *, seed: int) -> StageData:
    """Questions about functions for pydocs; about how texts go on for any other corpus."""
    if data == "pydocs":
        return _about_functions(train, held_out, seed)
    return _about_text(train, held_out, seed)


def is_refusal(text: str) -> bool:
    """Whether an answer declines in the form that the refusals are taught in."""
    return text.strip().startswith(REFUSAL.partition("`")[0].strip())


def _about_functions(train: Corpus, held_out: Corpus, seed: int) -> StageData:
    seen, unseen = split_functions(pydocs_functions(), held_out)
    leaked = contaminated(unseen, train)
    unseen = [function for function in unseen if function.name not in leaked]
    examples = instruction_examples(seen, seed=seed)
    taught = {example.function for example in examples}
    pairs = preference_pairs(seen, seed=seed)
    taught |= {pair.function for pair in pairs}
    invented = invented_functions([*seen, *unseen], INVENTED, seed + 2, avoid=taught)
    questions = {
        SEEN: summary_questions(seen, n=MOST_QUESTIONS, seed=seed),
        UNSEEN: summary_questions(unseen, n=MOST_HELD_OUT, seed=seed),
    }
    summaries = {function.name: function.summary for function in (*seen, *unseen)}
    answers = [
        ReferenceAnswer(question.prompt, summaries[question.function], split)
        for split, group in questions.items()
        for question in group
    ]
    answers += [ReferenceAnswer(f"What does `{name}` do?", REFUSAL.format(name=name), "invented") for name in invented]
    plain = {question.prompt: f"{question.function}\n" for group in questions.values() for question in group}
    plain |= {f"What does `{name}` do?": f"{name}\n" for name in invented}
    held_out_pairs = preference_pairs(unseen, seed=seed + 3)[:MOST_HELD_OUT]
    return StageData(examples, pairs, held_out_pairs, questions, answers, plain, ABOUT_FUNCTIONS)


def _about_text(train: Corpus, held_out: Corpus, seed: int) -> StageData:
    examples = generic_examples(train, seed=seed)
    unseen = generic_examples(held_out, seed=seed, per_document=8)
    if not examples:
        return StageData([], [], [], {}, [], {}, ABOUT_TEXT)
    questions: dict[str, list[Question]] = {}
    for split, known in ((SEEN, examples), (UNSEEN, unseen)):
        made = continuation_questions(known, n=MOST_QUESTIONS, seed=seed)
        if made:
            questions[split] = made
    answers = [
        ReferenceAnswer(example.question, example.answer, split)
        for split, known in ((SEEN, examples[:200]), (UNSEEN, unseen[:200]))
        for example in known
    ]
    plain = {example.question: _passage(example) for example in (*examples, *unseen)}
    return StageData(
        examples,
        generic_pairs(train, seed=seed),
        generic_pairs(held_out, seed=seed)[:MOST_HELD_OUT],
        questions,
        answers,
        plain,
        ABOUT_TEXT,
    )


def _passage(example: Example) -> str:
    """The passage itself, without the instruction around it, for a model that only continues text."""
    return example.question.partition("\n\n")[2] + " "


# On disk

FILES = ("examples", "pairs", "questions", "answers", "plain", "neutral")


def write_stage_data(folder: Path, data: StageData) -> None:
    """Writes one file of JSON lines per kind of data; `read_stage_data` is the inverse."""
    files: dict[str, list[dict[str, Any]]] = {
        "examples": [asdict(example) for example in data.examples],
        "pairs": [asdict(pair) | {"split": "train"} for pair in data.pairs]
        + [asdict(pair) | {"split": "held-out"} for pair in data.held_out_pairs],
        "questions": [asdict(q) | {"split": split} for split, answer in data.questions.items() for q in answer],
        "answers": [asdict(answer) | {"plain": data.plain.get(answer.prompt)} for answer in data.answers],
        "plain": [{"prompt": prompt, "plain": plain} for prompt, plain in data.plain.items()],
        "neutral": [{"prompt": data.neutral[0], "plain": data.neutral[1]}],
    }
    for name, rows in files.items():
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        write_text(folder / f"{name}.jsonl", "".join(lines))


def read_stage_data(folder: Path) -> StageData:
    """The data that `write_stage_data` left in a folder.

    Raises:
        UserError: a file is missing or damaged.
    """
    rows = {name: _rows(folder / f"{name}.jsonl") for name in FILES}
    questions: dict[str, list[Question]] = {}
    for row in rows["questions"]:
        question = Question(row["prompt"], tuple(row["choices"]), row["answer"], row["function"])
        questions.setdefault(row["split"], []).append(question)

    def pairs(split: str) -> list[Pair]:
        return [
            Pair(tuple(row["prompt"]), row["chosen"], row["rejected"], row["kind"], row["function"])
            for row in rows["pairs"]
            if row["split"] == split
        ]

    return StageData(
        [Example(tuple(row["messages"]), row["kind"], row["function"]) for row in rows["examples"]],
        pairs("train"),
        pairs("held-out"),
        questions,
        [ReferenceAnswer(row["prompt"], row["expected"], row["kind"]) for row in rows["answers"]],
        {row["prompt"]: row["plain"] for row in rows["plain"]},
        (rows["neutral"][0]["prompt"], rows["neutral"][0]["plain"]),
    )


def _rows(file: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]
    except (OSError, ValueError) as error:
        raise UserError(f"{file} can't be read: {error}", fix="Build the run anew") from error


# As tokens


def render_examples(tokenizer: Tokenizer, examples: Sequence[Example]) -> list[Rendered]:
    """Conversations as tokens with the mask of what is to be learnt."""
    template = ChatTemplate()
    return [template.render(tokenizer, example.messages) for example in examples]


def render_pairs(
    tokenizer: Tokenizer, pairs: Sequence[Pair], *, context_length: int
) -> list[tuple[tuple[list[int], list[bool]], tuple[list[int], list[bool]]]]:
    """Preference pairs as tokens; those that don't fit the context are left out."""
    template = ChatTemplate()
    rendered = []
    for pair in pairs:
        sides = []
        for answer in (pair.chosen, pair.rejected):
            side = template.render(tokenizer, [*pair.prompt, {"role": "assistant", "content": answer}])
            sides.append((side.ids, side.mask))
        if max(len(ids) for ids, _ in sides) - 1 <= context_length:
            rendered.append((sides[0], sides[1]))
    return rendered


def chosen(items: Sequence[Any], count: int, seed: int) -> list[Any]:
    """`count` of the items (all, if they are fewer), drawn by the seed, in their own order."""
    picked = sorted(random.Random(seed).sample(range(len(items)), min(count, len(items))))
    return [items[i] for i in picked]
