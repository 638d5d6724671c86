"""The list of names that makemore learns: its split, and examples of some letters and the one that follows."""

from __future__ import annotations

import random

import torch
from torch import Tensor

from underhood.core.trial import Trial
from underhood.data.letters import ALPHABET, plain_english

FILE = "text/names/names.txt"
MISSING = f"needs the list of names: {FILE} below --data"


def read_names(trial: Trial) -> list[str] | None:
    """The 32,033 names in the file's order; None without the file."""
    file = trial.file(FILE)
    return None if file is None else file.read_text(encoding="utf-8").split()


def documentation_words() -> list[str]:
    """Distinct words of Python's own documentation, for machines without the list of names."""
    return sorted(set(" ".join(plain_english(only_topics=True)[0]).split()))


def split_names(names: list[str]) -> tuple[list[str], list[str], list[str]]:
    """80, 10 and 10 percent, for training, development and test; shuffled as in the lectures (``random.seed(42)``)."""
    shuffled = list(names)
    random.Random(42).shuffle(shuffled)
    first, second = int(0.8 * len(shuffled)), int(0.9 * len(shuffled))
    return shuffled[:first], shuffled[first:second], shuffled[second:]


def examples(names: list[str], context: int) -> tuple[Tensor, Tensor]:
    """Every letter of every name, and the end, with the `context` letters before it: ids (N, context) and (N,).

    Id 0 ends a name and fills the context before its beginning; ids 1 to 26 are the letters.
    """
    text: list[int] = []
    for name in names:
        text += [0] * context + [ALPHABET.index(letter) for letter in name]
    stream = torch.tensor([*text, *[0] * context])
    windows, following = stream.unfold(0, context + 1, 1)[:, :context], stream[context:]
    # Between two names are `context` ends; a window belongs to a name if it predicts a letter or the first end.
    real = (following > 0) | (windows[:, -1] > 0)
    return windows[real], following[real]
