"""Four-way multiple choice: which of these summaries belongs to this function? Chance is 25 %."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from underhood.data.instruct import Example, chance
from underhood.data.preferences import Similar
from underhood.data.pydocs import DocumentedFunction
from underhood.data.question_forms import DESCRIBE


@dataclass(frozen=True)
class Question:
    """A question with four answers.

    Attributes:
        prompt: what the user asks; the choices are possible answers of the assistant.
        choices: four different summaries.
        answer: index of the right one.
        function: the function asked about.
    """

    prompt: str
    choices: tuple[str, str, str, str]
    answer: int
    function: str


def summary_questions(functions: Sequence[DocumentedFunction], *, n: int, seed: int) -> list[Question]:
    """Questions about `n` of these functions (all, if they are fewer); wrong choices come from these functions too.

    One wrong choice is from the same module where it has another function, two are from other modules; all are about
    as long as the right one. Each position holds the right answer equally often (±1). Always asked in the first
    phrasing of `question_forms.DESCRIBE`.

    Raises:
        ValueError: fewer than four functions.
    """
    if len(functions) < 4:
        raise ValueError(f"four choices need at least 4 functions, got {len(functions)}")
    similar = Similar(functions)
    pick = chance(seed, "questions")
    chosen = pick.sample(list(functions), min(n, len(functions)))
    positions = [number % 4 for number in range(len(chosen))]
    pick.shuffle(positions)
    questions: list[Question] = []
    for function, position in zip(chosen, positions, strict=True):
        wrong: list[str] = []
        for attempt in range(3):
            other = similar.other(function, pick, same_owner=attempt == 0, avoid=wrong)
            if other is None:  # bad luck in drawing, or nearly all functions share one module
                rest = [f for f in functions if f.summary != function.summary and f.summary not in wrong]
                if not rest:
                    break
                other = pick.choice(rest)
            wrong.append(other.summary)
        if len(wrong) == 3:
            pick.shuffle(wrong)
            a, b, c, d = [*wrong[:position], function.summary, *wrong[position:]]
            questions.append(Question(DESCRIBE[0].format(name=function.name), (a, b, c, d), position, function.name))
    return questions


def continuation_questions(examples: Sequence[Example], *, n: int, seed: int) -> list[Question]:
    """Questions of any text: which of these four is how it goes on?

    From conversations that ask for a continuation (`instruct.generic_examples`), `n` of them at most. The wrong
    choices are true continuations of other passages, from other documents where there are some, the closest in length
    of a random dozen. None where fewer than four different answers exist.
    """
    by_kind: dict[str, list[Example]] = {}
    for example in examples:
        by_kind.setdefault(example.kind, []).append(example)
    pick = chance(seed, "continuation questions")
    drawn = pick.sample(list(examples), min(n, len(examples)))
    questions: list[Question] = []
    for example in drawn:
        pool = pick.sample(by_kind[example.kind], min(24, len(by_kind[example.kind])))
        pool.sort(key=lambda other: (other.function == example.function, abs(len(other.answer) - len(example.answer))))
        wrong = list(dict.fromkeys(other.answer for other in pool if other.answer != example.answer))[:3]
        if len(wrong) == 3:
            position = len(questions) % 4
            a, b, c, d = [*wrong[:position], example.answer, *wrong[position:]]
            questions.append(Question(example.question, (a, b, c, d), position, example.function))
    return questions
