"""The engine's own thread: steps run there, one after the other, while others submit, wait and cancel."""

from __future__ import annotations

import logging
import threading
import time

from torch import Tensor

from underhood.infer.engine import Engine, EngineStats
from underhood.infer.request import Request
from underhood.infer.request_handle import RequestHandle

log = logging.getLogger(__name__)


class EngineThread:
    """Runs an engine for a server; every method may be called from any thread.

    Use as a context manager, or call `close`. In an event loop:
    ``async for chunk in worker.submit(request).achunks(): …``.
    """

    def __init__(self, engine: Engine, *, name: str = "engine"):
        self.engine = engine
        engine.threaded = True
        self._closing = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, request: Request) -> RequestHandle:
        """See `Engine.submit`."""
        return self.engine.submit(request)

    def embed(self, rows: list[list[int]]) -> Tensor:
        """See `Engine.embed`; blocks until the engine has found time for it between its steps."""
        return self.engine.embed(rows)

    def stats(self) -> EngineStats:
        """See `Engine.stats`."""
        return self.engine.stats()

    @property
    def healthy(self) -> bool:
        """False once the thread has ended or the model has failed; the engine then takes no more requests."""
        return self._thread.is_alive() and self.engine.failure is None

    def drain(self, timeout: float | None = None) -> bool:
        """Takes no more requests and waits until those there are have been answered; True if they all have."""
        self.engine.stop_accepting()
        until = None if timeout is None else time.monotonic() + timeout
        while not self.engine.idle and self._thread.is_alive():
            if until is not None and time.monotonic() >= until:
                return False
            time.sleep(0.01)
        return self.engine.idle

    def close(self) -> None:
        """Ends every request as cancelled, and the thread with its current step."""
        self._closing = True
        self.engine.stop_accepting()
        self.engine.wake()
        self._thread.join()
        self.engine.cancel_all()

    def __enter__(self) -> "EngineThread":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        try:
            while not self._closing:
                if not self.engine.step():
                    self.engine.wait_for_work()
        except Exception as error:  # a bug of ours: nobody may be left waiting for it
            log.exception("the engine has failed")
            self.engine.fail(error)
