"""The cache of the last tokens only, against the plain loop that reads everything again."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny_run import tiny_model, tiny_tokenizer

from underhood.core.protocols import Cache
from underhood.core.state import StateSpec
from underhood.infer import sequence_runner
from underhood.infer.generate import generate
from underhood.infer.sliding_window_cache import SlidingWindowCache, window_of
from underhood.models.decoder import Decoder
from underhood.nn.attention import AttentionSpec


def keys_and_values(heads: int, width: int) -> StateSpec:
    return StateSpec(vectors=((heads, width), (heads, width)))


def windowed(*windows: int | None) -> Decoder:
    model = tiny_model(tiny_tokenizer(), seed=0)
    block = model.spec.blocks[0]
    assert isinstance(block.mixer, AttentionSpec)
    blocks = tuple(replace(block, mixer=replace(block.mixer, window=window)) for window in windows)
    spec = replace(model.spec, blocks=blocks)
    changed = spec.build()
    changed.load_state_dict(model.state_dict())
    return changed.eval()


def prompts(*lengths: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(270, (length,), generator=generator).tolist() for length in lengths]


def test_window_of_is_the_widest_of_all_layers_or_none() -> None:
    assert window_of(windowed(5, 9)) == 9
    assert window_of(windowed(5, None)) is None


@pytest.mark.parametrize("windows", [(6,), (3, 8), (1,)])
@pytest.mark.parametrize("lengths", [(31, 31), (2, 17, 40)], ids=["even", "padded"])
def test_ring_writes_what_reading_everything_again_writes(windows: tuple[int, ...], lengths: tuple[int, ...]) -> None:
    model, prompt_ids = windowed(*windows), prompts(*lengths)
    actual = generate(model, prompt_ids, max_new_tokens=40)
    expected = generate(model, prompt_ids, max_new_tokens=40, cache=False)
    assert [completion.ids for completion in actual] == [completion.ids for completion in expected]


def test_ring_is_what_generate_uses_for_a_windowed_model(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[SlidingWindowCache] = []

    def for_model(model: Decoder, batch: int) -> SlidingWindowCache:
        made.append(SlidingWindowCache([keys_and_values(1, 8)] * 2, batch=batch, window=6))
        return made[-1]

    monkeypatch.setattr(sequence_runner.SlidingWindowCache, "for_model", for_model)
    generate(windowed(6), prompts(20), max_new_tokens=60)
    [ring] = made
    assert isinstance(ring, Cache)
    # layers × (keys, values) × two windows × head width × bytes, after 80 tokens
    assert ring.bytes == 2 * 2 * 12 * 8 * 4
    assert ring.length == 5


def test_ring_refuses_more_than_a_window_at_once() -> None:
    ring = SlidingWindowCache([keys_and_values(1, 8)], batch=1, window=4)
    with pytest.raises(ValueError, match="at most 4 tokens"):
        ring.extend(5, None)
    with pytest.raises(ValueError, match="every layer"):
        SlidingWindowCache.for_model(windowed(5, None), 1)
