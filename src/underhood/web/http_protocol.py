"""HTTP/1.1 over a socket: uvicorn's protocol, with offers to upgrade declined and refusals in OpenAI's form.

A client may offer another protocol beside its request (``Connection: Upgrade``, RFC 9110, section 7.8): every Java
HttpClient offers HTTP/2 (``Upgrade: h2c``), and so does ``curl --http2``. A server that does not want it answers as if
the offer were not there. llhttp, the parser under uvicorn, stops at such a request instead and takes its body for the
next request.
"""

from __future__ import annotations

import json
from http import HTTPStatus

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from underhood.web.errors import ApiError

OFFERS = frozenset({b"upgrade", b"http2-settings"})
"""The headers of an offer; ``Connection`` names them too."""

NO_HTTP2 = "This server speaks HTTP/1.1, not HTTP/2 with prior knowledge."


class Http1Protocol(HttpToolsProtocol):
    """One connection. A request with an offer to upgrade is given to a new parser without it."""

    _offered = False

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        try:
            while True:
                try:
                    self.parser.feed_data(data)
                    return
                except httptools.HttpParserUpgrade as stopped:
                    if self.parser.get_method() == b"CONNECT":
                        self._refuse(405, "This server does not tunnel.")
                        return
                    data = self._head_without_offer() + data[stopped.args[0] :]
                    self.parser = httptools.HttpRequestParser(self)
                    self._offered = False
        except httptools.HttpParserError as error:
            if "PRI" in str(error):  # the first line of HTTP/2, RFC 9113, section 3.4
                self._refuse(505, NO_HTTP2)
            else:
                self._refuse(400, "This is not HTTP/1.1.")

    def on_headers_complete(self) -> None:
        self._offered = self.parser.should_upgrade()
        if not self._offered:
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        if not self._offered:
            super().on_message_complete()

    def _head_without_offer(self) -> bytes:
        """Request line and headers of the request that the parser has stopped at, as it would be without the offer."""
        version = self.parser.get_http_version().encode()
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, version)]
        for name, value in self.headers:
            if name == b"connection":
                options = [option.strip() for option in value.split(b",")]
                value = b", ".join(option for option in options if option.lower() not in OFFERS)
            if name not in OFFERS:
                lines.append(name + b": " + value)
        return b"\r\n".join([*lines, b"", b""])

    def _refuse(self, status: int, message: str) -> None:
        """Answers what can't be taken as a request, and closes the connection."""
        body = json.dumps(ApiError(status, message).body).encode()
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()
