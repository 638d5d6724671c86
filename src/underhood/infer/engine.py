"""The engine: many requests, one model, one step at a time."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from underhood.core.protocols import Tokenizer
from underhood.infer.generate import check_prompts
from underhood.infer.request import Finish, Piece, Request, WrittenToken
from underhood.infer.session import Session, Token
from underhood.infer.text import TextDecoder
from underhood.infer.ticket import EngineStopped, QueueFull, Ticket
from underhood.models.decoder import Decoder


@dataclass(frozen=True, kw_only=True)
class EngineSpec:
    """How an engine works.

    Attributes:
        max_running: texts that are written at the same time.
        max_waiting: requests that may wait beyond those; more are refused.
        tokens_per_step: read in one step at most, prompts and written tokens together. It bounds how long a long prompt
            can hold up the texts that are being written.
        block: tokens per block of the cache.
        cache_bytes: memory for keys and values; None takes what the machine can spare.
        share_prefixes: whether prompts that begin alike share what has been read.
        quantize_cache: keeps keys and values in 8 bits.
    """

    max_running: int = 32
    max_waiting: int = 1024
    tokens_per_step: int = 256
    block: int = 16
    cache_bytes: int | None = None
    share_prefixes: bool = True
    quantize_cache: bool = False


@dataclass(frozen=True, kw_only=True)
class EngineStats:
    """What an engine has done since it was made, and what it is doing.

    Attributes:
        running: texts being read or written.
        waiting: texts that have not begun, or have been put back.
        blocks_used, blocks_cached, blocks_total: of the cache: in use, kept for prompts that begin alike, and in all.
        prompt_tokens, cached_tokens, completion_tokens: as in `Usage`, of all requests.
        preemptions: times that a text was put back for want of memory.
        steps: passes through the model.
        step_seconds: spent in them.
        finished: choices that have ended, by how.
    """

    running: int = 0
    waiting: int = 0
    blocks_used: int = 0
    blocks_cached: int = 0
    blocks_total: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    preemptions: int = 0
    steps: int = 0
    step_seconds: float = 0.0
    finished: dict[Finish, int] = field(default_factory=dict)


class Engine:
    """Continues many texts at once with one model.

    `submit` may be called from any thread at any time; `step` moves every text on by one token. An `EngineThread` runs
    the steps of a server's engine; without one, whoever reads a ticket's pieces runs them.
    """

    def __init__(self, model: Decoder, tokenizer: Tokenizer, spec: EngineSpec = EngineSpec()):
        self.model, self.tokenizer, self.spec = model.eval(), tokenizer, spec
        self.threaded = False
        self.failure: Exception | None = None
        self._stopped = False
        self._work = threading.Event()
        self._turn = threading.Lock()
        self._inbox: deque[Ticket] = deque()
        self._running: list[tuple[Ticket, int, Iterator[Token], Session, TextDecoder]] = []

    def submit(self, request: Request) -> Ticket:
        """Takes a request.

        Raises:
            UserError: the model can't continue such a prompt, or the memory could never hold it.
            QueueFull: too many are waiting.
            EngineStopped: the engine is shutting down, or has failed.
        """
        if self._stopped or self.failure is not None:
            raise EngineStopped("the engine takes no more requests")
        check_prompts(self.model, [request.prompt], request.max_new_tokens)
        if len(self._inbox) >= self.spec.max_waiting:
            raise QueueFull(f"{len(self._inbox)} requests are waiting")
        ticket = Ticket(request, on_cancel=self.wake, drive=None if self.threaded else self.step)
        self._inbox.append(ticket)
        self.wake()
        return ticket

    def step(self) -> bool:
        """Moves everything on by one pass through the model; False when there was nothing to do."""
        with self._turn:
            while self._inbox:
                ticket = self._inbox.popleft()
                asked = ticket.request
                for choice in range(asked.n):
                    session = Session(self.model)
                    stream = session.stream(
                        asked.prompt,
                        max_new_tokens=asked.max_new_tokens,
                        sampling=asked.sampling,
                        stop_ids=asked.stop_ids,
                        request=choice,
                    )
                    self._running.append((ticket, choice, stream, session, TextDecoder(self.tokenizer)))
            for entry in list(self._running):
                ticket, choice, stream, session, decoder = entry
                token = None if ticket.cancelled else next(stream, None)
                late = ticket.request.deadline is not None and time.monotonic() > ticket.request.deadline
                if token is None or late:
                    finish: Finish = "cancelled" if ticket.cancelled else session.finish or "deadline"
                    ticket.put(Piece(choice=choice, text=decoder.finish(), finish=finish))
                    self._running.remove(entry)
                    continue
                ticket.usage.completion_tokens += 1
                written = WrittenToken(id=token.id, logprob=token.logprob)
                ticket.put(Piece(choice=choice, tokens=(written,), text=decoder.push(token.id)))
            return bool(self._running)

    def embed(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """The mean of the last layer's normalised output over each row's tokens, (n, D) in fp32.

        Raises:
            UserError: a row is empty or longer than the context.
        """
        check_prompts(self.model, rows, 0)
        with self._turn, torch.inference_mode():
            return torch.stack([self.model.hidden(torch.tensor([list(row)]))[0].float().mean(0) for row in rows])

    def stats(self) -> EngineStats:
        """A snapshot; may be taken from any thread."""
        return EngineStats(running=len(self._running), waiting=len(self._inbox))

    @property
    def idle(self) -> bool:
        """Nothing runs and nothing waits."""
        return not self._running and not self._inbox

    def stop_accepting(self) -> None:
        """From now on `submit` raises `EngineStopped`."""
        self._stopped = True

    def cancel_all(self) -> None:
        """Ends every request as cancelled."""
        for ticket in [*self._inbox, *(entry[0] for entry in self._running)]:
            ticket.cancel()
        self.step()

    def wake(self) -> None:
        """Tells the thread that waits for work to look."""
        self._work.set()

    def wait_for_work(self, timeout: float = 1.0) -> None:
        """Sleeps until there is something to do, or `timeout` seconds."""
        self._work.wait(timeout)
        self._work.clear()
