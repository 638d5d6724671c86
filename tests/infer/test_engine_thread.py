"""The engine's thread, as a server uses it: from an event loop, and from other threads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from tiny_run import tiny_model, tiny_tokenizer

from underhood.infer.engine import Engine, EngineSpec
from underhood.infer.engine_thread import EngineThread
from underhood.infer.generate import generate
from underhood.infer.request import Request
from underhood.infer.request_handle import EngineStopped, RequestHandle

TOKENIZER = tiny_tokenizer()
MODEL = tiny_model(TOKENIZER, seed=0)
PROMPTS = [TOKENIZER.encode("The list is a mutable sequence.")[: 3 + index] for index in range(6)]


def worker() -> EngineThread:
    return EngineThread(
        Engine(MODEL, TOKENIZER, EngineSpec(max_sequences=4, max_batched_tokens=16, cache_bytes=1 << 20))
    )


def expected() -> list[list[int]]:
    return [completion.ids for completion in generate(MODEL, PROMPTS, max_new_tokens=20)]


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.002)


async def read(handle: RequestHandle) -> list[int]:
    return [token.id async for chunk in handle.achunks() for token in chunk.tokens]


def test_worker_answers_many_readers_of_one_event_loop() -> None:
    async def ask(running: EngineThread) -> list[list[int]]:
        handles = [running.submit(Request(prompt=prompt, max_new_tokens=20)) for prompt in PROMPTS]
        return await asyncio.gather(*map(read, handles))

    with worker() as running:
        assert asyncio.run(ask(running)) == expected()
        assert running.healthy
        assert running.stats().finished == {"length": len(PROMPTS)}


def test_worker_answers_many_threads() -> None:
    def ask(prompt: list[int]) -> list[int]:
        handle = running.submit(Request(prompt=prompt, max_new_tokens=20))
        return [token.id for chunk in handle.chunks() for token in chunk.tokens]

    with worker() as running, ThreadPoolExecutor(6) as threads:
        assert list(threads.map(ask, PROMPTS * 3)) == expected() * 3


def test_worker_reader_who_leaves_frees_its_blocks() -> None:
    async def leave(running: EngineThread) -> RequestHandle:
        handle = running.submit(Request(prompt=PROMPTS[0], max_new_tokens=90))
        chunks = handle.achunks()
        await anext(chunks)
        await chunks.aclose()
        return handle

    with worker() as running:
        handle = asyncio.run(leave(running))
        until(lambda: handle.done)
        until(lambda: running.stats().blocks_used == 0)
    # It may have been done before the reader left: then nothing was cancelled.
    assert handle.finishes in ({0: "cancelled"}, {0: "length"})


def test_worker_drains_what_it_has_and_takes_nothing_new() -> None:
    with worker() as running:
        handles = [running.submit(Request(prompt=prompt, max_new_tokens=20)) for prompt in PROMPTS]
        assert running.drain(timeout=20)
        assert all(handle.finishes == {0: "length"} for handle in handles)
        with pytest.raises(EngineStopped):
            running.submit(Request(prompt=PROMPTS[0]))
    assert not running.healthy


def test_worker_closed_leaves_nobody_waiting() -> None:
    running = worker()
    handles = [running.submit(Request(prompt=prompt, max_new_tokens=90)) for prompt in PROMPTS]
    running.close()
    assert all(handle.done for handle in handles)
    assert "cancelled" in {finish for handle in handles for finish in handle.finishes.values()}
    assert (running.stats().running, running.stats().waiting, running.stats().blocks_used) == (0, 0, 0)
    with pytest.raises(EngineStopped):
        running.embed(PROMPTS)


def test_worker_embeds_between_steps() -> None:
    with worker() as running:
        handle = running.submit(Request(prompt=PROMPTS[0], max_new_tokens=60))
        actual = running.embed(PROMPTS)
        assert actual.shape == (len(PROMPTS), MODEL.spec.d_model)
        assert len([token for chunk in handle.chunks() for token in chunk.tokens]) == 60
    with torch.inference_mode():
        torch.testing.assert_close(actual[2], MODEL.hidden_states(torch.tensor([PROMPTS[2]]))[0].mean(dim=0))


def test_worker_with_a_bug_in_it_is_unhealthy_and_leaves_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    running = worker()

    def broken(guesser: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(running.engine.scheduler, "schedule", broken)
    handle = running.submit(Request(prompt=PROMPTS[0]))
    assert [chunk.finish for chunk in handle.chunks()] == ["error"]
    assert isinstance(handle.error, KeyError)
    until(lambda: not running.healthy)
    with pytest.raises(EngineStopped):
        running.submit(Request(prompt=PROMPTS[0]))
    running.close()
