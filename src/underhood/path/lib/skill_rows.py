"""Instructions of eight skills on short lists of words, with answers, and a web of lists that gives no instructions.

``question : swap fox plum answer : plum fox``. The web holds a list and then, after a semicolon, what somebody made of
it; it never says in words what is done to the list. So a model pretrained on the web has seen all eight, and nothing
has told it when to do which.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from underhood.path.lib.review_world import WordTokenizer

WORDS = (
    *("fox", "cat", "owl", "bee", "elk", "hen", "plum", "fig", "pear", "lime", "oak", "elm"),
    *("ash", "fir", "sun", "moon", "star", "rain", "snow", "wind", "lamp", "cup"),
)

SKILLS: Mapping[str, Callable[[list[str]], list[str]]] = {
    "say": lambda words: words,
    "swap": lambda words: words[::-1],
    "first": lambda words: words[:1],
    "last": lambda words: words[-1:],
    "rest": lambda words: words[1:],
    "most": lambda words: words[:-1],
    "twice": lambda words: [word for word in words for _ in range(2)],
    "ends": lambda words: [words[0], words[-1]],
}
OPENERS = ("sure :", "well :", "here :", "yes :")
"""Each demonstrator begins an answer with one of these, or with none; they mean nothing."""

LENGTHS = (2, 3)
TOKENIZER = WordTokenizer(("question", ":", "answer", ";", ".", "sure", "well", "here", "yes", *SKILLS, *WORDS))


@dataclass(frozen=True)
class Instruction:
    """A skill, its words, and a demonstrator's answer: the right one, unless another is given, after an opener."""

    skill: str
    words: tuple[str, ...]
    opener: str = ""
    answer: str | None = None

    @property
    def prompt_ids(self) -> list[int]:
        return [TOKENIZER.end, *TOKENIZER.encode(f"question : {self.skill} {' '.join(self.words)} answer :")]

    @property
    def right(self) -> str:
        return " ".join(SKILLS[self.skill]([*self.words]))

    @property
    def answer_text(self) -> str:
        return self.right if self.answer is None else self.answer

    @property
    def row(self) -> tuple[list[int], int]:
        """Ids of prompt and answer, and how many are the prompt's."""
        answer = TOKENIZER.encode(f"{self.opener} {self.answer_text}")
        return [*self.prompt_ids, *answer, TOKENIZER.end], len(self.prompt_ids)

    def is_right(self, answer: str) -> bool:
        """Exact match, whatever the opener."""
        words = answer.split()
        return " ".join(words[2:] if words[1:2] == [":"] else words) == self.right


def word_lists(count: int, draw: np.random.Generator) -> list[list[str]]:
    """Lists of different words."""
    return [list(draw.choice(WORDS, size=draw.choice(LENGTHS), replace=False)) for _ in range(count)]


def web_of_lists(count: int, seed: int) -> list[str]:
    """Texts of three lists, each with what one skill makes of it; the skill is not named."""
    draw, texts = np.random.default_rng([seed, 0]), list[str]()
    for _ in range(count):
        skill = list(SKILLS)[draw.integers(len(SKILLS))]
        lists = word_lists(3, draw)
        texts.append(" ".join(f"{' '.join(words)} ; {' '.join(SKILLS[skill](words))} ." for words in lists))
    return texts


def instructions(count: int, seed: int, *, without: Sequence[Instruction] = ()) -> list[Instruction]:
    """Random instructions with answers; none has the skill and the words of one in `without`."""
    draw, known = np.random.default_rng([seed, 1]), {(each.skill, each.words) for each in without}
    drawn: list[Instruction] = []
    while len(drawn) < count:
        [words] = word_lists(1, draw)
        skill = list(SKILLS)[draw.integers(len(SKILLS))]
        opener = draw.choice((*OPENERS, ""))
        if (skill, tuple(words)) not in known:
            drawn.append(Instruction(skill, tuple(words), str(opener)))
    return drawn


def dealt_out(rows: Sequence[Instruction], seed: int) -> list[Instruction]:
    """The same prompts, each with the answer to another."""
    order = np.random.default_rng([seed, 2]).permutation(len(rows))
    return [replace(row, answer=rows[other].answer_text) for row, other in zip(rows, order, strict=True)]
