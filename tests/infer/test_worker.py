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
from underhood.infer.generate import generate
from underhood.infer.request import Request
from underhood.infer.ticket import EngineStopped, Ticket
from underhood.infer.worker import EngineThread

TOKENIZER = tiny_tokenizer()
MODEL = tiny_model(TOKENIZER, seed=0)
PROMPTS = [TOKENIZER.encode("The list is a mutable sequence.")[: 3 + index] for index in range(6)]


def worker() -> EngineThread:
    return EngineThread(Engine(MODEL, TOKENIZER, EngineSpec(max_running=4, tokens_per_step=16, cache_bytes=1 << 20)))


def expected() -> list[list[int]]:
    return [one.ids for one in generate(MODEL, PROMPTS, max_new_tokens=20)]


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.002)


async def read(ticket: Ticket) -> list[int]:
    return [token.id async for piece in ticket.apieces() for token in piece.tokens]


def test_worker_answers_many_readers_of_one_event_loop() -> None:
    async def ask(running: EngineThread) -> list[list[int]]:
        tickets = [running.submit(Request(prompt=prompt, max_new_tokens=20)) for prompt in PROMPTS]
        return await asyncio.gather(*map(read, tickets))

    with worker() as running:
        assert asyncio.run(ask(running)) == expected()
        assert running.healthy
        assert running.stats().finished == {"length": len(PROMPTS)}


def test_worker_answers_many_threads() -> None:
    def ask(prompt: list[int]) -> list[int]:
        ticket = running.submit(Request(prompt=prompt, max_new_tokens=20))
        return [token.id for piece in ticket.pieces() for token in piece.tokens]

    with worker() as running, ThreadPoolExecutor(6) as threads:
        assert list(threads.map(ask, PROMPTS * 3)) == expected() * 3


def test_worker_reader_who_leaves_frees_its_blocks() -> None:
    async def leave(running: EngineThread) -> Ticket:
        ticket = running.submit(Request(prompt=PROMPTS[0], max_new_tokens=90))
        pieces = ticket.apieces()
        await anext(pieces)
        await pieces.aclose()
        return ticket

    with worker() as running:
        ticket = asyncio.run(leave(running))
        until(lambda: ticket.done)
        until(lambda: running.stats().blocks_used == 0)
    # It may have been done before the reader left: then nothing was cancelled.
    assert ticket.finishes in ({0: "cancelled"}, {0: "length"})


def test_worker_drains_what_it_has_and_takes_nothing_new() -> None:
    with worker() as running:
        tickets = [running.submit(Request(prompt=prompt, max_new_tokens=20)) for prompt in PROMPTS]
        assert running.drain(timeout=20)
        assert all(ticket.finishes == {0: "length"} for ticket in tickets)
        with pytest.raises(EngineStopped):
            running.submit(Request(prompt=PROMPTS[0]))
    assert not running.healthy


def test_worker_closed_leaves_nobody_waiting() -> None:
    running = worker()
    tickets = [running.submit(Request(prompt=prompt, max_new_tokens=90)) for prompt in PROMPTS]
    running.close()
    assert all(ticket.done for ticket in tickets)
    assert "cancelled" in {finish for ticket in tickets for finish in ticket.finishes.values()}
    assert (running.stats().running, running.stats().waiting, running.stats().blocks_used) == (0, 0, 0)
    with pytest.raises(EngineStopped):
        running.embed(PROMPTS)


def test_worker_embeds_between_steps() -> None:
    with worker() as running:
        ticket = running.submit(Request(prompt=PROMPTS[0], max_new_tokens=60))
        found = running.embed(PROMPTS)
        assert found.shape == (len(PROMPTS), MODEL.spec.width)
        assert len([token for piece in ticket.pieces() for token in piece.tokens]) == 60
    with torch.inference_mode():
        torch.testing.assert_close(found[2], MODEL.hidden(torch.tensor([PROMPTS[2]]))[0].mean(dim=0))


def test_worker_with_a_bug_in_it_is_unhealthy_and_leaves_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    running = worker()

    def broken(guesser: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(running.engine.scheduler, "plan", broken)
    ticket = running.submit(Request(prompt=PROMPTS[0]))
    assert [piece.finish for piece in ticket.pieces()] == ["error"]
    assert isinstance(ticket.error, KeyError)
    until(lambda: not running.healthy)
    with pytest.raises(EngineStopped):
        running.submit(Request(prompt=PROMPTS[0]))
    running.close()
