"""Training data from a user's own documents: questions about their facts with passages, and how their texts go on."""

from __future__ import annotations

import re
from collections.abc import Sequence

from underhood.data.documents import Corpus
from underhood.data.fact_examples import SENTENCE, FactPassage, fact_examples, invented_questions
from underhood.data.grounded import Search
from underhood.data.instruct import NOT_THERE, Example, chance, generic_examples
from underhood.data.preferences import generic_pairs
from underhood.data.questions import Question, continuation_questions
from underhood.recipes.training_data import (
    MOST_HELD_OUT,
    MOST_QUESTIONS,
    SEEN,
    SHOWCASE,
    UNSEEN,
    ReferenceAnswer,
    StageData,
    searcher,
    talk_examples,
)
from underhood.retrieve.index import PassageIndex
from underhood.retrieve.passages import Passage
from underhood.retrieve.sentences import sentences

ABOUT_TEXT = ("Continue this text:\n\n", "")
SUBJECT, EXAMPLE = "these documents", "they say"

CONTINUATIONS = 0.15
"""Examples that ask how the text goes on, per question about a fact: those teach what a chat needs."""

TALK = 0.25
"""Greetings and questions about the model itself, per question about a fact, at most."""

ENOUGH, ROUNDS = 1200, 5
"""Questions about facts from which no further forms of the same questions are made, and how often they are at most."""

SHOWCASED = 24
"""Questions that a finished model is tried on, to show a newcomer three that it answers."""

_WELL_PUT = re.compile(r"(?!What is an? [A-Z]|.* it\?)[A-Z]")

INVENTED = 60
"""Questions about invented names that the evaluation may draw from."""


def about_text(corpus: Corpus, train: Corpus, held_out: Corpus, index: PassageIndex, *, seed: int) -> StageData:
    """Questions about facts, about how texts go on, and small talk.

    Args:
        corpus: the documents as they were read, from which the passages of the index come.
        train, held_out: the same after cleaning; no question is made from a passage of a held-out one.
    """
    passages = {split: _facts(chosen) for split, chosen in _by_split(corpus, train, held_out, index).items()}
    search = searcher(index)
    facts = _enough_facts(passages[SEEN], search, seed)
    unseen_facts = fact_examples(passages[UNSEEN], search, seed=seed)
    texts = generic_examples(train, seed=seed)
    unseen_texts = generic_examples(held_out, seed=seed, per_document=8)
    if not texts and not facts:
        return StageData([], [], [], [], {}, [], [], {}, ABOUT_TEXT)
    questions: dict[str, list[Question]] = {}
    for split, known in ((SEEN, texts), (UNSEEN, unseen_texts)):
        made = continuation_questions(known, n=MOST_QUESTIONS, seed=seed)
        if made:
            questions[split] = made
    answers = [
        ReferenceAnswer(example.question, example.answer, split)
        for split, known in ((SEEN, texts[:200]), (UNSEEN, unseen_texts[:200]))
        for example in known
    ]
    talk = talk_examples(SUBJECT, EXAMPLE, seed)
    talk = chance(seed, "talk of texts").sample(talk, min(len(talk), round(TALK * len(facts))))
    examples = [*facts, *_continuations(texts, len(facts)), *talk]
    unseen_examples = [*unseen_facts, *_continuations(unseen_texts, len(unseen_facts))]
    for each in (examples, unseen_examples):
        chance(seed, "order").shuffle(each)
    return StageData(
        examples,
        unseen_examples[:MOST_HELD_OUT],
        generic_pairs(train, seed=seed),
        generic_pairs(held_out, seed=seed)[:MOST_HELD_OUT],
        questions,
        answers,
        _asked_later(unseen_facts, [passage for group in passages.values() for passage in group], seed),
        {example.question: _passage(example) for example in (*texts, *unseen_texts)},
        ABOUT_TEXT,
    )


def _continuations(texts: list[Example], facts: int) -> list[Example]:
    """Of the examples that ask how a text goes on, as many as suit a number of questions about facts."""
    return texts[: max(40, round(CONTINUATIONS * facts))]


def _by_split(corpus: Corpus, train: Corpus, held_out: Corpus, index: PassageIndex) -> dict[str, list[Passage]]:
    """The passages of training documents, and those that have a line of a held-out one; others are of duplicates."""
    splits = {document.name: SEEN for document in train.documents}
    splits |= {document.name: UNSEEN for document in held_out.documents}
    lines: dict[tuple[str, int], str] = {}
    whole: dict[str, str] = {}
    for document in corpus.documents:
        split = splits.get(document.name, "")
        if document.lines or document.file:
            lines |= {(document.source, line): split for line in document.lines}
        else:
            whole[document.source] = split
            lines |= {(document.source, line): split for line in range(1, document.text.count("\n") + 2)}
    chosen: dict[str, list[Passage]] = {SEEN: [], UNSEEN: [], "": []}
    following = [*index.passages[1:], None]
    for passage, after in zip(index.passages, following, strict=True):
        end = after.line if after is not None and after.source == passage.source else passage.line + 1
        touched = {
            lines.get((passage.source, line), whole.get(passage.source, ""))
            for line in range(passage.line, max(end, passage.line + 1))
        }
        split = UNSEEN if UNSEEN in touched else "" if touched == {""} else SEEN
        chosen[split].append(passage)
    return chosen


def _enough_facts(passages: Sequence[FactPassage], search: Search, seed: int) -> list[Example]:
    """Questions about every fact; where they are few, each in several forms."""
    questions: dict[str, Example] = {}
    for number in range(ROUNDS):
        for example in fact_examples(passages, search, seed=seed + number):
            questions.setdefault(example.question, example)
        if len(questions) >= ENOUGH:
            break
    return list(questions.values())


def _facts(passages: Sequence[Passage]) -> list[FactPassage]:
    return [FactPassage(passage.title, passage.text, tuple(sentences(passage.text))) for passage in passages]


def _asked_later(unseen: Sequence[Example], everything: Sequence[FactPassage], seed: int) -> list[ReferenceAnswer]:
    """Questions for the evaluation (of held-out facts and of invented names), and those that may be shown first."""
    evaluated = [
        ReferenceAnswer(example.question.partition("\n\n")[0], example.answer, example.kind)
        for example in unseen
        if example.kind == SENTENCE
    ][:MOST_HELD_OUT]
    evaluated += [
        ReferenceAnswer(question, NOT_THERE, "invented")
        for question in invented_questions(everything, INVENTED, seed=seed + 1)
    ]
    titled = [passage for passage in everything if passage.title]
    drawn = chance(seed, "showcase").sample(titled, min(4 * SHOWCASED, len(titled)))
    by_title: dict[str, list[ReferenceAnswer]] = {}
    for example in fact_examples(drawn, lambda _: (), seed=seed + 2, by_words=False):
        question = example.question.partition("\n\n")[0]
        well_put = _WELL_PUT.match(question) and question.endswith("?") and len(question.split()) > 2
        if example.kind == SENTENCE and well_put:
            by_title.setdefault(example.function, []).append(ReferenceAnswer(question, example.answer, SHOWCASE))
    shown = [chance(seed, "shown", title).choice(questions) for title, questions in by_title.items()]
    return [*{each.prompt: each for each in evaluated}.values(), *shown[:SHOWCASED]]


def _passage(example: Example) -> str:
    """The passage itself, without the instruction around it, for a model that only continues text."""
    return example.question.partition("\n\n")[2] + " "
