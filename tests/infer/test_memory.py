"""The memory of caches: as much as the machine can spare, divided among the models of a server."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tiny_run import tiny_model, tiny_tokenizer

from underhood.core.errors import UserError
from underhood.infer.engine import Engine
from underhood.infer.engine_spec import EngineSpec
from underhood.infer.memory import ROUNDS, SHARE, block_bytes, count_blocks, share_memory

TOKENIZER = tiny_tokenizer()
SPEC = EngineSpec(block=4, max_sequences=8, max_batched_tokens=32)
SMALL = tiny_model(TOKENIZER, seed=0)
LARGE = replace(SMALL.spec, layers=6, context_length=4 * SMALL.context_length).build()
ENOUGH = [
    ROUNDS * SPEC.max_sequences * model.context_length // 4 * block_bytes(model, SPEC) for model in (SMALL, LARGE)
]
"""What two rounds of all that can run at once need."""


def spare(monkeypatch: pytest.MonkeyPatch, bytes: int) -> None:
    """The machine has so much for caches."""
    monkeypatch.setattr("underhood.infer.memory.spare_memory", lambda device: int(bytes / SHARE))


def test_block_bytes_is_what_a_cache_takes() -> None:
    for quantized in (False, True):
        spec = replace(SPEC, cache_bytes=1 << 20, quantize_cache=quantized)
        engine = Engine(LARGE, TOKENIZER, spec)
        assert engine.runner.cache.bytes == engine.block_manager.total * block_bytes(LARGE, spec)
        assert engine.runner.cache.bytes <= 1 << 20 < engine.runner.cache.bytes + block_bytes(LARGE, spec)


def test_memory_that_is_plenty_gives_everyone_what_their_texts_can_use(monkeypatch: pytest.MonkeyPatch) -> None:
    spare(monkeypatch, 10 * sum(ENOUGH))
    assert share_memory([(SMALL, SPEC), (LARGE, SPEC)]) == ENOUGH
    assert count_blocks(LARGE, SPEC) == ROUNDS * SPEC.max_sequences * LARGE.context_length // 4


def test_memory_that_is_short_is_shared_and_never_given_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    models = [(LARGE, SPEC), (SMALL, SPEC), (LARGE, SPEC)]
    for piece in (0.9, 0.5, 0.1, 0.01):
        total = int(piece * (2 * ENOUGH[1] + ENOUGH[0]))
        spare(monkeypatch, total)
        shares = share_memory(models)
        assert total - len(models) <= sum(shares) <= total
        assert abs(shares[0] - shares[2]) <= 1
        assert shares[1] == min(ENOUGH[0], total // 3)  # the small one wants less, and the others get the rest
    assert share_memory([(LARGE, SPEC)]) == [total]


def test_memory_that_does_not_hold_a_block_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    spare(monkeypatch, block_bytes(LARGE, SPEC) - 1)
    with pytest.raises(UserError, match="too little memory"):
        count_blocks(LARGE, SPEC)
