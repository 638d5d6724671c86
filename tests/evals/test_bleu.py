"""BLEU against sacrebleu, and against a case that is worked out by hand."""

from __future__ import annotations

import math
import random

import pytest
from sacrebleu.metrics import BLEU

from underhood.core.errors import UserError
from underhood.evals.bleu import bleu, sentence_bleu, split_tokens

WORDS = ["the", "cat", "The", "1,000.50", "don't", "it's,", "«oui»", "3-4", "&quot;x&quot;", "U.S.", "(a)", "é", "-"]
SETTINGS = [
    {"tokens": tokens, "smoothing": smoothing, "lowercase": lowercase, "effective_order": effective}
    for tokens in ("13a", "char", "none")
    for smoothing in ("exp", "floor", "add-k", "none")
    for lowercase in (False, True)
    for effective in (False, True)
]
REAL = [
    ("It is a guide to action which ensures that the military always obeys the commands of the party.",
     ["It is a guide to action that ensures that the military will forever heed Party commands.",
      "It is the practical guide for the army always to heed the directions of the party."]),
    ("the the the the the the the", ["The cat is on the mat.", "There is a cat on the mat."]),
    ("Je ne l'ai pas vu, hier; il pleuvait à 9 h 30 (ou 9:30).", ["Je ne l'ai pas vu hier : il pleuvait à 9:30.", "x"]),
    ("", ["Rien.", "Rien du tout."]),
    ("Price: $1,234.56 - 7% off!\n", ["Price: $1,234.56 -- 7 % off!", "It costs 1.234,56 $."]),
]  # fmt: skip


def theirs(hypotheses: list[str], references: list[list[str]], settings: dict) -> tuple[float, str]:
    metric = BLEU(
        tokenize=settings["tokens"],
        smooth_method=settings["smoothing"],
        lowercase=settings["lowercase"],
        effective_order=settings["effective_order"],
    )
    streams = [list(stream) for stream in zip(*references, strict=True)]
    score = metric.corpus_score(hypotheses, streams).score
    return score, str(metric.get_signature())


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_bleu_of_random_and_real_texts_matches_sacrebleu(settings: dict) -> None:
    draw = random.Random(0)
    cases = [([text for text, _ in REAL], [options for _, options in REAL])]
    cases += [([text], [options]) for text, options in REAL]
    for _ in range(40):
        count, options = draw.randint(1, 6), draw.randint(1, 3)
        text = lambda most=9: " ".join(draw.choices(WORDS, k=draw.randint(0, most)))  # noqa: E731
        cases.append(([text() for _ in range(count)], [[text() for _ in range(options)] for _ in range(count)]))
    for hypotheses, references in cases:
        score, signature = theirs(hypotheses, references, settings)
        actual = bleu(hypotheses, references, **settings)
        assert actual.score == pytest.approx(score, abs=1e-9)
        assert actual.signature.rsplit("|", 1)[0] == signature.rsplit("|", 1)[0]


def test_bleu_of_papineni_example_is_what_the_formula_gives() -> None:
    """Papineni et al. 2002, example 2: of seven "the" the reference has two."""
    [written], references = ["the the the the the the the"], [["the cat is on the mat"]]
    actual = bleu([written], references, smoothing="floor")
    assert actual.precisions == pytest.approx((200 / 7, 10 / 6, 10 / 5, 10 / 4))
    assert actual.brevity_penalty == 1.0
    short = bleu(["the cat is on"], references)
    assert short.score == pytest.approx(100 * math.exp(1 - 6 / 4))


def test_identical_sentence_scores_100_however_short() -> None:
    assert sentence_bleu("Oui .", ["Oui ."]).score == pytest.approx(100.0)
    assert bleu(["Oui ."], [["Oui ."]]).score == 0.0  # a corpus without any 4-gram has no BLEU-4
    assert split_tokens("3-4, 1,000.5") == ["3", "-", "4", ",", "1,000.5"]


def test_bleu_without_references_is_refused() -> None:
    with pytest.raises(UserError, match="at least one reference"):
        bleu(["a"], [[]])
    with pytest.raises(UserError, match="at least one reference"):
        bleu([], [])
