"""HTTP as clients other than browsers speak it, over real sockets: offers to upgrade, HEAD, OPTIONS, odd bodies."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from live_server import Live, tiny_server

BODY = json.dumps({"model": "tiny:base", "prompt": "The list", "max_tokens": 4, "temperature": 0}).encode()
LENGTH = f"Content-Length: {len(BODY)}\r\n"
CHUNKED = "Transfer-Encoding: chunked\r\n"
CHUNKS = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (BODY[:7], BODY[7:])) + b"0\r\n\r\n"
OFFERS = {
    "java": "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk\r\n",
    "tls": "Connection: keep-alive, Upgrade\r\nUpgrade: TLS/1.0\r\n",
    "websocket": "connection: upgrade\r\nupgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    "two headers": "Connection: Upgrade\r\nConnection: keep-alive\r\nUpgrade: h2c\r\n",
    "expect": "Expect: 100-continue\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n",
}


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with tiny_server(tmp_path_factory.mktemp("http")) as live:
        yield live


@pytest.fixture
def connection(live: Live) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", int(live.url.rpartition(":")[2])), timeout=30) as connection:
        yield connection


def head(extra: str, method: str = "POST", path: str = "/v1/completions", version: str = "1.1") -> bytes:
    own = "Host: localhost\r\nContent-Type: application/json\r\n"
    return f"{method} {path} HTTP/{version}\r\n{own}{extra}\r\n".encode()


def answer_of(connection: socket.socket, method: str = "POST") -> tuple[int, dict[str, str], bytes]:
    """The next answer on a connection, read by the standard library's own parser."""
    answer = http.client.HTTPResponse(connection, method=method)
    answer.begin()
    while answer.status == 100:
        answer = http.client.HTTPResponse(connection, method=method)
        answer.begin()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()


def text_of(raw: bytes) -> str:
    return json.loads(raw)["choices"][0]["text"]


@pytest.fixture(scope="module")
def expected(live: Live) -> str:
    answer = live.http().post("/v1/completions", content=BODY, headers={"Content-Type": "application/json"})
    return text_of(answer.content)


@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
@pytest.mark.parametrize(("framing", "payload"), [(LENGTH, BODY), (CHUNKED, CHUNKS)], ids=["length", "chunked"])
def test_offer_to_upgrade_changes_no_answer(
    connection: socket.socket, expected: str, offer: str, framing: str, payload: bytes
):
    """In one segment, in a segment per byte, and as a second request of the same connection."""
    raw = head(framing + offer) + payload
    connection.sendall(raw)
    assert text_of(answer_of(connection)[2]) == expected
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in raw:
        connection.sendall(bytes([byte]))
    assert text_of(answer_of(connection)[2]) == expected
    connection.sendall(head(LENGTH) + BODY)  # without the offer
    assert text_of(answer_of(connection)[2]) == expected


def test_pipelined_requests_with_offers_are_answered_in_order(connection: socket.socket, expected: str):
    models = head(OFFERS["java"], "GET", "/v1/models")
    connection.sendall(head(LENGTH + OFFERS["java"]) + BODY + models + head(CHUNKED + OFFERS["tls"]) + CHUNKS)
    file = connection.makefile("rb")  # one reader: a second one would miss what the first has buffered

    class Socket:
        def makefile(self, _: str):
            return file

    file.close, closing = lambda: None, file.close
    answers = []
    for method in ("POST", "GET", "POST"):
        answer = http.client.HTTPResponse(Socket(), method=method)  # type: ignore[arg-type]
        answer.begin()
        answers.append((answer.status, json.loads(answer.read())))
    closing()
    assert [status for status, _ in answers] == [200, 200, 200]
    assert answers[0][1]["choices"][0]["text"] == answers[2][1]["choices"][0]["text"] == expected
    assert answers[1][1]["object"] == "list"


def test_offer_hides_no_close_and_no_old_version(connection: socket.socket, expected: str):
    connection.sendall(head(LENGTH + "Connection: close, Upgrade\r\nUpgrade: h2c\r\n", version="1.0") + BODY)
    status, headers, body = answer_of(connection)
    assert (status, text_of(body), headers["connection"]) == (200, expected, "close")
    assert connection.recv(1) == b""


@pytest.mark.parametrize(
    ("raw", "status", "words"),
    [
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0", 505, "HTTP/1.1"),
        (b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org\r\n\r\n", 405, "tunnel"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "HTTP/1.1"),  # TLS to a server without it
        (b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400, "HTTP/1.1"),
    ],
    ids=["http2", "connect", "tls", "bad header"],
)
def test_what_is_no_request_gets_a_clear_refusal(connection: socket.socket, raw: bytes, status: int, words: str):
    connection.sendall(raw)
    actual, headers, body = answer_of(connection)
    error = json.loads(body)["error"]
    assert (actual, headers["connection"]) == (status, "close")
    assert words in error["message"]
    assert connection.recv(1) == b""


def test_head_answers_as_get_without_a_body(live: Live, connection: socket.socket):
    for path in ("/v1/models", "/v1/models/tiny", "/health", "/metrics", "/", "/runs", "/static/chat.js", "/nothing"):
        get = live.http().get(path)
        connection.sendall(head("", "HEAD", path))
        status, headers, body = answer_of(connection, "HEAD")
        assert (status, headers["content-type"], body) == (get.status_code, get.headers["content-type"], b"")
        if path != "/metrics":  # which counts this very request
            assert int(headers["content-length"]) == len(get.content)
    answer = live.http().head("/v1/completions")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


def test_head_of_a_page_needs_the_key_like_get(tmp_path: Path):
    with tiny_server(tmp_path, api_key="secret") as live:
        assert live.http().head("/v1/models").status_code == 401
        assert live.http().head("/v1/models", headers={"Authorization": "Bearer secret"}).status_code == 200


def test_options_name_the_methods(live: Live):
    for path, methods in (("/v1/models", "GET, HEAD, OPTIONS"), ("/v1/chat/completions", "POST, OPTIONS")):
        answer = live.http().options(path)
        assert (answer.status_code, answer.headers["allow"], answer.content) == (204, methods, b"")
    assert live.http().options("/nothing").status_code == 404
    assert live.http().delete("/v1/models").headers["allow"] == "GET, HEAD"


def test_preflight_admits_the_headers_of_openais_browser_client(tmp_path: Path):
    friend = "https://friend.example"
    wanted = "authorization,content-type,x-stainless-arch,x-stainless-lang,x-stainless-os,x-stainless-retry-count"
    ask = {
        "Origin": friend,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": wanted,
    }
    with tiny_server(tmp_path, allow_origins=(friend,)) as live:
        answer = live.http().options("/v1/chat/completions", headers=ask)
        assert answer.status_code == 200
        assert set(wanted.split(",")) <= set(answer.headers["access-control-allow-headers"].replace(" ", "").split(","))
        assert (
            live.http().options("/v1/chat/completions", headers=ask | {"Origin": "https://x.example"}).status_code
            == 400
        )


@pytest.mark.parametrize(
    ("path", "content", "headers"),
    [
        ("/v1/completions/", BODY, {"Content-Type": "application/json"}),
        ("//v1/completions", BODY, {"Content-Type": "application/json"}),
        ("/v1//completions", BODY, {"Content-Type": "application/json; charset=utf-8"}),
        ("/v1/completions", b"\xef\xbb\xbf" + BODY, {"Content-Type": "application/json"}),
        ("/v1/completions", BODY, {}),
    ],
    ids=["closing slash", "double slash", "inner slashes", "byte order mark", "no content type"],
)
def test_harmless_oddities_of_requests_change_no_answer(
    live: Live, expected: str, path: str, content: bytes, headers: dict[str, str]
):
    answer = live.http().post(live.url + path, content=content, headers=headers)
    assert answer.status_code == 200, answer.text
    assert text_of(answer.content) == expected


def test_compressed_body_is_refused_by_name(live: Live):
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    answer = live.http().post("/v1/completions", content=gzip.compress(BODY), headers=headers)
    assert answer.status_code == 415
    assert "gzip" in answer.json()["error"]["message"]


def test_base_url_without_v1_is_told_so(live: Live):
    for path in ("/chat/completions", "/v1/v1/chat/completions", "/api/chat/completions"):
        answer = live.http().post(path, json={})
        assert answer.status_code == 404
        assert "/v1/chat/completions?" in answer.json()["error"]["message"]
    assert "Did you mean" not in live.http().get("/nothing").json()["error"]["message"]
