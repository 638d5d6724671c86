"""A real server on 127.0.0.1 in a thread, over tiny random models, for the tests of the API."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import openai
from tiny_run import make_run

from underhood.infer.engine_spec import EngineSpec
from underhood.web.app import create_app
from underhood.web.registry import ModelRegistry
from underhood.web.server import Server, address, listen
from underhood.web.settings import ServeSettings

SPEC = EngineSpec(max_sequences=8, max_waiting=64, max_batched_tokens=64, cache_bytes=4 << 20)


@dataclass
class Live:
    """A running server and ways to ask it."""

    url: str
    registry: ModelRegistry
    settings: ServeSettings
    server: Server
    clients: list[openai.OpenAI] = field(default_factory=list)

    def openai(self, key: str = "none") -> openai.OpenAI:
        """The official client, which tries once: a test wants to see the first answer."""
        client = openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=60)
        self.clients.append(client)
        return client

    def http(self, **options) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60, **options)


@contextlib.contextmanager
def serving(registry: ModelRegistry, settings: ServeSettings) -> Iterator[Live]:
    """Runs the app over `registry` until the block ends; the registry is closed with it."""
    listening = listen(settings)
    started = threading.Event()
    server = Server(create_app(registry, settings), settings, started.set)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    assert started.wait(60), "the server did not start"
    live = Live(address(settings, listening), registry, settings, server)
    try:
        yield live
    finally:
        for client in live.clients:
            client.close()
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive(), "the server did not end"


@contextlib.contextmanager
def tiny_server(folder: Path, *, spec: EngineSpec = SPEC, context: int = 512, **settings) -> Iterator[Live]:
    """Serves a run of tiny random models made in `folder`."""
    run = make_run(folder / "tiny", context=context)
    given = {"port": 0, "feedback": folder / "feedback.db", "drain_seconds": 5.0} | settings
    with serving(ModelRegistry.open([run], spec=spec), ServeSettings(**given)) as live:
        yield live
