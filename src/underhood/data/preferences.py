"""Synthetic preference pairs for DPO: a question with a chosen and a rejected answer.

Three kinds about functions, so that no shortcut wins: ``wrong-function`` (its own summary / another function's, from
the same module where possible; from memory), and with a passage ``invented`` (a refusal / a quotation about another
name) and ``over-refusal`` (the right quotation / a refusal), as many of the last as of the second: together they move
how readily the model refuses, and in neither direction.
From any text: ``continuation`` (what truly follows / what follows elsewhere).
"""

from __future__ import annotations

import bisect
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from underhood.data.documents import Corpus
from underhood.data.grounded import Search, answer_from, shown_as, text_of, with_passages
from underhood.data.instruct import (
    NO_SUCH_NAME,
    Messages,
    chance,
    describe_question,
    generic_examples,
    invented_functions,
    sentences,
)
from underhood.data.pydocs import DocumentedFunction
from underhood.data.question_forms import TYPED_DESCRIBE, typed_question


@dataclass(frozen=True)
class Pair:
    """One question, the answer to prefer and the answer to avoid.

    Attributes:
        prompt: the conversation so far; its last message is the user's.
        kind: wrong-function, invented, over-refusal or continuation.
        function: what is asked about.
    """

    prompt: Messages
    chosen: str
    rejected: str
    kind: str
    function: str


def preference_pairs(
    functions: Sequence[DocumentedFunction], search: Search, *, seed: int, refusals: float = 0.25
) -> list[Pair]:
    """Pairs about these functions, in an order that depends on the seed.

    Args:
        search: gives the passage that looks most like an invented name.
        refusals: ``invented`` pairs per function, and as many ``over-refusal`` ones.
    """
    similar = Similar(functions)
    pairs: list[Pair] = []
    for function in functions:
        other = similar.other(function, chance(seed, "wrong", function.name), same_owner=True)
        if other is not None:
            prompt = _asked(function.name, seed)
            pairs.append(Pair(prompt, function.summary, other.summary, "wrong-function", function.name))
    invented = invented_functions(functions, round(refusals * len(functions)), seed + 1)
    for name in invented:
        pick = chance(seed, "invented pair", name)
        question = typed_question(TYPED_DESCRIBE, name, pick)
        other = pick.choice(functions)
        title, text = next(iter(search(question)), (other.name, text_of(other)))
        prompt = _shown(question, title, text)
        quotation = answer_from(title, sentences(text)[0])
        pairs.append(Pair(prompt, NO_SUCH_NAME.format(name=name), quotation, "invented", name))
    for function in chance(seed, "over").sample(list(functions), min(len(invented), len(functions))):
        name = function.name
        question = typed_question(TYPED_DESCRIBE, name, chance(seed, "over pair", name))
        prompt = _shown(question, name, text_of(function))
        quotation = answer_from(name, function.summary)
        pairs.append(Pair(prompt, quotation, NO_SUCH_NAME.format(name=name), "over-refusal", name))
    chance(seed, "order").shuffle(pairs)
    return pairs


def generic_pairs(corpus: Corpus, *, seed: int, per_document: int = 2) -> list[Pair]:
    """Pairs from any text: the true continuation against another document's continuation of similar length."""
    examples = generic_examples(corpus, seed=seed, per_document=per_document)
    by_kind: dict[str, list] = defaultdict(list)
    for example in examples:
        by_kind[example.kind].append(example)
    pairs: list[Pair] = []
    for example in examples:
        pick = chance(seed, "pair", example.question)
        pool = by_kind[example.kind]
        others = [other for other in pick.sample(pool, min(24, len(pool))) if other.answer != example.answer]
        elsewhere = [other for other in others if other.function != example.function] or others
        if elsewhere:
            rejected = min(elsewhere, key=lambda other: abs(len(other.answer) - len(example.answer))).answer
            pairs.append(Pair(example.messages[:-1], example.answer, rejected, "continuation", example.function))
    return pairs


def _shown(question: str, title: str, text: str) -> Messages:
    return ({"role": "user", "content": with_passages(question, [shown_as(title, text)])},)


def _asked(name: str, seed: int) -> Messages:
    return ({"role": "user", "content": describe_question(name, seed)},)


LENGTH_CLASSES = 8


class Similar:
    """Finds other functions whose summaries are about as long, so that length gives no answer away.

    About as long means the same eighth of all lengths. (Taking those closest to the right answer would put it in the
    middle of its rivals: never the longest, never the shortest, and so again given away.)
    """

    def __init__(self, functions: Sequence[DocumentedFunction]):
        self.functions = list(functions)
        self.by_owner: dict[str, list[DocumentedFunction]] = defaultdict(list)
        for function in self.functions:
            self.by_owner[function.owner].append(function)
        lengths = sorted(len(function.summary) for function in self.functions)
        self._limits = (
            [] if not lengths else [lengths[len(lengths) * k // LENGTH_CLASSES] for k in range(1, LENGTH_CLASSES)]
        )
        self.by_class: dict[int, list[DocumentedFunction]] = defaultdict(list)
        for function in self.functions:
            self.by_class[self._class(function)].append(function)

    def _class(self, function: DocumentedFunction) -> int:
        return bisect.bisect_right(self._limits, len(function.summary))

    def other(
        self, function: DocumentedFunction, pick: random.Random, *, same_owner: bool, avoid: Sequence[str] = ()
    ) -> DocumentedFunction | None:
        """A random one from the same module (from any if it has no other), or from another module; as long as this one
        where there is such a one. None when there is none at all."""
        size = self._class(function)
        near = [other for other in self.by_owner[function.owner] if _differs(other, function, avoid)]
        if same_owner and near:
            return pick.choice([other for other in near if self._class(other) == size] or near)
        for pool in (self.by_class[size], self.functions):
            drawn = pick.sample(pool, min(64, len(pool)))
            far = [other for other in drawn if other.owner != function.owner and _differs(other, function, avoid)]
            if far:
                return far[0]
        return pick.choice(near) if near else None


def _differs(other: DocumentedFunction, function: DocumentedFunction, avoid: Sequence[str]) -> bool:
    return other.name != function.name and other.summary != function.summary and other.summary not in avoid
