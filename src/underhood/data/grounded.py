"""Grounded question answering data: a question, the passage that a search gave, and an answer that quotes it.

A small model has no room to remember what thousands of functions do, but it can copy. So it is taught to answer from a
passage put behind the question (retrieval-augmented generation; Lewis et al. 2020), and to say so when the passage is
about something else. Four kinds of question: ``describe``, ``parameters``, ``how-to`` (answered by a sentence of the
passage) and those that the passage does not answer (``unanswered``).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

from underhood.data.instruct import (
    NO_SUCH_NAME,
    NOT_THERE,
    Example,
    chance,
    conversation,
    invented_functions,
)
from underhood.data.pydocs import DocumentedFunction, owners_by_short_name
from underhood.data.question_forms import (
    POINTING_DESCRIBE,
    POINTING_PARAMETERS,
    TYPED_DESCRIBE,
    TYPED_PARAMETERS,
    as_typed,
    how_to_question,
    task_of,
    typed_question,
)
from underhood.data.small_talk import elsewhere

Search = Callable[[str], Sequence[tuple[str, str]]]
"""From a question to (title, text) of the best passages, best first."""

MAX_CHARACTERS = 240
"""A passage's text, at most: a small model copies short ones without losing its place."""

NOTHING_FOUND = "No passage was found."
"""What follows a question for which the search found nothing."""

INVENTED, WRONG_PASSAGE, ELSEWHERE = 0.12, 0.02, 0.08
"""Examples per answered one: about names that do not exist, with a passage about something else, and about matters that
no documentation of a program is about. The search leaves out most passages that do not answer, so those that it finds
mostly do: with more of the second, models refused short questions."""

POINTING = 0.1
"""Share of the questions about a function that go on from the turn before."""


FIRST_PASSAGE = "\n\n[1] "
"""Between a question and its passage."""


def has_passage(example: Example) -> bool:
    """Whether a question comes with a passage."""
    return FIRST_PASSAGE in example.question


def with_passages(question: str, shown: Sequence[str]) -> str:
    """A user's message with numbered passages behind the question, or the note that nothing was found."""
    passages = "\n".join(f"[{number}] {text}" for number, text in enumerate(shown, 1))
    return f"{question}\n\n{passages or NOTHING_FOUND}"


def shown_as(title: str, text: str) -> str:
    """A passage as a model and a reader get it, and the head of an answer from it."""
    return f"`{title}`: {text}" if title else text


def answer_from(title: str, sentence: str, number: int = 1) -> str:
    """An answer that quotes a passage: its title, a sentence of it, its number."""
    return f"{shown_as(title, sentence)} [{number}]"


def parameters_sentence(parameters: Sequence[str]) -> str:
    """A sentence that lists parameters, e.g. "Parameters: `a` and `*p`.", or "Parameters: none.".

    It always begins alike: models that were taught another sentence for functions without parameters gave the summary
    of those instead.
    """
    quoted = [f"`{parameter}`" for parameter in parameters]
    if not quoted:
        return "Parameters: none."
    listed = quoted[0] if len(quoted) == 1 else ", ".join(quoted[:-1]) + " and " + quoted[-1]
    return f"Parameters: {listed}."


def function_text(summary: str, parameters: Sequence[str] | None) -> str:
    """The passage of a function: what it does, and its parameters where they are known and there is room."""
    if parameters is None:
        return summary
    text = f"{summary} {parameters_sentence(parameters)}"
    return text if len(text) <= MAX_CHARACTERS else summary


def text_of(function: DocumentedFunction) -> str:
    """`function_text` of a documented function."""
    return function_text(function.summary, function.parameters if function.signature is not None else None)


def grounded_examples(functions: Sequence[DocumentedFunction], search: Search, *, seed: int) -> list[Example]:
    """Questions about functions with the passage that answers them, and with passages that do not.

    Args:
        search: what a chat would find for a question.
    """
    answered = [_answered(function, chance(seed, "grounded", function.name)) for function in functions]
    return [*answered, *_unanswered(functions, search, seed)]


def _answered(function: DocumentedFunction, pick: random.Random) -> Example:
    name, text = function.name, text_of(function)
    kind = pick.choices(("describe", "parameters", "how-to"), (0.4, 0.35, 0.25))[0]
    sentence, task = function.summary, task_of(function.summary, pick)
    if kind == "how-to" and task is not None:
        question = how_to_question(task, pick)
    elif kind == "parameters" and text != function.summary:
        question = _question(function, TYPED_PARAMETERS, POINTING_PARAMETERS, pick)
        sentence = parameters_sentence(function.parameters)
    else:
        kind, question = "describe", _question(function, TYPED_DESCRIBE, POINTING_DESCRIBE, pick)
    prompt = with_passages(question, [shown_as(name, text)])
    return Example(conversation(prompt, answer_from(name, sentence)), kind, name)


def contrasted_examples(functions: Sequence[DocumentedFunction], *, seed: int) -> list[Example]:
    """Two questions about each function with the same passage: what it does, and its parameters.

    Side by side they show that the question decides which sentence answers, which a model learns slowly from examples
    that differ in everything. Functions without known parameters are left out.
    """
    examples: list[Example] = []
    for function in functions:
        name, text = function.name, text_of(function)
        if text == function.summary:
            continue
        pick = chance(seed, "contrasted", name)
        sentences_of = {"describe": function.summary, "parameters": parameters_sentence(function.parameters)}
        for kind, forms in (("describe", TYPED_DESCRIBE), ("parameters", TYPED_PARAMETERS)):
            prompt = with_passages(typed_question(forms, _written(function, pick), pick), [shown_as(name, text)])
            examples.append(Example(conversation(prompt, answer_from(name, sentences_of[kind])), kind, name))
    return examples


def _question(
    function: DocumentedFunction, named: tuple[str, ...], pointing: tuple[str, ...], pick: random.Random
) -> str:
    if pick.random() < POINTING:
        return as_typed(pick.choice(pointing), pick)
    return typed_question(named, _written(function, pick), pick)


def _written(function: DocumentedFunction, pick: random.Random) -> str:
    """The full name, or sometimes the short one where it belongs to one module only."""
    unique = len(owners_by_short_name().get(function.short_name, {function.owner})) == 1
    return function.short_name if unique and pick.random() < 0.1 else function.name


def _unanswered(functions: Sequence[DocumentedFunction], search: Search, seed: int) -> Iterator[Example]:
    pick = chance(seed, "unanswered")
    for name in invented_functions(functions, round(INVENTED * len(functions)), seed):
        question = typed_question(TYPED_PARAMETERS if pick.random() < 0.3 else TYPED_DESCRIBE, name, pick)
        shown = [shown_as(*hit) for hit in search(question)[:1]]
        yield _unanswered_by(question, shown, NO_SUCH_NAME.format(name=name), name)
    tasks = [(function, task) for function in functions if (task := task_of(function.summary, pick)) is not None]
    for function, task in pick.sample(tasks, min(round(WRONG_PASSAGE * len(functions)), len(tasks))):
        other = pick.choice(functions)
        if other.name != function.name:
            yield _unanswered_by(how_to_question(task, pick), [shown_as(other.name, text_of(other))], NOT_THERE)
    for _, question in zip(range(round(ELSEWHERE * len(functions))), elsewhere(pick), strict=False):
        yield _unanswered_by(question, [shown_as(*hit) for hit in search(question)[:1]], NOT_THERE)


def _unanswered_by(question: str, shown: Sequence[str], refusal: str, name: str = "") -> Example:
    return Example(conversation(with_passages(question, shown), refusal), "unanswered", name or question)
