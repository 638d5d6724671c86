"""Rows for training and windows for scoring, against plain loops over the documents."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from underhood.data.batch import IGNORE
from underhood.data.pack import EvaluationWindows, PackedBatches, fit_rows
from underhood.data.shards import write_shards

EOT = 0

# Every token is unique (document · 1000 + place), so each can be followed through any shuffling.
LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=12)


def unique_documents(lengths):
    return [[(number + 1) * 1000 + index for index in range(length)] for number, length in enumerate(lengths)]


def shards_of(folder, lengths, per_shard=50):
    documents = unique_documents(lengths)
    return write_shards(folder, documents, eot_id=EOT, tokenizer_digest="t", max_tokens_per_shard=per_shard)


def true_pairs(lengths):
    """Input → target of every stored token: [eot, t1 … tn] → [t1 … tn, eot], by a plain loop."""
    pairs = Counter()
    for ids in unique_documents(lengths):
        pairs.update(zip([EOT, *ids], [*ids, EOT], strict=True))
    return pairs


def scored_pairs(batches):
    pairs = Counter()
    for batch in batches:
        kept = batch.targets != IGNORE
        pairs.update(zip(batch.tokens[kept].tolist(), batch.targets[kept].tolist(), strict=True))
    return pairs


def one_epoch(packed):
    """Rows of one epoch, whatever the batch size."""
    single = PackedBatches(
        packed.shards, batch_size=1, context_length=packed.context_length, seed=packed.seed, shuffle=packed.shuffle
    )
    return [single(step) for step in range(single.rows_per_epoch)]


@given(LENGTHS, st.integers(1, 50), st.integers(0, 3), st.booleans())
def test_every_token_is_a_target_once_per_epoch_and_never_across_documents(
    tmp_path_factory, lengths, context, seed, shuffle
):
    shards = shards_of(tmp_path_factory.mktemp("s"), lengths)
    packed = PackedBatches(shards, batch_size=1, context_length=context, seed=seed, shuffle=shuffle)
    for epoch in range(2):
        rows = range(epoch * packed.rows_per_epoch, (epoch + 1) * packed.rows_per_epoch)
        assert scored_pairs(packed(step) for step in rows) == true_pairs(lengths)


@given(LENGTHS, st.integers(2, 30))
def test_positions_restart_exactly_at_document_starts(tmp_path_factory, lengths, context):
    shards = shards_of(tmp_path_factory.mktemp("s"), lengths)
    for batch in one_epoch(PackedBatches(shards, batch_size=1, context_length=context, seed=1)):
        tokens, positions = batch.tokens[0].tolist(), batch.positions[0].tolist()
        for t, (token, position) in enumerate(zip(tokens, positions, strict=True)):
            if position == -1:
                assert batch.targets[0, t] == IGNORE
            elif token == EOT or t == 0:
                assert position == 0
            else:
                assert position == positions[t - 1] + 1
                assert tokens[t - 1] in (EOT, token - 1)  # the left neighbour is of the same document


def test_only_the_last_row_of_an_epoch_is_padded(tmp_path):
    shards = shards_of(tmp_path, [13, 7, 30])
    rows = one_epoch(PackedBatches(shards, batch_size=1, context_length=8, seed=0))
    padding = [int((batch.positions == -1).sum()) for batch in rows]
    assert sum(padding) == -shards.tokens % 8
    assert sum(count > 0 for count in padding) <= 1


def test_batches_are_a_pure_function_of_step_and_rows_do_not_matter(tmp_path):
    """Asked out of order, by another object, or in batches of another size: the same rows."""
    shards = shards_of(tmp_path, [13, 7, 30, 22, 5])
    first = PackedBatches(shards, batch_size=1, context_length=8, seed=5)
    three = PackedBatches(shards, batch_size=3, context_length=8, seed=5)
    for step in (9, 0, 4, 9, 1):
        rows = [first(3 * step + row) for row in range(3)]
        batch = three(step)
        for field in ("tokens", "targets", "positions"):
            joined = torch.cat([getattr(row, field) for row in rows])
            assert torch.equal(getattr(batch, field), joined)
            assert joined.dtype == torch.int64


def test_orders_differ_by_seed_and_epoch_and_shuffle_off_keeps_storage_order(tmp_path):
    shards = shards_of(tmp_path, [13, 7, 30, 22, 5, 17, 9])

    def epoch(seed, number, shuffle=True):
        packed = PackedBatches(shards, batch_size=packed_rows, context_length=8, seed=seed, shuffle=shuffle)
        return packed(number).targets.flatten().tolist()

    packed_rows = PackedBatches(shards, batch_size=1, context_length=8, seed=0).rows_per_epoch
    orders = [epoch(0, 0), epoch(0, 1), epoch(1, 0), epoch(1, 1)]
    assert len({tuple(order) for order in orders}) == 4
    stored = shards.gather(np.arange(shards.tokens)).tolist()
    plain = epoch(0, 0, shuffle=False)
    assert plain[: len(stored)] == stored
    assert plain == epoch(1, 7, shuffle=False)


def test_long_document_does_not_fill_a_batch(tmp_path):
    """Rows are dealt out in random order: a batch of neighbouring rows would be one document's text."""
    shards = shards_of(tmp_path, [800] + [20] * 40, per_shard=10**6)
    batch = PackedBatches(shards, batch_size=20, context_length=16, seed=0)(0)
    from_long = ((batch.targets >= 1000) & (batch.targets < 2000)).any(dim=1)
    assert 4 <= int(from_long.sum()) <= 16


@given(st.lists(st.integers(1, 20), max_size=60), st.integers(20, 30))
def test_fit_rows_places_every_piece_once_within_capacity(lengths, capacity):
    rows = fit_rows(lengths, capacity)
    assert sorted(number for row in rows for number in row) == list(range(len(lengths)))
    assert all(sum(lengths[number] for number in row) <= capacity for row in rows)


def test_fit_rows_wastes_little():
    lengths = np.random.default_rng(0).integers(5, 120, 2000).tolist()
    rows = fit_rows(lengths, 256)
    assert sum(lengths) / (256 * len(rows)) > 0.93
    one_each = sum(lengths) / (256 * len(lengths))
    assert one_each < 0.3


@given(LENGTHS, st.integers(2, 30), st.data())
def test_windows_score_every_token_once_with_the_promised_left_context(lengths, context, data):
    stride = data.draw(st.integers(1, context))
    documents = [[*ids, EOT] for ids in unique_documents(lengths)]
    windows = EvaluationWindows(documents, lengths, eot_id=EOT, context_length=context, batch_size=3, stride=stride)
    batches = list(windows)
    assert len(batches) == len(windows)
    assert scored_pairs(batches) == true_pairs(lengths)
    assert windows.tokens == sum(len(ids) for ids in documents)
    assert windows.bytes == sum(lengths)
    for batch in batches:
        for target_T, position_T in zip(batch.targets.tolist(), batch.positions.tolist(), strict=True):
            for target, position in zip(target_T, position_T, strict=True):
                if target != IGNORE and target != EOT:
                    location = target % 1000  # tokens to its left in its document, the opening one aside
                    assert position >= min(location, context - stride)


def test_windows_of_short_documents_share_rows():
    windows = EvaluationWindows([[5, 6, EOT]] * 100, [2] * 100, eot_id=EOT, context_length=30, batch_size=4)
    assert len(windows) == 3  # 300 tokens: ten full rows


def test_windows_of_shards_know_bytes(tmp_path):
    shards = write_shards(
        tmp_path, [[5, 6], [7] * 50], eot_id=EOT, tokenizer_digest="t", byte_counts=[11, 99], max_tokens_per_shard=10
    )
    windows = EvaluationWindows.of_shards(shards, context_length=16)
    assert (windows.bytes, windows.tokens) == (110, 54)


def test_uniform_model_scores_its_closed_form():
    """A uniform model over 2¹⁰ tokens needs 10 bits per token, end-of-text included: the formula bits per byte uses."""
    windows = EvaluationWindows([[5] * 99 + [EOT]], [200], eot_id=EOT, context_length=16)
    bits = 0.0
    for batch in windows:
        logits = torch.zeros(*batch.tokens.shape, 1024, dtype=torch.float64)
        bits += float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), reduction="sum"))
    assert bits / (windows.bytes * np.log(2)) == pytest.approx(100 * 10 / 200)
