"""Marked recall: one mark, one right letter in one place; and models in memory as views take them."""

from __future__ import annotations

import torch

from underhood.inspect.trace import trace
from underhood.models.decoder import qwen3_shaped
from underhood.path.lib.in_memory import as_loaded, with_random_layers
from underhood.path.lib.marked_recall import LENGTH, LETTERS, MARK, QUESTION, VOCABULARY, marked_recall


def test_answer_follows_the_only_mark_and_is_nowhere_else():
    recall = marked_recall(300, torch.Generator().manual_seed(0))
    for tokens, answer, cause in zip(
        recall.tokens.tolist(), recall.answers.tolist(), recall.cause.tolist(), strict=True
    ):
        assert [at for at, token in enumerate(tokens) if token == MARK] == [cause - 1]
        assert [at for at, token in enumerate(tokens) if token == answer] == [cause]
        assert answer < LETTERS
        assert [at for at, token in enumerate(tokens) if token == QUESTION] == [LENGTH - 1]
    assert set(recall.cause.tolist()) == set(range(1, LENGTH - 1))


def test_a_model_in_memory_can_be_traced_and_random_layers_write():
    model = qwen3_shaped(vocab_size=VOCABULARY, context_length=LENGTH, d_model=32, layers=2, heads=2).initialize(seed=0)
    ids = marked_recall(1, torch.Generator().manual_seed(1)).tokens[0].tolist()
    silent = trace(as_loaded(model), ids)
    assert torch.equal(silent["residual.0"], silent["residual.2"])
    writing = trace(as_loaded(with_random_layers(model, seed=0)), ids)
    assert not torch.equal(writing["residual.0"], writing["residual.2"])
