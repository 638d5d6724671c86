"""Vocabulary, passes and dropout of a pretraining by the amount of text.

A text of some ten kilobytes is learnt by heart within minutes while prediction of other text gets worse. The numbers
were measured on 80 kB of prose, by held-out loss (``docs/build.md``), and for 2.4 MB of documentation; what is between
follows a power of the amount.
"""

from __future__ import annotations

import math

SMALL_TEXT, LARGE_TEXT = 80_000, 2_000_000
"""Bytes of training text: where dropout is full, and where vocabulary is full and dropout none."""

PASSES, GROWTH = 6.0, 0.5
"""How often `SMALL_TEXT` is read at most, and the power of the amount by which that grows."""

DROPOUT = 0.2

LEAST_TOKENS, MOST_TOKENS = 384, 2048
"""The smallest and the largest vocabulary."""


def fitting_vocabulary(text_bytes: int) -> int:
    """Vocabulary for an amount of text: 2,048 tokens for 2 MB, half of it for a fifth of that.

    Merges of a small text are too rare in it to be learnt: with 80 kB, 512 tokens give 2.31 bits per byte of unseen
    text, 2,048 give 2.46.
    """
    fitting = MOST_TOKENS * (text_bytes / LARGE_TEXT) ** (math.log(2) / math.log(5))
    return max(LEAST_TOKENS, min(MOST_TOKENS, 64 * round(fitting / 64)))


def most_passes(text_bytes: float) -> float:
    """How often a text is read at most: 6 times for 80 kB, 12 for four times as much, which also has a larger model."""
    return PASSES * max(text_bytes / SMALL_TEXT, 1.0) ** GROWTH


def fitting_dropout(text_bytes: float) -> float:
    """Residual dropout for a text that is read as often as it may be: less for larger texts, none from 2 MB on."""
    share = math.log(LARGE_TEXT / max(text_bytes, SMALL_TEXT)) / math.log(LARGE_TEXT / SMALL_TEXT)
    return round(DROPOUT * max(share, 0.0), 3)
