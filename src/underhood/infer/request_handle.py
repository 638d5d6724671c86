"""Request handle: the chunks of an answer as they come, and the right to cancel it."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator
from dataclasses import dataclass

from underhood.infer.request import Finish, OutputChunk, Request


class QueueFull(Exception):
    """The engine has as many requests waiting as it accepts; asking again later may succeed."""


class EngineStopped(Exception):
    """The engine takes no more requests: it is shutting down, or its model has failed."""


@dataclass
class Usage:
    """What a request has cost so far, in tokens.

    Attributes:
        prompt_tokens: length of the prompt.
        cached_tokens: how many of them did not have to be read, for an earlier request began alike.
        completion_tokens: tokens written, all choices together (those of `best_of` that are not returned too; stop
            tokens too).
    """

    prompt_tokens: int
    cached_tokens: int = 0
    completion_tokens: int = 0


class RequestHandle:
    """One submitted request. Pieces may be read from any thread, or awaited, by one reader.

    Attributes:
        request: what was asked.
        usage: tokens so far; final once `done`.
        error: what went wrong in the engine, when the choices finish with "error".
        finishes: how each returned choice ended, by its number, as far as they have.
    """

    def __init__(
        self, request: Request, *, on_cancel: Callable[["RequestHandle"], None], drive: Callable[[], bool] | None = None
    ):
        self.request = request
        self.usage = Usage(len(request.prompt))
        self.error: Exception | None = None
        self.finishes: dict[int, Finish] = {}
        self.cancelled = False
        self._on_cancel, self._drive = on_cancel, drive
        self._chunks: deque[OutputChunk] = deque()
        self._change = threading.Condition()
        self._wake: Callable[[], object] | None = None

    @property
    def done(self) -> bool:
        """True once every choice has ended; chunks may still lie here unread."""
        return len(self.finishes) == self.request.n

    def cancel(self) -> None:
        """Gives up: the engine drops the request before its next step. Harmless once done."""
        if not self.cancelled:
            self.cancelled = True
            self._on_cancel(self)

    def chunks(self) -> Generator[OutputChunk, None, None]:
        """The chunks of all choices as they come; blocks until there are some. Leaving early cancels.

        Without a thread that runs the engine, the reader runs its steps itself.
        """
        try:
            while True:
                if self._drive is not None:
                    while not self._chunks and not self.done:
                        self._drive()
                else:
                    with self._change:
                        self._change.wait_for(lambda: self._chunks or self.done)
                ended = self.done  # read before the chunks, of which the last comes before it
                while self._chunks:
                    yield self._chunks.popleft()
                if ended:
                    return
        finally:
            if not self.done:
                self.cancel()

    async def achunks(self) -> AsyncGenerator[OutputChunk, None]:
        """The same in an event loop, while an `EngineThread` runs the engine. Leaving early cancels."""
        loop, arrived = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(arrived.set)

        self._wake = wake
        try:
            while True:
                arrived.clear()
                ended = self.done
                if not self._chunks and not ended:
                    await arrived.wait()
                    continue
                while self._chunks:
                    yield self._chunks.popleft()
                if ended:
                    return
        finally:
            self._wake = None
            if not self.done:
                self.cancel()

    def put(self, chunk: OutputChunk) -> None:
        """The engine's side: hands a chunk to the reader."""
        with self._change:
            self._chunks.append(chunk)
            if chunk.finish is not None:
                self.finishes[chunk.choice] = chunk.finish
            self._change.notify_all()
        if (wake := self._wake) is not None:
            wake()
