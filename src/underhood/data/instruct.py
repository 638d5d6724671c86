"""Synthetic instruction data without passages: questions and checkable answers made from documentation.

Two kinds about functions: what does it do (``describe``: its summary) and ``refusal`` for functions that don't exist.
Two kinds from any text: ``continue`` it, and what comes ``after`` a line. Every example depends on (seed, function or
document) only, so that more data changes none of them.
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from underhood.data.documents import Corpus
from underhood.data.pydocs import DocumentedFunction, known_names
from underhood.data.question_forms import DESCRIBE, PARAMETERS

Messages = tuple[dict[str, str], ...]
"""A conversation: ``{"role": "user" | "assistant" | "system", "content": text}``."""

NO_SUCH_NAME = "`{name}`: There is no such name in the documents."
"""Begins as a right answer does: a small model first copies the name, then looks whether a passage goes on with it."""

NOT_THERE = "That is not in the documents."


@dataclass(frozen=True)
class Example:
    """One conversation to learn from.

    Attributes:
        messages: a user's message and the assistant's answer.
        kind: describe, refusal, continue or after; and those of `data.grounded`.
        function: the function asked about (an invented name for refusals), or the document's name.
    """

    messages: Messages
    kind: str
    function: str

    @property
    def question(self) -> str:
        return self.messages[-2]["content"]

    @property
    def answer(self) -> str:
        return self.messages[-1]["content"]


def is_refusal(text: str) -> bool:
    """Whether an answer declines in one of the forms that the refusals are taught in."""
    return NOT_THERE in text or NO_SUCH_NAME.rpartition("`: ")[2] in text


def conversation(question: str, answer: str) -> Messages:
    """One turn of a user and one of the assistant."""
    return ({"role": "user", "content": question}, {"role": "assistant", "content": answer})


def chance(seed: int, *what: str) -> random.Random:
    """Randomness of its own for each thing: the same whatever else is in the data."""
    return random.Random("\0".join((str(seed), *what)))


def describe_question(name: str, seed: int) -> str:
    """One of the ways to ask what a function does."""
    return chance(seed, "describe", name).choice(DESCRIBE).format(name=name)


def closed_book_examples(
    functions: Sequence[DocumentedFunction], *, seed: int, share: float = 0.22, refusals: float = 0.2
) -> list[Example]:
    """Questions without a passage: a share of these functions described from memory, and names that don't exist.

    Args:
        share: of the functions that are asked about.
        refusals: share of all examples that ask about functions that don't exist.
    """
    examples = [
        Example(conversation(describe_question(function.name, seed), function.summary), "describe", function.name)
        for function in functions
        if chance(seed, "closed book", function.name).random() < share
    ]
    for name in invented_functions(functions, round(len(examples) * refusals / (1 - refusals)), seed):
        question = chance(seed, "refusal", name).choice(DESCRIBE + PARAMETERS).format(name=name)
        examples.append(Example(conversation(question, NO_SUCH_NAME.format(name=name)), "refusal", name))
    return examples


def invented_functions(
    functions: Sequence[DocumentedFunction], n: int, seed: int, *, avoid: Collection[str] = ()
) -> list[str]:
    """Plausible names of functions that don't exist, made by recombining these functions' modules and words.

    Half of them put one module's function into another (``textwrap.listdir``); half make a new name from words of two
    real ones (``shutil.copy_matrix``). None is the name of anything in the standard library, documented or not. Fewer
    than `n` come back when the functions are too few to recombine.

    Args:
        avoid: names not to use (those a model has been trained to refuse, when it is to be tested).
    """
    known = known_names()
    words_used = {name.rpartition(".")[2] for name in known}
    owners = sorted({function.owner for function in functions if function.owner != "builtins"})
    plain = sorted({f.name.rpartition(".")[2] for f in functions if f.short_name.islower() and "." not in f.short_name})
    parts = sorted({word for tail in plain for word in tail.split("_") if len(word) >= 3 and word.isalpha()})
    pick = chance(seed, "invented", str(len(functions)))
    invented: dict[str, None] = {}
    if not owners or len(plain) < 2:
        return []
    for attempt in range(40 * n):
        if len(invented) >= n:
            break
        if attempt % 2:
            tail = pick.choice(plain)
        else:
            tail = pick.choice(parts) + "_" + pick.choice(parts)
            if tail in words_used or len(set(tail.split("_"))) == 1:
                continue
        name = f"{pick.choice(owners)}.{tail}"
        if name not in known and name not in avoid:
            invented[name] = None
    return list(invented)


def generic_examples(corpus: Corpus, *, seed: int, per_document: int = 2) -> list[Example]:
    """Conversations that any text supports without claiming more than it says.

    ``continue``: a passage of one to three sentences, answered by the sentence or two that follow it. ``after``: one
    line of a text, answered by the next (verse, lists, dialogue). Documents too short for either give none. Up to
    `per_document` of each kind and 4 kB of text.
    """
    examples: list[Example] = []
    for document in corpus.documents:
        pick = chance(seed, "generic", document.name)
        count = per_document * max(1, document.bytes // 4096)
        for lead, rest in _passages(document.text, pick, count):
            question = f"Continue this text:\n\n{lead}"
            examples.append(Example(conversation(question, rest), "continue", document.name))
        for line, following in _line_pairs(document.text, pick, count):
            question = f"What comes after this line?\n\n{line}"
            examples.append(Example(conversation(question, following), "after", document.name))
    unique = {example.question: example for example in reversed(examples)}  # one right answer per question
    examples = [example for example in examples if unique[example.question] is example]
    chance(seed, "order").shuffle(examples)
    return examples


_SENTENCE_END = re.compile(r"(?:(?<=[.!?…])|(?<=[.!?…][\"'”’)]))\s+|\n\s*\n")


def sentences(text: str) -> list[str]:
    """Sentences and paragraphs of a text, each on one line."""
    return [" ".join(piece.split()) for piece in _SENTENCE_END.split(text) if piece and piece.strip()]


def _passages(text: str, pick: random.Random, count: int) -> Iterable[tuple[str, str]]:
    pieces = sentences(text)
    starts = list(range(max(0, len(pieces) - 1)))
    pick.shuffle(starts)
    count_so_far = 0
    for start in starts:
        if count_so_far == count:
            return
        lead = pieces[start]
        after = start + 1
        while len(lead) < 80 and after < len(pieces) - 1:
            lead += " " + pieces[after]
            after += 1
        rest = pieces[after]
        if after + 1 < len(pieces) and len(rest) < 60:
            rest += " " + pieces[after + 1]
        if 20 <= len(lead) <= 400 and 10 <= len(rest) <= 300:
            count_so_far += 1
            yield lead, rest


def _line_pairs(text: str, pick: random.Random, count: int) -> Iterable[tuple[str, str]]:
    lines = [line.strip() for line in text.split("\n")]
    good = [n for n in range(len(lines) - 1) if 10 <= len(lines[n]) <= 100 and 3 <= len(lines[n + 1]) <= 100]
    pick.shuffle(good)
    for number in good[:count]:
        yield lines[number], lines[number + 1]
