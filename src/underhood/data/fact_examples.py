"""Grounded question answering data from any documents: questions about their facts, and questions they don't answer.

Each question comes with the passage that holds the answer, and the answer quotes a sentence of it with the passage's
number (see `data.grounded`). Questions about invented names come with whatever the search gives for them, mostly
nothing, and are refused.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from underhood.data.fact_questions import is_field, question_by_words, questions_about
from underhood.data.grounded import Search, answer_from, shown_as, with_passages
from underhood.data.instruct import NOT_THERE, Example, chance, conversation
from underhood.data.small_talk import elsewhere

SHORTEST, LONGEST = 6, 220
"""Characters of a sentence that is asked about."""

INVENTED, WRONG_PASSAGE, ELSEWHERE = 0.10, 0.03, 0.04
"""Examples per answered one: about invented names, with a passage about something else, and about other matters."""

SENTENCE = "sentence"
"""Kind of a question that a sentence answers."""

_NAME = re.compile(r"[^\W\d_]{4,}")
_LETTER = re.compile(r"\w")


@dataclass(frozen=True)
class FactPassage:
    """A passage as its sentences, each exactly as it is in the text."""

    title: str
    text: str
    sentences: tuple[str, ...]


def fact_examples(
    passages: Sequence[FactPassage], search: Search, *, seed: int, by_words: bool = True
) -> list[Example]:
    """Questions about every sentence, and about a tenth as many invented names; in a fixed order for a seed.

    Args:
        search: what a chat would find for a question.
        by_words: also questions of a few words of the sentence, in no good form.
    """
    examples: list[Example] = []
    for number, passage in enumerate(passages):
        pick = chance(seed, "facts", passage.title, str(number))
        for position, sentence in enumerate(passage.sentences):
            if not SHORTEST <= len(sentence) <= LONGEST:
                continue
            questions = list(questions_about(passage.title, sentence, pick, first=position == 0, keywords=by_words))
            asks = by_words and not is_field(passage.title, sentence)
            if asks and (words := question_by_words(sentence, pick)) is not None:
                questions.append(words)
            for question in dict.fromkeys(questions):
                if not _LETTER.search(question):
                    continue
                shown = [shown_as(passage.title, passage.text)]
                answer = answer_from(passage.title, sentence)
                if pick.random() < WRONG_PASSAGE:
                    other = pick.choice(passages)
                    shown = [shown_as(other.title, other.text)]
                    if sentence in other.text:
                        continue
                    answer = NOT_THERE
                kind = SENTENCE if answer != NOT_THERE else "unanswered"
                examples.append(Example(conversation(with_passages(question, shown), answer), kind, passage.title))
    pick = chance(seed, "invented facts")
    unanswered = invented_questions(passages, round(INVENTED * len(examples)), seed=seed)
    for _, question in zip(range(round(ELSEWHERE * len(examples))), elsewhere(pick), strict=False):
        unanswered.append(question)
    for question in unanswered:
        shown = [shown_as(*hit) for hit in search(question)[:1]]
        examples.append(Example(conversation(with_passages(question, shown), NOT_THERE), "unanswered", question))
    return examples


def invented_questions(passages: Sequence[FactPassage], count: int, *, seed: int) -> list[str]:
    """Questions in the forms of these passages about names that none of them has."""
    known = {word.casefold() for passage in passages for word in _NAME.findall(f"{passage.title} {passage.text}")}
    titled = [passage for passage in passages if passage.title and passage.sentences]
    words = sorted({word for passage in titled for word in _NAME.findall(passage.title.rpartition(" > ")[2])})
    if not titled or len(words) < 2:
        return []
    pick = chance(seed, "invented names", str(count))
    questions: dict[str, None] = {}
    for _ in range(8 * count):
        if len(questions) >= count:
            break
        name = invented_name(words, known, pick)
        passage = pick.choice(titled)
        candidates = list(questions_about(name, pick.choice(passage.sentences), pick))
        if name and candidates and name.casefold() in (question := pick.choice(candidates)).casefold():
            questions[question] = None
    return list(questions)


def invented_name(words: Sequence[str], known: set[str], pick: random.Random) -> str:
    """One or two words put together from halves of these; "" if what came out is a known word."""
    made = []
    for _ in range(pick.choice((1, 1, 2))):
        front, back = pick.choice(words), pick.choice(words)
        made.append(front[: (len(front) + 1) // 2] + back[len(back) // 2 :].lower())
    return " ".join(made) if not known & {word.casefold() for word in made} else ""
