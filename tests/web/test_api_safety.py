"""Who may ask, what a full queue and a failed engine say, and what happens when a client leaves or the server ends."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest
from live_server import SPEC, Live, serving, tiny_server
from tiny_run import make_run

from underhood.core.errors import UserError
from underhood.infer.engine_spec import EngineSpec
from underhood.infer.scheduler import ScheduledBatch
from underhood.web.registry import ModelRegistry
from underhood.web.settings import ServeSettings

KEY = "a secret"
ASK = [{"role": "user", "content": "Hi"}]
LONG = {"model": "base", "prompt": "The list", "max_tokens": 2000, "temperature": 1, "logit_bias": {}}
GET = (
    "/v1/models",
    "/v1/models/tiny",
    "/health",
    "/metrics",
    "/",
    "/runs",
    "/ui/models",
    "/static/chat.js",
    "/nothing",
)
POST = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/tokenize", "/v1/feedback", "/ui/tokens")


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with tiny_server(tmp_path_factory.mktemp("open")) as live:
        yield live


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("locked")
    with tiny_server(folder, host="0.0.0.0", api_key=KEY, allow_hosts=("llm.example",)) as live:
        yield live


def endless(live: Live, model: str = "tiny:base") -> dict:
    """A request that writes until its context is full: the tokens that could end it are forbidden."""
    stops = live.registry.loaded(model).stop_ids
    return LONG | {"model": model, "logit_bias": {str(id): -100 for id in stops}}


def wait_until(true, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.01)


# Who may ask


def test_others_can_reach_it_only_with_a_key():
    with pytest.raises(UserError, match="--api-key"):
        ServeSettings(host="0.0.0.0")
    with pytest.raises(UserError):
        ServeSettings(host="example.org")
    assert ServeSettings(host="::1").local


@pytest.mark.parametrize("path", [*GET, *POST])
def test_every_route_asks_for_the_key(locked: Live, path: str):
    http = locked.http()
    method = "POST" if path in POST else "GET"
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": KEY}, {"Cookie": f"underhood_key={KEY}"}):
        answer = http.request(method, path, headers=headers)
        assert answer.status_code == 401
        assert answer.json()["error"]["code"] == "invalid_api_key"
        assert answer.headers["www-authenticate"] == "Bearer"
    assert http.request(method, path, headers={"Authorization": f"Bearer {KEY}"}).status_code != 401


def test_official_client_brings_the_key(locked: Live):
    assert locked.openai(KEY).completions.create(model="base", prompt="A", max_tokens=1).choices
    with pytest.raises(openai.AuthenticationError):
        locked.openai("wrong").models.list()


def test_browser_signs_in_once_and_the_key_leaves_the_address(locked: Live):
    with locked.http() as browser:
        page = browser.get("/", headers={"Accept": "text/html"})
        assert page.status_code == 401
        assert "<form" in page.text
        assert browser.get("/?key=wrong", headers={"Accept": "text/html"}).status_code == 401
        answer = browser.get("/runs", params={"key": KEY, "a": "b"})
        assert (answer.status_code, answer.headers["location"]) == (303, "/runs?a=b")
        cookie = answer.headers["set-cookie"]
        assert KEY not in cookie
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert browser.get("/").status_code == 200
        assert browser.get(f"{locked.url}//elsewhere.example?key={KEY}").headers["location"] == "/elsewhere.example"


@pytest.mark.parametrize(
    ("host", "good"),
    [
        ("localhost", True), ("LOCALHOST:80", True), ("127.0.0.1:8000", True), ("127.9.9.9", True), ("[::1]:1", True),
        ("evil.example", False), ("evil.example:8000", False), ("localhost.evil.example", False), ("10.0.0.1", False),
        ("127.0.0.1.evil.example", False), ("a@localhost", False), ("localhost:x", False), ("", False),
    ],
)  # fmt: skip
def test_only_this_machines_names_are_answered_on_loopback(live: Live, host: str, good: bool):
    assert (live.http().get("/health", headers={"Host": host}).status_code == 200) == good


@pytest.mark.parametrize(("host", "good"), [("10.0.0.7:8000", True), ("llm.example", True), ("evil.example", False)])
def test_addresses_and_listed_names_are_answered_elsewhere(locked: Live, host: str, good: bool):
    headers = {"Host": host, "Authorization": f"Bearer {KEY}"}
    assert (locked.http().get("/health", headers=headers).status_code == 200) == good


def test_pages_of_other_origins_are_refused(live: Live):
    http = live.http()
    body = {"model": "base", "prompt": "A", "max_tokens": 1}
    for origin in ("https://evil.example", "null", "http://127.0.0.1:1", "http://localhost.evil.example"):
        answer = http.post("/v1/completions", json=body, headers={"Origin": origin})
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "foreign_origin")
        assert "access-control-allow-origin" not in answer.headers
    assert http.post("/v1/completions", json=body, headers={"Origin": live.url}).status_code == 200


def test_listed_origin_may_ask_also_by_preflight(tmp_path: Path):
    friend = "https://friend.example"
    with tiny_server(tmp_path, api_key=KEY, allow_origins=(friend,)) as live:
        ask = {
            "Origin": friend,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization",
        }
        answer = live.http().options("/v1/completions", headers=ask)
        assert answer.headers["access-control-allow-origin"] == friend
        answer = live.http().get("/v1/models", headers={"Origin": friend, "Authorization": f"Bearer {KEY}"})
        assert answer.headers["access-control-allow-origin"] == friend
        assert live.http().get("/v1/models", headers={"Origin": "https://evil.example"}).status_code == 403


# When there is too much to do, or something breaks


@pytest.fixture
def narrow(tmp_path: Path) -> Iterator[Live]:
    """One text at a time, two may wait."""
    spec = EngineSpec(max_sequences=1, max_waiting=2, max_batched_tokens=32, cache_bytes=8 << 20)
    with tiny_server(tmp_path, spec=spec, context=4096, drain_seconds=1) as live:
        yield live


def ask_later(live: Live, body: dict, answers: list) -> threading.Thread:
    thread = threading.Thread(
        target=lambda: answers.append(live.http().post("/v1/completions", json=body)), daemon=True
    )
    thread.start()
    return thread


def test_full_queue_says_when_to_come_back_and_the_others_are_answered(narrow: Live):
    answers: list[httpx.Response] = []
    engine = narrow.registry.find("base").engine
    threads = [ask_later(narrow, endless(narrow) | {"max_tokens": 300}, answers)]
    wait_until(lambda: engine.stats().running == 1)
    short = endless(narrow) | {"max_tokens": 3}
    threads += [ask_later(narrow, short, answers) for _ in range(2)]
    wait_until(lambda: engine.stats().waiting == 2)
    answer = narrow.http().post("/v1/completions", json=short)
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.json()["error"]["code"] == "queue_full"
    with pytest.raises(openai.RateLimitError):
        narrow.openai().completions.create(**short)
    for thread in threads:
        thread.join(60)
    assert [response.status_code for response in answers] == [200, 200, 200]


def test_request_of_many_prompts_is_taken_whole_or_not_at_all(narrow: Live):
    engine = narrow.registry.find("base").engine
    answer = narrow.http().post("/v1/completions", json=endless(narrow) | {"prompt": ["a"] * 8})
    assert answer.status_code == 429
    wait_until(lambda: engine.stats().running == engine.stats().waiting == engine.stats().blocks_used == 0)


@pytest.mark.parametrize("stream", [False, True])
def test_client_that_leaves_frees_its_blocks_within_a_step(narrow: Live, stream: bool):
    engine = narrow.registry.find("base").engine
    body = json.dumps(endless(narrow) | {"stream": stream, "max_tokens": 4000}).encode()
    with socket.create_connection(("127.0.0.1", int(narrow.url.rpartition(":")[2]))) as client:
        head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        wait_until(lambda: engine.stats().blocks_used > 0)
        if stream:
            assert client.recv(100)
    gone = time.monotonic()
    wait_until(lambda: engine.stats().running == 0)
    assert engine.stats().blocks_used == 0
    assert engine.stats().finished.get("cancelled") == 1
    assert engine.stats().completion_tokens < 3500, "it went on writing for nobody"
    assert time.monotonic() - gone < 5


def test_client_that_leaves_the_queue_is_forgotten(narrow: Live):
    engine = narrow.registry.find("base").engine
    answers: list[httpx.Response] = []
    first = ask_later(narrow, endless(narrow) | {"max_tokens": 300}, answers)
    wait_until(lambda: engine.stats().running == 1)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{narrow.url}/v1/completions", json=endless(narrow), timeout=0.2)
    wait_until(lambda: engine.stats().waiting == 0)
    first.join(60)
    assert answers[0].status_code == 200


class Broken(RuntimeError):
    pass


def test_failed_engine_is_a_503_and_unhealthy_while_other_models_answer(tmp_path: Path, monkeypatch, caplog):
    with tiny_server(tmp_path) as live:
        http = live.http()
        broken = live.registry.find("dpo")

        def fail(*_, **__):
            raise Broken("secret detail")

        monkeypatch.setattr(broken.engine.engine.runner, "read", fail)
        for _ in range(4):
            answer = http.post("/v1/chat/completions", json={"model": "dpo", "messages": ASK})
            assert answer.status_code == 503
            assert answer.json()["error"]["type"] == "server_error"
            assert "secret" not in answer.text
        with pytest.raises(openai.InternalServerError):
            live.openai().chat.completions.create(model="dpo", messages=ASK, stream=True)
        health = http.get("/health")
        assert health.status_code == 503
        assert health.json() == {
            "status": "failing",
            "models": {"tiny:dpo": "failing", "tiny:sft": "ok", "tiny:base": "ok"},
        }
        assert 'underhood_healthy{model="tiny:dpo"} 0.0' in http.get("/metrics").text
        assert http.post("/v1/chat/completions", json={"model": "sft", "messages": ASK}).status_code == 200


def test_one_failing_request_leaves_the_others_of_its_step_unharmed(tmp_path: Path, monkeypatch):
    with tiny_server(tmp_path) as live:
        served = live.registry.find("base")
        poison = served.loaded.tokenizer.encode("Q")[0]
        reader = served.engine.engine.runner
        real = reader.read

        def fail_on_poison(batch: ScheduledBatch):
            if any(poison in turn.sequence.tokens for turn in batch.scheduled):
                raise Broken
            return real(batch)

        stops = {str(poison): -100}
        alone = live.openai().completions.create(
            model="base", prompt="The list", max_tokens=40, temperature=0, logit_bias=stops
        )
        monkeypatch.setattr(reader, "read", fail_on_poison)
        answers: list[httpx.Response] = []
        good = {"model": "base", "prompt": "The list", "max_tokens": 40, "temperature": 0, "logit_bias": stops}
        threads = [ask_later(live, good, answers) for _ in range(3)]
        bad = live.http().post("/v1/completions", json={"model": "base", "prompt": "Q"})
        for thread in threads:
            thread.join(60)
        assert bad.status_code == 503
        assert {answer.json()["choices"][0]["text"] for answer in answers} == {alone.choices[0].text}
        assert live.http().get("/health").status_code == 200


def test_time_limit_ends_an_answer_as_it_is(tmp_path: Path):
    with tiny_server(tmp_path, context=4096, request_seconds=0.5) as live:
        answer = live.http().post("/v1/completions", json=endless(live) | {"max_tokens": 4000}).json()
        assert answer["choices"][0]["finish_reason"] == "length"
        assert 0 < answer["usage"]["completion_tokens"] < 4000


def test_bug_of_ours_is_a_500_without_a_traceback(live: Live, monkeypatch):
    def fail(*_):
        raise Broken("secret detail")

    monkeypatch.setattr("underhood.web.chat.ask_chat", fail)
    answer = live.http().post("/v1/chat/completions", json={"model": "tiny", "messages": ASK})
    assert answer.status_code == 500
    assert answer.json()["error"]["type"] == "server_error"
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text


# When the server ends


def test_shutdown_finishes_what_has_begun_and_takes_nothing_new(tmp_path: Path):
    registry = ModelRegistry.open([make_run(tmp_path / "tiny", context=4096)], spec=SPEC)
    with serving(registry, ServeSettings(port=0, drain_seconds=30)) as live:
        engine = registry.find("base").engine
        answers: list[httpx.Response] = []
        thread = ask_later(live, endless(live) | {"max_tokens": 400}, answers)
        wait_until(lambda: engine.stats().running == 1)
        live.server.should_exit = True
        thread.join(60)
    assert answers[0].status_code == 200
    assert answers[0].json()["usage"]["completion_tokens"] == 400
    assert not engine.healthy
    with pytest.raises(httpx.ConnectError):
        live.http().get("/health")


def test_shutdown_does_not_wait_for_ever(tmp_path: Path):
    registry = ModelRegistry.open([make_run(tmp_path / "tiny", context=4096)], spec=SPEC)
    with serving(registry, ServeSettings(port=0, drain_seconds=0.2)) as live:
        answers: list = []

        def ask() -> None:
            try:
                answers.append(
                    live.http().post("/v1/completions", json=endless(live) | {"max_tokens": 4000}).status_code
                )
            except httpx.HTTPError as error:
                answers.append(error)

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        wait_until(lambda: registry.find("base").engine.stats().running == 1)
        ended = time.monotonic()
        live.server.should_exit = True
        thread.join(60)
    assert time.monotonic() - ended < 20
    assert len(answers) == 1


def test_taken_port_is_one_line(live: Live):
    from underhood.web.server import listen

    with pytest.raises(UserError, match="another program listens there"):
        listen(ServeSettings(port=int(live.url.rpartition(":")[2])))
