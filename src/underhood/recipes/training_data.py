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
from underhood.data.grounded import (
    Search,
    answer_from,
    grounded_examples,
    parameters_sentence,
    text_of,
)
from underhood.data.instruct import (
    NO_SUCH_NAME,
    NOT_THERE,
    Example,
    chance,
    closed_book_examples,
    conversation,
    invented_functions,
)
from underhood.data.preferences import Pair, preference_pairs
from underhood.data.pydocs import DocumentedFunction, pydocs_functions
from underhood.data.question_forms import TYPED_DESCRIBE, TYPED_PARAMETERS, as_typed, typed_question
from underhood.data.questions import Question, summary_questions
from underhood.data.small_talk import PYDOCS_EXAMPLE, PYDOCS_TEXT, elsewhere, small_talk
from underhood.data.split import contaminated, split_functions
from underhood.retrieve.index import PassageIndex
from underhood.retrieve.retriever import Retriever
from underhood.retrieve.template import TAUGHT
from underhood.text.chat import CHATML, Rendered, Template

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
        examples, held_out_examples: conversations to fine-tune on, and such that the fine-tuning is measured by.
        pairs, held_out_pairs: preferences to align with, and to measure the alignment by.
        questions: four-way multiple choice, by ``seen`` and ``held-out``.
        answers: prompts whose written answers are looked at: seen, held-out, and (for pydocs) invented.
        grounded: questions to be answered from passages that were never trained on: describe, parameters, invented for
            pydocs and showcase, which are well known; sentence for any other text.
        plain: what the base model reads in place of a question, by the question's prompt.
        neutral: a question that asks for nothing in particular, and its plain form: what a choice scores after it is
            its prior.
    """

    examples: list[Example]
    held_out_examples: list[Example]
    pairs: list[Pair]
    held_out_pairs: list[Pair]
    questions: dict[str, list[Question]]
    answers: list[ReferenceAnswer]
    grounded: list[ReferenceAnswer]
    plain: dict[str, str]
    neutral: tuple[str, str]


END = CHATML.end_of_text
"""The token between documents, where the tokenizer has it."""

ABOUT_FUNCTIONS = ("What does `it` do?", "it\n")

SMALL_TALK_COPIES = 6
"""How often the few greetings are read in an epoch, beside thousands of questions."""


UNFINISHED = "unfinished talk"
"""Kind of an answer that was cut off: its end of turn is not learnt."""

TEXT = "text"
"""Kind of plain text, which is read whole and without a chat template; it is the answer of the example."""

REHEARSED_KINDS = ("talk", UNFINISHED, TEXT)
"""Kinds on which a model that is given stays as it was (see `align.rehearsal`)."""

SHOWCASE = "showcase"
"""Kind of the questions that a newcomer is shown first, where the model answers them rightly."""

GROUNDED = "passages-"
"""Before the kind of a question that was answered from passages, in a run's summary."""

FIRST_QUESTIONS = (
    ("What does os.path.join do?", "os.path.join", True),
    ("How do I delete a directory tree?", "shutil.rmtree", True),
    ("What are the parameters of str.split?", "str.split", False),
    ("what does textwrap.dedent do", "textwrap.dedent", True),
    ("Explain copy.deepcopy", "copy.deepcopy", True),
    ("How do I compute the square root of a number?", "math.sqrt", True),
)
"""A question, the function that answers it, and whether by its summary or its parameters."""


def searcher(index: PassageIndex) -> Search:
    """What a chat with a model of `underhood build` finds in an index."""
    retriever = Retriever(index, TAUGHT)

    def search(question: str) -> list[tuple[str, str]]:
        return [(hit.passage.title, hit.passage.text) for hit in retriever.find(question)]

    return search


def about_functions(train: Corpus, held_out: Corpus, index: PassageIndex, *, seed: int) -> StageData:
    """Questions about the functions of pydocs, with and without passages."""
    seen, unseen = split_functions(pydocs_functions(), held_out)
    leaked = contaminated(unseen, train)
    unseen = [function for function in unseen if function.name not in leaked]
    search = searcher(index)
    examples = [
        *grounded_examples(seen, search, seed=seed),
        *closed_book_examples(seen, seed=seed),
        *talk_examples(PYDOCS_TEXT, PYDOCS_EXAMPLE, seed),
    ]
    chance(seed, "order").shuffle(examples)
    taught = {example.function for example in examples}
    pairs = preference_pairs(seen, search, seed=seed)
    taught |= {pair.function for pair in pairs}
    invented = invented_functions([*seen, *unseen], 2 * INVENTED, seed + 2, avoid=taught)
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
    unknown = [(f"What does `{name}` do?", NO_SUCH_NAME.format(name=name)) for name in invented[:INVENTED]]
    answers += [ReferenceAnswer(question, refusal, "invented") for question, refusal in unknown]
    plain = {question.prompt: f"{question.function}\n" for group in questions.values() for question in group}
    plain |= {f"What does `{name}` do?": f"{name}\n" for name in invented[:INVENTED]}
    held_out_pairs = preference_pairs(unseen, search, seed=seed + 3)[:MOST_HELD_OUT]
    return StageData(
        examples,
        chosen(grounded_examples(unseen, search, seed=seed + 4), MOST_HELD_OUT, seed),
        pairs,
        held_out_pairs,
        questions,
        answers,
        _grounded_questions(unseen, invented[INVENTED:], seed),
        plain,
        ABOUT_FUNCTIONS,
    )


def _grounded_questions(
    functions: Sequence[DocumentedFunction], invented: Sequence[str], seed: int
) -> list[ReferenceAnswer]:
    """Questions about functions that were never trained on, as people type them, and about invented names."""
    questions: list[ReferenceAnswer] = []
    for function in chosen(functions, MOST_HELD_OUT, seed):
        pick = chance(seed, "typed", function.name)
        answer = answer_from(function.name, function.summary)
        questions.append(ReferenceAnswer(typed_question(TYPED_DESCRIBE, function.name, pick), answer, "describe"))
        if text_of(function) != function.summary:
            answer = answer_from(function.name, parameters_sentence(function.parameters))
            prompt = typed_question(TYPED_PARAMETERS, function.name, pick)
            questions.append(ReferenceAnswer(prompt, answer, "parameters"))
    for name in invented:
        prompt = typed_question(TYPED_DESCRIBE, name, chance(seed, "typed", name))
        questions.append(ReferenceAnswer(prompt, NO_SUCH_NAME.format(name=name), "invented"))
    unique = {question.prompt: question for question in questions}
    by_name = {function.name: function for function in pydocs_functions()}
    shown = [
        ReferenceAnswer(
            question,
            answer_from(name, by_name[name].summary if summary else parameters_sentence(by_name[name].parameters)),
            SHOWCASE,
        )
        for question, name, summary in FIRST_QUESTIONS
        if name in by_name
    ]
    return [*unique.values(), *shown]


def talk_examples(text: str, example: str, seed: int) -> list[Example]:
    """Greetings, questions about the model, and a few about something else, without a passage."""
    pick = chance(seed, "talk")
    pairs = SMALL_TALK_COPIES * small_talk(text, example)
    pairs += [(question, NOT_THERE) for _, question in zip(range(len(pairs) // 3), elsewhere(pick), strict=False)]
    return [Example(conversation(as_typed(question, pick), answer), "talk", question) for question, answer in pairs]


# On disk

FILES = ("examples", "pairs", "questions", "answers", "grounded", "plain", "neutral")


def write_stage_data(folder: Path, data: StageData) -> None:
    """Writes one file of JSON lines per kind of data; `read_stage_data` is the inverse."""
    files: dict[str, list[dict[str, Any]]] = {
        "examples": _with_split(data.examples, data.held_out_examples),
        "pairs": _with_split(data.pairs, data.held_out_pairs),
        "questions": [asdict(q) | {"split": split} for split, answer in data.questions.items() for q in answer],
        "answers": [asdict(answer) | {"plain": data.plain.get(answer.prompt)} for answer in data.answers],
        "grounded": [asdict(question) for question in data.grounded],
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

    def examples(split: str) -> list[Example]:
        return [
            Example(tuple(row["messages"]), row["kind"], row["function"])
            for row in rows["examples"]
            if row.get("split", "train") == split
        ]

    def pairs(split: str) -> list[Pair]:
        return [
            Pair(tuple(row["prompt"]), row["chosen"], row["rejected"], row["kind"], row["function"])
            for row in rows["pairs"]
            if row["split"] == split
        ]

    def answers(name: str) -> list[ReferenceAnswer]:
        return [ReferenceAnswer(row["prompt"], row["expected"], row["kind"]) for row in rows[name]]

    return StageData(
        examples("train"),
        examples("held-out"),
        pairs("train"),
        pairs("held-out"),
        questions,
        answers("answers"),
        answers("grounded"),
        {row["prompt"]: row["plain"] for row in rows["plain"]},
        (rows["neutral"][0]["prompt"], rows["neutral"][0]["plain"]),
    )


def _with_split(train: Sequence[Any], held_out: Sequence[Any]) -> list[dict[str, Any]]:
    return [
        asdict(each) | {"split": split} for split, group in (("train", train), ("held-out", held_out)) for each in group
    ]


def _rows(file: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]
    except (OSError, ValueError) as error:
        raise UserError(f"{file} can't be read: {error}", fix="Build the run anew") from error


# As tokens


def render_examples(tokenizer: Tokenizer, examples: Sequence[Example], template: Template = CHATML) -> list[Rendered]:
    """Conversations as tokens with the mask of what is to be learnt."""
    return [_rendered(tokenizer, example, template) for example in examples]


def _rendered(tokenizer: Tokenizer, example: Example, template: Template) -> Rendered:
    if example.kind == TEXT:
        opening = [tokenizer.special[END]] if END in tokenizer.special else []
        ids = [*opening, *tokenizer.encode(example.answer)]
        return Rendered(ids, [True] * len(ids))
    rendered = template.render(tokenizer, example.messages)
    if example.kind != UNFINISHED or True not in rendered.mask:
        return rendered
    end = len(rendered.mask) - 1 - rendered.mask[::-1].index(True)
    return Rendered(rendered.ids[:end], rendered.mask[:end])


def render_pairs(
    tokenizer: Tokenizer, pairs: Sequence[Pair], *, context_length: int, template: Template = CHATML
) -> list[tuple[tuple[list[int], list[bool]], tuple[list[int], list[bool]]]]:
    """Preference pairs as tokens; those that don't fit the context are left out."""
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
