"""Request normalization: HEAD is GET without the body, and slashes too many in the API's paths change nothing."""

from __future__ import annotations

import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class NormalizeRequests:
    """Answers HEAD wherever GET works (RFC 9110, section 9.3.2), and ``/v1//models/`` as ``/v1/models``.

    A base URL that ends in a slash is a frequent slip, and a redirect would lose the body with some clients.
    """

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = {**scope, "path": normalized_path(scope["path"])}
            if scope["method"] == "HEAD":
                scope["method"], send = "GET", _without_body(send)
        await self.app(scope, receive, send)


def normalized_path(path: str) -> str:
    """A path of the API without repeated and closing slashes; another path as it is."""
    single = re.sub("/{2,}", "/", path)
    return single.rstrip("/") if single.startswith("/v1/") else path


def _without_body(send: Send) -> Send:
    ended = False

    async def head_only(message: Message) -> None:
        nonlocal ended
        if message["type"] == "http.response.start":
            await send(message)
        elif not ended:
            ended = True
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    return head_only
