"""Choices scored in batches against plain logits; ties, normalisation and tokens that straddle the border."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from tiny_models import Bigram, Bytes
from torch import nn

from underhood.evals.multiple_choice import (
    ChoiceItem,
    ChoiceReport,
    ChoiceScore,
    encode_chat_choices,
    encode_choices,
    score_choices,
)


@dataclass(frozen=True)
class Asked:
    prompt: str
    choices: tuple[str, ...]
    answer: int


QUESTIONS = [
    Asked("The capital of France is", (" Paris.", " Rome.", " a very long way from here.", " Oslo."), 0),
    Asked("2 + 2 =", (" 5", " 4"), 1),
    Asked("Wörter zählen: ", ("drei Äpfel", "ein Öl", "ü"), 2),
]


def test_choice_scores_match_one_by_one_logits():
    model, tokenizer = Bigram(512), Bytes()
    items = encode_choices(tokenizer, QUESTIONS, opening=[511])
    report = score_choices(model, items, batch_tokens=100)
    model.eval()
    for question, item, scores in zip(QUESTIONS, items, report.scores, strict=True):
        for text, ids, score in zip(question.choices, item.choices, scores, strict=True):
            whole = torch.tensor([[511, *tokenizer.encode(question.prompt + text)]])
            with torch.no_grad():
                logs = model(whole[:, :-1]).double().log_softmax(-1)[0]
            picked = logs.gather(-1, whole[0, 1:, None])[-len(ids) :].sum()
            assert score.log_prob == pytest.approx(float(picked), abs=1e-5)
            assert score.tokens == len(ids)
            assert score.bytes == len(text.encode())
    assert report.answers == (0, 1, 2)
    assert report.chance == pytest.approx((1 / 4 + 1 / 2 + 1 / 3) / 3)


def test_choice_normalisations_pick_different_answers():
    long_, short, wide = ChoiceScore(-12.0, 6, 24), ChoiceScore(-9.0, 2, 6), ChoiceScore(-11.0, 2, 44)
    report = ChoiceReport(((long_, short, wide),), (1,))
    assert report.accuracy("raw").value == 1  # −9 is the largest sum
    assert ChoiceReport(report.scores, (0,)).accuracy("token").value == 1  # −2 per token
    assert ChoiceReport(report.scores, (2,)).accuracy("byte").value == 1  # −0.25 per byte
    assert report.accuracy("token").value == report.accuracy("byte").value == 0


def test_choice_ties_share_the_credit_so_that_ignorance_scores_chance():
    class Ignorant(nn.Module):
        vocab_size, context_length = 512, None

        def forward(self, tokens, *, cache=None, positions=None):
            return torch.zeros(*tokens.shape, 512)

    same_length = [Asked("x", (" aa", " bb", " cc", " dd"), n % 4) for n in range(10)]
    report = score_choices(Ignorant(), encode_choices(Bytes(), same_length), batch_tokens=30)
    for by in ("raw", "token", "byte"):
        assert report.accuracy(by).value == report.chance == 0.25
    assert report.scores[0][0].log_prob == pytest.approx(-3 * math.log(512), rel=1e-6)
    # Unequal lengths: the plain sum prefers the shortest, the means don't.
    report = score_choices(Ignorant(), encode_choices(Bytes(), [Asked("x", (" a", " bbb"), 0)]))
    np.testing.assert_allclose([report.credit(by)[0] for by in ("raw", "token", "byte")], [1.0, 0.5, 0.5])


def test_choice_tokens_that_straddle_the_border_are_scored_whole():
    tokenizer = Bytes(joined=("e ", " P", "ab"))
    # "ab" joins the prompt's last letter with the choice's first: it belongs to the choice, for every choice.
    (item,) = encode_choices(tokenizer, [Asked("xa", ("bc", "cc"), 0)])
    assert item.prompt == tuple(b"x")
    assert [tokenizer.decode(choice) for choice in item.choices] == ["abc", "acc"]
    # A space at the end of the prompt moves to the choice, where the tokenizer has a token for it.
    (item,) = encode_choices(tokenizer, [Asked("So: ", ("Paris", "Rome"), 0)])
    assert item.prompt == tuple(b"So:")
    assert item.choices[0][0] == tokenizer.joined[" P"]
    assert item.byte_counts == (5, 4)


def test_chat_choices_take_the_template_as_ids():
    render = lambda prompt: [500, *prompt.encode(), 501]  # noqa: E731
    (item,) = encode_chat_choices(Bytes(), [Asked("hi", (" yes", "no "), 1)], render, end=[502])
    assert item == ChoiceItem((500, *b"hi", 501), ((*b"yes", 502), (*b"no", 502)), (3, 2), 1)
    assert score_choices(Bigram(512), [item]).scores[0][0].tokens == 4


def test_choice_accuracy_has_wilsons_interval():
    good, bad = ChoiceScore(-1.0, 1, 1), ChoiceScore(-2.0, 1, 1)
    interval = ChoiceReport(((good, bad),) * 60 + ((bad, good),) * 40, (0,) * 100).accuracy("raw")
    assert (interval.value, interval.n) == (0.6, 100)
    assert interval.excludes(0.5)
    assert (interval.low, interval.high) == pytest.approx((0.502, 0.691), abs=1e-3)


def test_choice_item_refuses_an_answer_that_is_no_choice():
    with pytest.raises(ValueError, match="disagree"):
        ChoiceItem((1,), ((1,), (2,)), (1, 1), 2)


def _report(scores: list[list[float]], answers: tuple[int, ...]) -> ChoiceReport:
    return ChoiceReport(tuple(tuple(ChoiceScore(value, 3, 9) for value in row) for row in scores), answers)


def test_score_over_prior_judges_what_the_question_adds():
    """A sentence that is likely after anything wins the raw score; its prior takes that away again."""
    after_question = _report([[-2.0, -9.0, -8.0]], (1,))
    after_anything = _report([[-1.0, -15.0, -9.0]], (1,))
    assert after_question.credit("raw").tolist() == [0.0]
    over = after_question.over(after_anything)
    assert [score.log_prob for score in over.scores[0]] == [-1.0, 6.0, 1.0]
    assert over.credit("raw").tolist() == [1.0]


def test_score_over_prior_of_itself_leaves_only_ties():
    report = _report([[-2.0, -9.0, -8.0, -1.0]], (1,))
    assert report.over(report).credit("raw").tolist() == [0.25]


def test_score_over_prior_refuses_other_items():
    with pytest.raises(ValueError, match="same items"):
        _report([[-1.0, -2.0]], (0,)).over(_report([[-1.0, -2.0]], (1,)))
