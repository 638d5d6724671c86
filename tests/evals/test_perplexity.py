"""Bits per byte against closed forms and against scoring each document alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tiny_models import Bigram
from torch import nn

from underhood.data.pack import EvaluationWindows
from underhood.evals.perplexity import held_out_loss
from underhood.models.ngram import NGramSpec

V, EOT = 16, 15


def documents(seed: int = 0) -> tuple[list[list[int]], list[int]]:
    rng = np.random.default_rng(seed)
    texts = [[*rng.integers(0, EOT, size).tolist(), EOT] for size in (3, 50, 0, 7, 21, 11)]
    return texts, [3 * (len(text) - 1) + 1 for text in texts]


def windows(context: int, **options) -> EvaluationWindows:
    texts, byte_counts = documents()
    return EvaluationWindows(texts, byte_counts, eot_id=EOT, context_length=context, **options)


class Uniform(nn.Module):
    vocab_size, context_length = V, None

    def forward(self, tokens, *, cache=None, positions=None):
        return torch.zeros(*tokens.shape, V)


def test_bits_per_byte_of_a_uniform_model_has_a_closed_form():
    report = held_out_loss(Uniform(), windows(8, batch_size=2))
    texts, byte_counts = documents()
    tokens = sum(map(len, texts))
    assert report.nats_per_token == pytest.approx(math.log(V))
    assert report.perplexity == pytest.approx(V)
    assert (report.tokens, report.bytes) == (tokens, sum(byte_counts))
    assert report.bits_per_byte == pytest.approx(tokens * 4 / sum(byte_counts))  # log2 16 = 4 bits per token
    assert report.tokens_N.tolist() == list(map(len, texts))
    np.testing.assert_allclose(report.bits_N, [4 * len(text) for text in texts], rtol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_loss_per_document_matches_each_document_alone(batch_size):
    model = Bigram(V, positional=False).eval()  # sees one token back: windows can't change what it knows
    report = held_out_loss(model, windows(10, batch_size=batch_size, stride=4))
    for n, text in enumerate(documents()[0]):
        with torch.no_grad():
            logs = model(torch.tensor([[EOT, *text[:-1]]])).double().log_softmax(-1)[0]
        assert report.nats_N[n] == pytest.approx(-sum(float(logs[i, t]) for i, t in enumerate(text)), abs=1e-4)


def test_loss_of_the_ngram_in_windows_matches_its_own_document_scores():
    train = [[EOT, *text] for text in documents(1)[0] * 3]
    model = NGramSpec(vocab_size=V, order=3).build().fit(train)
    report = held_out_loss(model, windows(64))
    alone = model.log_probs([[EOT, *text] for text in documents()[0]])
    np.testing.assert_allclose(report.nats_N, [-logs[1:].sum() for logs in alone], rtol=1e-5)
    assert isinstance(report.nats_N, np.ndarray)


def test_end_of_text_costs_nats_and_adds_no_bytes():
    texts, byte_counts = documents()
    without = [text[:-1] for text in texts if len(text) > 1]
    counts = [count for text, count in zip(texts, byte_counts, strict=True) if len(text) > 1]
    bare = held_out_loss(Uniform(), EvaluationWindows(without, counts, eot_id=EOT, context_length=64))
    full = held_out_loss(Uniform(), windows(64))
    assert full.nats - bare.nats == pytest.approx(len(texts) * math.log(V), rel=1e-5)


def test_loss_interval_draws_documents():
    report = held_out_loss(Bigram(V), windows(16))
    interval = report.interval()
    assert interval.low < report.bits_per_byte == pytest.approx(interval.value)
    assert interval.value < interval.high
    assert interval.n == 6


def test_loss_refuses_windows_without_targets():
    with pytest.raises(ValueError, match="no held-out tokens"):
        held_out_loss(Uniform(), EvaluationWindows([], [], eot_id=EOT, context_length=8))
