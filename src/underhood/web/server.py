"""Runs the application: a socket, uvicorn, and an end that lets answers finish."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI

from underhood.core.errors import UserError
from underhood.web.http_protocol import Http1Protocol
from underhood.web.settings import ServeSettings

BACKLOG = 2048


def listen(settings: ServeSettings) -> socket.socket:
    """A socket that listens where the settings say.

    Raises:
        UserError: the port is taken, or the address is not this machine's.
    """
    try:
        family = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((settings.host, settings.port))
        listener.listen(BACKLOG)
    except OSError as error:
        reason = {errno.EADDRINUSE: "another program listens there", errno.EACCES: "permission denied"}
        why = reason.get(error.errno or 0, error.strerror or str(error))
        fix = "Choose another --port, or 0 for any that is free"
        raise UserError(f"can't listen on {settings.host} port {settings.port}: {why}", fix=fix) from error
    return listener


def address(settings: ServeSettings, listening: socket.socket) -> str:
    """The address that a browser on this machine opens."""
    port = listening.getsockname()[1]
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Server(uvicorn.Server):
    """Uvicorn; tells when it answers.

    Ctrl-C or SIGTERM stops the listening and waits for the answers under way, as long as `drain_seconds`; a second
    one ends at once.
    """

    def __init__(self, app: FastAPI, settings: ServeSettings, on_start: Callable[[], None] | None = None):
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=max(1, round(settings.drain_seconds)),
            backlog=BACKLOG,
            http=Http1Protocol,
            ws="none",
        )
        super().__init__(config)
        self._on_start = on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._on_start is not None and self.started:
            self._on_start()


def serve(
    app: FastAPI, settings: ServeSettings, listening: socket.socket, on_start: Callable[[str], None] = lambda _: None
) -> None:
    """Serves on a socket (see `listen`) until somebody stops it.

    Args:
        on_start: told the address once requests are answered.
    """
    url = address(settings, listening)
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn has ended in order, and raises it once more
        Server(app, settings, lambda: on_start(url)).run(sockets=[listening])
