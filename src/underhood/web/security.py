"""Request checks of the server: host name, origin, API key and body size.

Browsers let any page send requests to any address, so a server on 127.0.0.1 is open to every site its user visits.
Two headers, which pages can't forge, tell: ``Origin`` names the page, and ``Host`` the name by which the server was
found (a hostile name may be made to resolve to 127.0.0.1; DNS rebinding).
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import html
import socket
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, quote, urlencode, urlsplit

from starlette.datastructures import Headers
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from underhood.web.errors import ApiError
from underhood.web.settings import ServeSettings, address_of, is_loopback

COOKIE = "underhood_key"
SLOWEST_BODY = 60.0
"""Seconds that the next part of a body may take: a client that sends nothing must not hold a place."""


class Gate:
    """Lets a request through, or answers it itself."""

    def __init__(self, app: ASGIApp, settings: ServeSettings):
        self.app, self.settings = app, settings
        self.names = {name.lower() for name in (settings.host, "localhost", *settings.allow_hosts)}
        if not settings.local:
            self.names.add(socket.gethostname().lower())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            answer = self._judge(scope, headers)
        except ApiError as error:
            wants_page = scope["method"] == "GET" and "text/html" in headers.get("accept", "")
            answer = _ask_for_key() if wants_page and error.status_code == 401 else error.response
        if answer is not None:
            await answer(scope, receive, send)
            return
        await self.app(scope, self._limited(receive), send)

    def _judge(self, scope: Scope, headers: Headers) -> Response | None:
        host = headers.get("host", "")
        if not self._knows(host):
            raise ApiError(400, "This server does not go by that name.", code="unknown_host")
        origin = headers.get("origin")
        if origin is not None and origin not in self.settings.allow_origins and urlsplit(origin).netloc != host:
            raise ApiError(403, "This web page may not use this server.", code="foreign_origin")
        if self.settings.api_key is not None:
            query = parse_qs(scope["query_string"].decode("latin-1"))
            if scope["method"] == "GET" and "key" in query and self._is_key(query["key"][0]):
                return self._log_in(scope, query)
            if not self._has_key(headers):
                raise ApiError(
                    401,
                    "The API key is missing or wrong; send it as Authorization: Bearer KEY.",
                    code="invalid_api_key",
                    headers={"WWW-Authenticate": "Bearer"},
                )
        length = headers.get("content-length", "0")
        if length.isascii() and length.isdigit() and int(length[:20]) > self.settings.max_body:
            raise self._too_large()
        return None

    def _knows(self, host: str) -> bool:
        name = urlsplit(f"//{host}").hostname if _is_netloc(host) else None
        if not name:
            return False
        if name in self.names or is_loopback(name):
            return True
        # An address can't be rebound; only names can.
        return not self.settings.local and address_of(name) is not None

    def _has_key(self, headers: Headers) -> bool:
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and self._is_key(given.strip()):
            return True
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            return False
        return cookie is not None and _same(cookie.value, self._token())

    def _is_key(self, given: str) -> bool:
        return _same(given, self.settings.api_key or "")

    def _token(self) -> str:
        """What a browser keeps in place of the key itself."""
        return hmac.new((self.settings.api_key or "").encode(), b"underhood page", hashlib.sha256).hexdigest()

    def _log_in(self, scope: Scope, query: dict[str, list[str]]) -> Response:
        """Takes the key out of the address and gives a browser a cookie that only this site's own pages send."""
        rest = urlencode({name: values for name, values in query.items() if name != "key"}, doseq=True)
        path = "/" + quote(scope["path"].lstrip("/"))  # never //elsewhere
        answer = RedirectResponse(path + ("?" + rest if rest else ""), status_code=303)
        answer.set_cookie(COOKIE, self._token(), httponly=True, samesite="strict", secure=scope["scheme"] == "https")
        return answer

    def _limited(self, receive: Receive) -> Receive:
        taken, ended = 0, False

        async def limited() -> Message:
            nonlocal taken, ended
            if ended:
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), SLOWEST_BODY)
            except TimeoutError:
                raise ApiError(408, "The body did not come.") from None
            taken += len(message.get("body", b""))
            ended = not message.get("more_body", False)
            if taken > self.settings.max_body:
                raise self._too_large()
            return message

        return limited

    def _too_large(self) -> ApiError:
        return ApiError(413, f"The body is larger than {self.settings.max_body:,} bytes.", code="body_too_large")


def _same(first: str, other: str) -> bool:
    return hmac.compare_digest(first.encode("utf-8", "replace"), other.encode("utf-8", "replace"))


def _is_netloc(host: str) -> bool:
    try:
        parts = urlsplit(f"//{host}")
        return parts.netloc == host and parts.username is None and (parts.port is None or parts.port >= 0)
    except ValueError:
        return False


def _ask_for_key() -> Response:
    title = html.escape("This server asks for its key")
    page = (
        f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{title}</title><h1>{title}</h1><form method=get>"
        f"<label>API key <input name=key type=password autocomplete=current-password required autofocus></label> "
        f"<button>Open</button></form></html>"
    )
    policy = "default-src 'none'; form-action 'self'; frame-ancestors 'none'"
    return HTMLResponse(page, 401, {"Content-Security-Policy": policy, "WWW-Authenticate": "Bearer"})
