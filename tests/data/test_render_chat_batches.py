"""Conversations in rows: apart from each other, with loss on the answers only, each once per epoch."""

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from underhood.core.errors import UserError
from underhood.data.batch import IGNORE
from underhood.data.render import ChatBatches, padded
from underhood.text.chat import Rendered


def conversation(number, given_tokens, answer_tokens):
    """Unique ids, the first `given_tokens` without loss."""
    ids = [1000 * (number + 1) + index for index in range(given_tokens + answer_tokens)]
    return Rendered(ids, [False] * given_tokens + [True] * answer_tokens)


SIZES = st.lists(st.tuples(st.integers(1, 12), st.integers(1, 12)), min_size=1, max_size=20)


def true_pairs(examples):
    """What must be learnt, by a plain loop: (token before, token said)."""
    pairs = Counter()
    for example in examples:
        for index in range(1, len(example.ids)):
            if example.mask[index]:
                pairs[example.ids[index - 1], example.ids[index]] += 1
    return pairs


@given(SIZES, st.integers(0, 3))
def test_every_answer_token_is_learnt_once_per_epoch(sizes, seed):
    examples = [conversation(number, *size) for number, size in enumerate(sizes)]
    batches = ChatBatches(examples, batch_size=1, context_length=24, seed=seed)
    assert (batches.kept, batches.dropped, batches.truncated) == (len(examples), 0, 0)
    for epoch in range(2):
        pairs = Counter()
        for step in range(epoch * batches.rows_per_epoch, (epoch + 1) * batches.rows_per_epoch):
            batch = batches(step)
            kept = batch.targets != IGNORE
            pairs.update(zip(batch.tokens[kept].tolist(), batch.targets[kept].tolist(), strict=True))
        assert pairs == true_pairs(examples)
        assert pairs.total() == batches.loss_tokens


def test_positions_keep_conversations_apart():
    examples = [conversation(number, 2, 3) for number in range(6)]
    batch = ChatBatches(examples, batch_size=2, context_length=13, seed=0)(0)
    for tokens, positions in zip(batch.tokens.tolist(), batch.positions.tolist(), strict=True):
        assert positions == [0, 1, 2, 3] * 3 + [-1]
        starts = [token for token, position in zip(tokens, positions, strict=True) if position == 0]
        assert all(token % 1000 == 0 for token in starts)
    assert bool((batch.targets[batch.positions == -1] == IGNORE).all())


def test_batches_are_a_pure_function_of_step():
    examples = [conversation(number, 2, 3 + number % 4) for number in range(30)]
    first, again = (ChatBatches(examples, batch_size=3, context_length=16, seed=1) for _ in range(2))
    for step in (7, 2, 0, 7):
        assert torch.equal(first(step).tokens, again(step).tokens)
    other = ChatBatches(examples, batch_size=3, context_length=16, seed=2)
    assert not torch.equal(first(0).tokens, other(0).tokens)


def test_epochs_deal_rows_in_different_orders():
    examples = [conversation(number, 2, 6) for number in range(40)]
    batches = ChatBatches(examples, batch_size=20, context_length=14, seed=1)
    assert batches.rows_per_epoch == 20
    assert sorted(batches(0).tokens.tolist()) == sorted(batches(1).tokens.tolist())
    assert batches(0).tokens.tolist() != batches(1).tokens.tolist()


def test_too_long_conversations_are_counted():
    examples = [conversation(0, 3, 3), conversation(1, 3, 30), conversation(2, 30, 3)]
    dropped = ChatBatches(examples, batch_size=1, context_length=16, seed=0)
    assert (dropped.kept, dropped.dropped, dropped.truncated) == (1, 2, 0)
    cut = ChatBatches(examples, batch_size=1, context_length=16, seed=0, truncate=True)
    assert (cut.kept, cut.dropped, cut.truncated) == (2, 1, 1)  # the third would have nothing left to learn


def test_nothing_to_learn_is_explained():
    with pytest.raises(UserError, match=r"at most 5 tokens.*larger context"):
        ChatBatches([conversation(0, 5, 5)], batch_size=1, context_length=4, seed=0)
    with pytest.raises(UserError, match="no conversations at all"):
        ChatBatches([], batch_size=1, context_length=4, seed=0)


def test_padded_rows_hold_one_conversation_each():
    batch = padded([conversation(0, 2, 2), conversation(1, 1, 4)], pad_id=9)
    assert batch.tokens.tolist() == [[1000, 1001, 1002, 9], [2000, 2001, 2002, 2003]]
    assert batch.targets.tolist() == [[IGNORE, 1002, 1003, IGNORE], [2001, 2002, 2003, 2004]]
    assert batch.positions.tolist() == [[0, 1, 2, -1], [0, 1, 2, 3]]


@given(SIZES, st.integers(1, 3))
def test_in_order_the_first_epoch_reads_neighbours_side_by_side_without_padding(sizes, batch_size):
    examples = [conversation(number, *size) for number, size in enumerate(sizes)]
    batches = ChatBatches(examples, batch_size=batch_size, context_length=24, seed=0, in_order=True)
    read = []
    for step in range(-(-batches.rows_per_epoch // batch_size)):
        batch = batches(step)
        assert bool((batch.positions >= 0).any(dim=0).all())  # no column is padding only
        read += [int(token) // 1000 - 1 for token in batch.tokens[batch.positions == 0]]
    assert read[: len(examples)] == list(range(len(examples)))
    second = ChatBatches(examples, batch_size=1, context_length=24, seed=0, in_order=True)
    rows = range(second.rows_per_epoch, 2 * second.rows_per_epoch)
    pairs = Counter()
    for step in rows:
        batch = second(step)
        kept = batch.targets != IGNORE
        pairs.update(zip(batch.tokens[kept].tolist(), batch.targets[kept].tolist(), strict=True))
    assert pairs == true_pairs(examples)
