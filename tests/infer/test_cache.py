"""The cache's own behaviour; that models read through it correctly is in tests/models/test_contract.py."""

from __future__ import annotations

import pytest
import torch
from recurrent_mixer import recurrent_model
from tiny_run import tiny_model, tiny_tokenizer

from underhood.core.errors import UserError
from underhood.core.protocols import Cache
from underhood.infer.cache import ContiguousCache
from underhood.infer.generate import generate
from underhood.infer.memory import paged_states
from underhood.models.decoder import Decoder


@pytest.fixture(scope="module")
def model() -> Decoder:
    return tiny_model(tiny_tokenizer(), seed=0)


def tokens(rows: int, count: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(270, (rows, count), generator=torch.Generator().manual_seed(seed))


def test_cache_answers_the_protocol_and_takes_the_shapes_of_the_model(model: Decoder) -> None:
    cache = ContiguousCache.for_model(model, 3, 10)
    assert isinstance(cache, Cache)
    assert (cache.length, cache.plain, cache.batch, cache.capacity) == (0, True, 3, 10)
    # layers × (keys, values) × rows × kv heads × capacity × head width × bytes
    assert cache.bytes == 2 * 2 * 3 * 1 * 10 * 8 * 4


def test_cache_refuses_what_does_not_fit_and_stays_usable(model: Decoder) -> None:
    cache = ContiguousCache.for_model(model, 1, 5)
    model(tokens(1, 4), cache=cache)
    with pytest.raises(UserError, match=r"at most 5 tokens, got 6"):
        model(tokens(1, 2), cache=cache)
    assert cache.length == 4
    model(tokens(1, 1), cache=cache)
    assert cache.length == 5


@torch.no_grad()
def test_cache_truncated_matches_never_having_read(model: Decoder) -> None:
    cache = ContiguousCache.for_model(model, 2, 12)
    first, wrong, right = tokens(2, 5), tokens(2, 4, 1), tokens(2, 3, 2)
    model(first, cache=cache)
    model(wrong, cache=cache)
    cache.truncate(5)
    expected = model(torch.cat((first, right), 1))[:, 5:]
    torch.testing.assert_close(model(right, cache=cache), expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="cannot cut"):
        cache.truncate(99)


@torch.no_grad()
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("rows", [[2, 0], [0, 3], [3, 1, 1, 0], [1], [0, 1, 2, 3]])
def test_cache_select_matches_those_rows_alone(model: Decoder, rows: list[int], padded: bool) -> None:
    cache = ContiguousCache.for_model(model, 4, 12)
    text, more = tokens(4, 6), tokens(4, 2, 1)
    pads = torch.tensor([0, 4, 1, 2]) if padded else torch.zeros(4, dtype=torch.long)
    positions = (torch.arange(6) - pads[:, None]).clamp(min=-1) if padded else None
    model(text, cache=cache, positions=positions)
    cache.select(rows)
    assert cache.batch == len(rows)
    actual = model(more[rows], cache=cache)
    for slot, row in enumerate(rows):
        alone = model(torch.cat((text[row, pads[row] :], more[row]))[None])[0, -2:]
        torch.testing.assert_close(actual[slot], alone, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="cannot select"):
        cache.select([len(rows)])


@torch.no_grad()
@pytest.mark.parametrize("padded", [False, True])
def test_cache_reserve_keeps_what_is_stored(model: Decoder, padded: bool) -> None:
    cache = ContiguousCache.for_model(model, 2, 4)
    text, more = tokens(2, 4), tokens(2, 3, 1)
    positions = torch.tensor([[0, 1, 2, 3], [-1, 0, 1, 2]]) if padded else None
    model(text, cache=cache, positions=positions)
    cache.reserve(20)
    cache.reserve(3)  # never smaller
    assert cache.capacity == 20
    actual = model(more, cache=cache)
    expected = torch.cat((text, more), 1)
    torch.testing.assert_close(actual[0], model(expected[:1])[0, 4:], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(actual[1], model(expected[1:, int(padded) :])[0, -3:], rtol=1e-5, atol=1e-5)


def test_cache_carries_no_gradient(model: Decoder) -> None:
    cache = ContiguousCache.for_model(model.requires_grad_(True), 1, 8)
    model(tokens(1, 3), cache=cache)
    model(tokens(1, 3), cache=cache).sum().backward()
    keys, _ = cache.update(0, torch.zeros(1, 1, 0, 8), torch.zeros(1, 1, 0, 8))
    assert not keys.requires_grad
    model.zero_grad()


def test_cache_keeps_recurrent_state_and_cannot_go_back() -> None:
    model = recurrent_model()
    text = tokens(2, 9)
    cache = ContiguousCache.for_model(model, 2, 9)
    parts = [model(text[:, :5], cache=cache), model(text[:, 5:6], cache=cache), model(text[:, 6:], cache=cache)]
    torch.testing.assert_close(torch.cat(parts, dim=1), model(text))
    with pytest.raises(ValueError, match="cannot go back"):
        cache.truncate(4)
    cache.truncate(0)
    torch.testing.assert_close(model(text, cache=cache), model(text))
    prompts = text[:, :4].tolist()
    fast, slow = (generate(model, prompts, max_new_tokens=5, cache=use) for use in (True, False))
    assert [completion.ids for completion in fast] == [completion.ids for completion in slow]
    with pytest.raises(UserError, match="can't be served"):
        paged_states(model)


def test_cache_refuses_a_batch_of_another_size(model: Decoder) -> None:
    cache = ContiguousCache.for_model(model, 2, 4)
    with pytest.raises(ValueError, match="2 rows"):
        model(tokens(3, 2), cache=cache)
