"""Gold reward of answers about documentation: right, faithful to the passage, ended and short enough.

The documentation itself is the judge: the record of a question has the passage and the answer that it gives. Each of
the four terms can be taken away, to see what a policy does that nobody pays for it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from underhood.align.rewards import SampledAnswer
from underhood.data.instruct import is_refusal
from underhood.recipes.grounded_evaluation import CITATION, is_right

WORDS_MAX = 40
"""An answer of more words is not short: one sentence of a passage has 240 letters at most."""

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


@dataclass(frozen=True, kw_only=True)
class DocumentationGold:
    """The gold reward as a reward function; the weights of its terms, of which 0 takes a term away.

    A record has the fields ``answer``, the right answer, and ``passage``, what the search gave.

    Attributes:
        right: says what the documentation says, or refuses where it says nothing.
        faithful: every sentence is in the passage, or it refuses where the passage is about something else. To refuse
            what the passage has is not faithful: it says that the passage does not have it.
        ended: the model ended it by itself.
        short: `WORDS_MAX` words or fewer.
    """

    right: float = 1.0
    faithful: float = 0.5
    ended: float = 0.25
    short: float = 0.25

    def without(self, term: str) -> DocumentationGold:
        """The same without one of its terms."""
        return replace(self, **{term: 0.0})

    def __call__(self, answers: Sequence[SampledAnswer]) -> list[float]:
        return [self.of(answer) for answer in answers]

    def of(self, answer: SampledAnswer) -> float:
        """The reward of one answer, from 0 to the sum of the weights."""
        terms = documentation_terms(answer)
        return sum(getattr(self, name) * value for name, value in terms.items())


def documentation_terms(answer: SampledAnswer) -> dict[str, bool]:
    """Which of the four things an answer is."""
    text, record = answer.answer.strip(), answer.record
    expected, refused = str(record["answer"]), is_refusal(text)
    right = refused if is_refusal(expected) else is_right(text, expected)
    return {
        "right": right,
        "faithful": right if refused else is_faithful_to(text, str(record["passage"])),
        "ended": answer.finished,
        "short": len(text.split()) <= WORDS_MAX,
    }


def is_faithful_to(answer: str, passage: str) -> bool:
    """Whether an answer quotes: all its sentences are in the passage, its title too.

    Case, white space and citations aside. An answer without words says nothing, which is not faithful.
    """
    source = _plain(passage)
    title, colon, rest = answer.partition(": ")
    if colon and title.startswith("`") and _plain(title) in source:
        answer = rest
    sentences = [_plain(sentence) for sentence in _SENTENCE_END.split(CITATION.sub("", answer).strip())]
    return any(sentences) and all(sentence in source for sentence in sentences)


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
