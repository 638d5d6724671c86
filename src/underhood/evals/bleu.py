"""BLEU: the precision of a translation's n-grams against references, times a penalty for brevity.

``BLEU = 100 · BP · exp(mean of log p_n)`` for n = 1 … 4, where p_n is the share of the hypotheses' n-grams that a
reference has (each at most as often as one reference has it), and ``BP = min(1, exp(1 − r / h))`` for h tokens written
and r in the references (Papineni et al. 2002). Scores compare only under the same tokens and smoothing: the signature
says which (Post 2018).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from underhood.core.errors import UserError

Tokens = Literal["13a", "char", "none"]
Smoothing = Literal["exp", "floor", "add-k", "none"]

ORDERS = 4
"""The longest n-grams."""

FLOOR, ADDED = 0.1, 1
"""Matches that ``floor`` counts in place of 0, and those that ``add-k`` adds to both counts of n > 1."""

_PUNCTUATION = re.compile(r"([\{-\~\[-\` -\&\(-\+\:-\@\/])")
_POINT_AFTER_OTHER = re.compile(r"([^0-9])([\.,])")
_POINT_BEFORE_OTHER = re.compile(r"([\.,])([^0-9])")
_DASH_AFTER_DIGIT = re.compile(r"([0-9])(-)")
_ENTITIES = (("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"))


@dataclass(frozen=True)
class BleuScore:
    """A BLEU score and what it is made of.

    Attributes:
        score: 0 to 100.
        precisions: of n-grams of length 1 to 4, in percent, smoothed.
        brevity_penalty: 1 unless the hypotheses are shorter than the references.
        hypothesis_tokens, reference_tokens: h and r.
        signature: how it was measured, in sacrebleu's form.
    """

    score: float
    precisions: tuple[float, ...]
    brevity_penalty: float
    hypothesis_tokens: int
    reference_tokens: int
    signature: str


def bleu(
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    tokens: Tokens = "13a",
    smoothing: Smoothing = "exp",
    lowercase: bool = False,
    effective_order: bool = False,
) -> BleuScore:
    """BLEU of a corpus: n-grams are counted over all sentences together.

    Args:
        hypotheses: the translations.
        references: for each of them one or more right ones.
        tokens: ``13a`` splits as NIST's mteval-v13a does, ``char`` into characters, ``none`` at spaces.
        smoothing: of orders without a match: ``exp`` halves 1 match for each such order in turn (NIST), ``floor`` takes
            0.1, ``add-k`` adds 1 to both counts of n > 1, ``none`` makes the score 0.
        effective_order: leaves out orders that no hypothesis is long enough for; for single sentences.

    Raises:
        UserError: no hypothesis, or another number of references.
    """
    if not hypotheses or len(hypotheses) != len(references) or not all(references):
        got = f"{len(hypotheses)} translations and references for {len(references)}"
        raise UserError("BLEU needs translations with at least one reference each", got=got)
    right, total, written, wanted = [0] * ORDERS, [0] * ORDERS, 0, 0
    for hypothesis, right_ones in zip(hypotheses, references, strict=True):
        words = split_tokens(hypothesis, tokens, lowercase)
        options = [split_tokens(text, tokens, lowercase) for text in right_ones]
        written += len(words)
        wanted += min((abs(len(option) - len(words)), len(option)) for option in options)[1]
        for n in range(1, ORDERS + 1):
            most: Counter[tuple[str, ...]] = Counter()
            for option in options:
                most |= _ngrams(option, n)
            right[n - 1] += (_ngrams(words, n) & most).total()
            total[n - 1] += max(0, len(words) - n + 1)
    precisions, orders = _precisions(right, total, smoothing)
    counted = precisions[: orders if effective_order else ORDERS]
    penalty = 1.0 if written >= wanted else math.exp(1 - wanted / written) if written else 0.0
    score = penalty * math.exp(sum(map(math.log, counted)) / len(counted)) if counted and min(counted) > 0 else 0.0
    counts = {len(option) for option in references}
    signature = "|".join(
        (
            f"nrefs:{counts.pop() if len(counts) == 1 else 'var'}",
            f"case:{'lc' if lowercase else 'mixed'}",
            f"eff:{'yes' if effective_order else 'no'}",
            f"tok:{tokens}",
            f"smooth:{smoothing}{ {'floor': f'[{FLOOR:.2f}]', 'add-k': f'[{ADDED:.2f}]'}.get(smoothing, '') }",
            f"version:underhood-{_version()}",
        )
    )
    return BleuScore(score, tuple(precisions), penalty, written, wanted, signature)


def sentence_bleu(hypothesis: str, references: Sequence[str], *, tokens: Tokens = "13a") -> BleuScore:
    """BLEU of one sentence, over the orders that it is long enough for."""
    return bleu([hypothesis], [references], tokens=tokens, effective_order=True)


def _precisions(right: Sequence[int], total: Sequence[int], smoothing: Smoothing) -> tuple[list[float], int]:
    """Precisions in percent, and for how many orders there are n-grams at all; the others are 0.

    Smoothing does not help a text without a single right word: all its precisions are 0.
    """
    precisions, half, orders = [0.0] * ORDERS, 1.0, 0
    for index in range(ORDERS if any(right) else 0):
        added = ADDED if smoothing == "add-k" and index > 0 else 0
        matches, ngrams = float(right[index] + added), float(total[index] + added)
        if ngrams == 0:
            break
        orders += 1
        if matches == 0 and smoothing == "exp":
            half *= 2
            precisions[index] = 100 / (half * ngrams)
        elif matches == 0 and smoothing == "floor":
            precisions[index] = 100 * FLOOR / ngrams
        else:
            precisions[index] = 100 * matches / ngrams
    return precisions, orders


def _ngrams(words: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(words[start:] for start in range(n)), strict=False))


def split_tokens(text: str, tokens: Tokens = "13a", lowercase: bool = False) -> list[str]:
    """What counts as the words of a text (see `bleu`)."""
    text = text.lower() if lowercase else text
    text = text.rstrip()
    if tokens == "char":
        return [character for character in text if not character.isspace()]
    if tokens == "none":
        return text.split()
    text = text.replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    for name, character in _ENTITIES:
        text = text.replace(name, character)
    text = _PUNCTUATION.sub(r" \1 ", f" {text} ")
    text = _POINT_AFTER_OTHER.sub(r"\1 \2 ", text)  # a point or comma inside a number stays
    text = _POINT_BEFORE_OTHER.sub(r" \1 \2", text)
    return _DASH_AFTER_DIGIT.sub(r"\1 \2 ", text).split()


def _version() -> str:
    try:
        return version("underhood")
    except PackageNotFoundError:
        return "source"
