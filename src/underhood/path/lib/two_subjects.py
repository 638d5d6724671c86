"""Made-up messages about two subjects, whose words only reading many of them can sort."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

SUBJECT_WORDS, FILLERS = 80, 60
VOCABULARY = 2 * SUBJECT_WORDS + FILLERS
LENGTH = 12


def messages(count: int, *, seed: int, subject_share: float = 0.4) -> tuple[Tensor, Tensor]:
    """Messages (N, 12) of word ids and the subject of each (N): 0 or 1.

    Each word is one of the subject's own eighty with the chance `subject_share`, else a filler; the first word is
    always a filler.
    """
    rng = np.random.default_rng(seed)
    subjects_N = rng.integers(2, size=count)
    own_NT = rng.random((count, LENGTH)) < subject_share
    own_NT[:, 0] = False
    words_NT = rng.integers(SUBJECT_WORDS, size=(count, LENGTH)) + SUBJECT_WORDS * subjects_N[:, None]
    fillers_NT = rng.integers(FILLERS, size=(count, LENGTH)) + 2 * SUBJECT_WORDS
    return torch.from_numpy(np.where(own_NT, words_NT, fillers_NT)), torch.from_numpy(subjects_N)


def spelled(words_NT: Tensor) -> list[str]:
    """The messages as text, one made-up word per id."""
    return [" ".join(f"word{number}" for number in row) for row in words_NT.tolist()]
