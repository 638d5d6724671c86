"""Preference pairs as batches: every pair once an epoch, found by the step alone, with little padding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from underhood.align.pairs import Marked, PairBatches
from underhood.core.errors import UserError
from underhood.data.batch import IGNORE


def pair(length: int, answer: int = 1) -> tuple[Marked, Marked]:
    ids = list(range(1, length + 1))
    mask = [False] * (length - answer) + [True] * answer
    return (ids, mask), ([*ids, 99], [*mask, True])


def mixed(count: int) -> list[tuple[Marked, Marked]]:
    return [pair(int(n)) for n in np.random.default_rng(0).integers(2, 60, count)]


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 3))
def test_pair_batches_show_every_pair_once_per_epoch_in_even_batches(count: int, rows: int, seed: int):
    batches = PairBatches(mixed(count), batch_size=rows, seed=seed)
    for epoch in range(2):
        steps = range(epoch * batches.batches_per_epoch, (epoch + 1) * batches.batches_per_epoch)
        numbers = [batches(step).pairs_N.tolist() for step in steps]
        assert sorted(n for chunk in numbers for n in chunk) == list(range(count))
        sizes = {len(n) for n in numbers}
        assert max(sizes) <= rows
        assert max(sizes) - min(sizes) <= 1
    assert sorted(n for batch in batches.once() for n in batch.pairs_N.tolist()) == list(range(count))


def test_pair_batches_are_a_function_of_the_step():
    left, other = PairBatches(mixed(30), batch_size=4, seed=1), PairBatches(mixed(30), batch_size=4, seed=1)
    forwards = [left(step) for step in range(20)]
    for step in reversed(range(20)):
        batch = other(step)
        assert torch.equal(batch.pairs_N, forwards[step].pairs_N)
        assert torch.equal(batch.rows.tokens, forwards[step].rows.tokens)
    first = [left(step).pairs_N.tolist() for step in range(8)]
    assert first != [left(step).pairs_N.tolist() for step in range(8, 16)], "another epoch, another order"
    assert first != [PairBatches(mixed(30), batch_size=4, seed=2)(step).pairs_N.tolist() for step in range(8)]


def test_pair_batches_lay_out_chosen_above_rejected_with_padding_behind():
    batches = PairBatches([pair(3, answer=2), pair(4)], batch_size=2, seed=0)
    numbers, batch = batches(0).pairs_N.tolist(), batches(0).rows
    rows = {(n, side): side * 2 + index for index, n in enumerate(numbers) for side in (0, 1)}
    order = [rows[0, 0], rows[1, 0], rows[0, 1], rows[1, 1]]
    assert batch.positions is not None
    assert batch.tokens[order].tolist() == [[1, 2, 0, 0], [1, 2, 3, 0], [1, 2, 3, 0], [1, 2, 3, 4]]
    assert batch.positions[order].tolist() == [[0, 1, -1, -1], [0, 1, 2, -1], [0, 1, 2, -1], [0, 1, 2, 3]]
    i = IGNORE
    assert batch.targets[order].tolist() == [[2, 3, i, i], [i, i, 4, i], [2, 3, 99, i], [i, i, 4, 99]]


def test_pair_batches_sort_by_length_and_so_pad_less_than_a_random_order():
    pairs = mixed(200)

    def share_of_padding(order: list[list[int]]) -> float:
        lengths = [max(len(ids) for ids, _ in p) for p in pairs]
        padded = sum(len(chunk) * max(lengths[n] for n in chunk) for chunk in order)
        return 1 - sum(lengths) / padded

    batches = PairBatches(pairs, batch_size=8, seed=0)
    ours = share_of_padding([batches(step).pairs_N.tolist() for step in range(batches.batches_per_epoch)])
    shuffled = np.random.default_rng(1).permutation(200)
    assert ours < 0.15
    assert share_of_padding([chunk.tolist() for chunk in np.array_split(shuffled, 25)]) > 0.3


def test_pair_batches_count_epochs():
    batches = PairBatches(mixed(10), batch_size=4, seed=0)
    assert batches.batches_per_epoch == 3
    assert batches.epoch_of(3) == 1.0


def test_pair_batches_name_what_is_wrong_with_a_pair():
    good = pair(4)
    with pytest.raises(UserError, match="no preference pairs"):
        PairBatches([], batch_size=2, seed=0)
    with pytest.raises(UserError, match="the rejected answer of preference pair 1 has no tokens"):
        PairBatches([good, (good[0], ([1, 2], [True, False]))], batch_size=2, seed=0)
    with pytest.raises(UserError, match="the rejected answer of preference pair 0 is too long; expected at most 4"):
        PairBatches([good], batch_size=2, seed=0, context_length=3)
    PairBatches([good], batch_size=2, seed=0, context_length=4)
    with pytest.raises(ValueError, match="2 ids and a mask of 1"):
        PairBatches([(([1, 2], [True]), good[1])], batch_size=2, seed=0)
    with pytest.raises(ValueError, match="rows must be at least 1"):
        PairBatches([good], batch_size=0, seed=0)


def test_pair_batch_shards_hold_all_pairs_with_both_answers():
    batch = PairBatches(mixed(7), batch_size=7, seed=0)(0)
    shards = [batch.shard(rank, 3) for rank in range(3)]
    assert sorted(n for shard in shards for n in shard.pairs_N.tolist()) == list(range(7))
    assert sum(shard.target_count for shard in shards) == batch.target_count == 7
    assert sum(shard.token_count for shard in shards) == batch.token_count
    for shard in shards:
        for index, number in enumerate(shard.pairs_N.tolist()):
            for side, (ids, _) in enumerate(mixed(7)[number]):
                row = side * shard.target_count + index
                assert shard.rows.tokens[row, : len(ids) - 1].tolist() == list(ids[:-1])
    with pytest.raises(UserError, match="expected at least 8 rows, one per process, got 7"):
        batch.shard(0, 8)
