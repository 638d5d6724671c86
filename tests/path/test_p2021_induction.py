"""Attention-only models: sequences that repeat, scores of hand-made patterns, and silenced heads."""

from __future__ import annotations

import pytest
import torch

from underhood.models.copying import begin_copying
from underhood.path.lib.attention_only import (
    attention_in,
    attention_only,
    attention_patterns,
    prefix_matching,
    previous_token,
    repeated_blocks,
    silenced,
)


def test_blocks_repeat_with_their_period_and_have_no_token_twice():
    tokens = repeated_blocks(50, 40, 30, (5, 12), torch.Generator().manual_seed(0))
    periods = set()
    for row in tokens.tolist():
        period = next(p for p in range(1, 40) if row[p] == row[0])
        periods.add(period)
        assert all(row[at] == row[at - period] for at in range(period, 40))
        assert len(set(row[:period])) == period
    assert periods == set(range(5, 13))


def test_scores_of_perfect_heads_are_one():
    period, length = 4, 12
    pattern = torch.zeros(2, length, length)
    for at in range(length):
        pattern[0, at, max(0, at - 1)] = 1
        pattern[1, at, at - period + 1 if at >= period else 0] = 1
    assert previous_token(pattern).tolist() == pytest.approx([1, 1 / (length - 1)])
    assert prefix_matching(pattern, period).tolist() == [0, 1]


def test_patterns_are_causal_and_rows_sum_to_one():
    model = attention_only(vocab_size=20, context_length=16, d_model=32, layers=2, heads=2).initialize(seed=0)
    pattern = attention_patterns(model, torch.arange(12).expand(3, -1))
    assert pattern.shape == (2, 3, 2, 12, 12)
    torch.testing.assert_close(pattern.sum(dim=-1), torch.ones(2, 3, 2, 12))
    assert not pattern.triu(1).any()


def test_silencing_matches_output_columns_of_zero_and_ends_with_the_block():
    model = begin_copying(
        attention_only(vocab_size=20, context_length=16, d_model=64, layers=2, heads=2).initialize(seed=0),
        seed=0,
        embed_std=0.02,
    )
    tokens = torch.randint(20, (2, 16), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        before = model(tokens)
        with silenced(model, [(1, 0)]):
            actual = model(tokens)
        assert torch.equal(model(tokens), before)
        attention_in(model, 1).output.weight[:, :32] = 0
        torch.testing.assert_close(actual, model(tokens))
    assert not torch.equal(actual, before)


def test_blocks_are_attention_and_nothing_else():
    model = attention_only(vocab_size=20, context_length=16, d_model=32, layers=2, heads=2).build()
    assert not any(".feedforward." in name for name, _ in model.named_parameters())
