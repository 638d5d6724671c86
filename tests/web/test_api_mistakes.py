"""What a client hears that asks for something impossible: OpenAI's form, the field's name, no traceback."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from live_server import Live, tiny_server

ASK = [{"role": "user", "content": "Hi"}]
CHAT, TEXT, VECTOR, TOKENS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/tokenize"
TOOL = {"type": "function", "function": {"name": "f"}}


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with tiny_server(tmp_path_factory.mktemp("mistakes"), max_body=1 << 16, context=96) as live:
        yield live


def told(live: Live, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    answer = live.http().post(path, json=body)
    actual = answer.json()
    assert set(actual) == {"error"}
    assert set(actual["error"]) == {"message", "type", "param", "code"}
    assert "Traceback" not in answer.text
    return answer.status_code, actual["error"]


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        (CHAT, {"temprature": 1}, "temprature"),
        (CHAT, {"temperature": "hot"}, "temperature"),
        (CHAT, {"temperature": "1"}, "temperature"),
        (CHAT, {"temperature": -1}, "temperature"),
        (CHAT, {"temperature": True}, "temperature"),
        (CHAT, {"top_p": 0}, "top_p"),
        (CHAT, {"n": 0}, "n"),
        (CHAT, {"n": 1.5}, "n"),
        (CHAT, {"max_completion_tokens": 0}, "max_completion_tokens"),
        (CHAT, {"stop": ""}, "stop"),
        (CHAT, {"stop": ["a", 3]}, "stop[1]"),
        (CHAT, {"seed": 2**70}, "seed"),
        (CHAT, {"logit_bias": {"x": 1}}, "logit_bias.x"),
        (CHAT, {"logit_bias": {"1": 101}}, "logit_bias.1"),
        (CHAT, {"logit_bias": {"99999": 1}}, "logit_bias"),
        (CHAT, {"top_logprobs": 2}, "top_logprobs"),
        (CHAT, {"top_logprobs": 21, "logprobs": True}, "top_logprobs"),
        (CHAT, {"stream_options": {"include_usage": True}}, "stream_options"),
        (CHAT, {"stream": True, "stream_options": {"usage": True}}, "stream_options.usage"),
        (CHAT, {"messages": []}, "messages"),
        (CHAT, {"messages": [{"role": "user"}]}, "messages[0].content"),
        (CHAT, {"messages": [{"role": "boss", "content": "x"}]}, "messages[0].role"),
        (CHAT, {"messages": [*ASK, {"role": "user", "content": "x", "mood": 1}]}, "messages[1].mood"),
        (
            CHAT,
            {"messages": [{"role": "user", "content": [{"type": "text", "text": 3}]}]},
            "messages[0].content[0].text",
        ),
        (CHAT, {"messages": [{"role": "user", "content": "word " * 300}]}, "messages"),
        (CHAT, {"messages": None}, "messages"),
        (CHAT, {"model": 3}, "model"),
        (CHAT, {"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        (CHAT, {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "g"}}}, "tool_choice"),
        (CHAT, {"tools": [TOOL, TOOL]}, "tools"),
        (CHAT, {"tool_choice": "required"}, "tool_choice"),
        (CHAT, {"tools": [TOOL | {"function": {"name": "f", "parameters": {"type": "string"}}}]}, "tools"),
        (CHAT, {"response_format": {"type": "xml"}}, "response_format.type"),
        (CHAT, {"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        (CHAT, {"response_format": {"type": "regex", "pattern": "("}}, "response_format"),
        (
            CHAT,
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "thing"}}}},
            "response_format",
        ),
        (
            CHAT,
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "thing"}}}]},
            "tools",
        ),
        (TEXT, {"best_of": 1, "n": 2}, "best_of"),
        (TEXT, {"best_of": 2, "stream": True}, "best_of"),
        (TEXT, {"prompt": [1, 99999]}, "prompt"),
        (TEXT, {"prompt": []}, "prompt"),
        (TEXT, {"prompt": [[]]}, "prompt[0]"),
        (TEXT, {"prompt": "word " * 300}, "prompt"),
        (TEXT, {"prompt": ["x"] * 33, "n": 2}, "n"),
        (TEXT, {"suffix": "x"}, "suffix"),
        (TEXT, {"logprobs": -1}, "logprobs"),
        (VECTOR, {"input": []}, "input"),
        (VECTOR, {"input": "x", "dimensions": 5}, "dimensions"),
        (VECTOR, {"input": "x", "encoding_format": "hex"}, "encoding_format"),
        (VECTOR, {}, "input"),
        (TOKENS, {}, "prompt"),
        (TOKENS, {"prompt": "x", "messages": ASK}, "prompt"),
        ("/v1/feedback", {"rating": "meh"}, "rating"),
        ("/v1/feedback", {"messages": ASK, "answer": "x"}, "rating"),
        ("/v1/feedback", {"messages": ASK, "rating": "up"}, "answer"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_bad_field_is_a_400_that_names_it(live: Live, path: str, body: dict[str, Any], param: str):
    whole = {CHAT: {"messages": ASK}}.get(path, {}) | {"model": "tiny"} | body
    status, error = told(live, path, whole)
    assert status == 400, error
    assert error["param"] is not None, error
    # A union names one of its branches' complaints: the field itself, or its content.
    assert error["param"] == param or error["param"].startswith((param + ".", param + "[")), error
    assert error["type"] == "invalid_request_error"
    assert error["message"]


def test_good_requests_pass_the_same_gate(live: Live):
    """The ablation of the test above: its bodies without the mistake are answered."""
    for path, body in (
        (CHAT, {"messages": ASK}),
        (TEXT, {"prompt": "x"}),
        (VECTOR, {"input": "x"}),
        (TOKENS, {"prompt": "x"}),
    ):
        more = {"max_tokens": 1} if path in (CHAT, TEXT) else {}
        assert live.http().post(path, json={"model": "tiny"} | body | more).status_code == 200


def test_inert_fields_of_openai_are_welcome(live: Live):
    body = {
        "model": "tiny", "messages": ASK, "max_tokens": 1, "user": "me", "metadata": {"a": "b"}, "store": False,
        "service_tier": "auto", "parallel_tool_calls": None, "modalities": ["text"], "safety_identifier": "x",
        "prompt_cache_key": "x", "n": None, "stop": None, "temperature": None, "response_format": {"type": "text"},
    }  # fmt: skip
    assert live.http().post(CHAT, json=body).status_code == 200


def test_unknown_model_is_a_404_with_the_nearest(live: Live):
    client = live.openai()
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="tiny:sfd", messages=ASK)
    assert caught.value.code == "model_not_found"
    assert "tiny:sft" in str(caught.value)
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nothing/like:this")


def test_base_model_does_not_chat(live: Live):
    status, error = told(live, CHAT, {"model": "base", "messages": ASK})
    assert (status, error["param"], error["code"]) == (400, "model", "not_a_chat_model")


def test_too_long_prompt_has_openais_code(live: Live):
    with pytest.raises(openai.BadRequestError) as caught:
        live.openai().completions.create(model="base", prompt="word " * 300)
    assert caught.value.code == "context_length_exceeded"


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "body"),
        (b"{", "not JSON"),
        (b"[]", "Invalid value"),
        (b'"x"', "Invalid value"),
        (b"\xff\xfe", "UTF-8"),
        (b'{"model": "tiny", "model": "tiny"}', "twice"),
        (b'{"model": "tiny", "prompt": "\\ud800"}', "surrogate"),
        (b'{"model": "tiny", "temperature": NaN}', "NaN"),
        (b'{"model": "tiny", "temperature": 1e999}', "temperature"),
        (b'{"model": "tiny", "seed": ' + b"9" * 5000 + b"}", "too long"),
        (b"[" * 10_000 + b"]" * 10_000, "deep"),
        (b'{"a":' * 200 + b"1" + b"}" * 200, "deep"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_bytes_that_are_no_good_json_are_a_400(live: Live, raw: bytes, message: str):
    answer = live.http().post(TEXT, content=raw, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400, answer.text
    assert message in answer.json()["error"]["message"]


def test_body_of_another_type_is_a_400(live: Live):
    answer = live.http().post(TEXT, content=b'{"model": "tiny"}', headers={"Content-Type": "text/plain"})
    assert answer.status_code == 400
    assert "json" in answer.json()["error"]["message"]


@pytest.mark.parametrize("chunked", [False, True])
def test_body_beyond_the_cap_is_refused_unread(live: Live, chunked: bool):
    def parts():
        for _ in range(200):
            yield b" " * 1024

    content = parts() if chunked else b" " * (1 << 17)
    answer = live.http().post(TEXT, content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "body_too_large"


def test_text_that_cannot_fit_is_refused_before_it_is_tokenized(live: Live, monkeypatch: pytest.MonkeyPatch):
    def no(*_):
        raise AssertionError("the text was read")

    for model in live.registry.served:
        assert model.longest_token > 0
        monkeypatch.setattr(model.loaded.tokenizer, "encode", no)
    status, error = told(live, TEXT, {"model": "base", "prompt": "x" * 50_000})
    assert (status, error["code"], error["param"]) == (400, "context_length_exceeded", "prompt")
    status, error = told(live, CHAT, {"model": "tiny", "messages": [{"role": "user", "content": "x" * 50_000}]})
    assert (status, error["code"], error["param"]) == (400, "context_length_exceeded", "messages")


def test_other_addresses_and_methods_answer_in_the_same_form(live: Live):
    http = live.http()
    answer = http.get("/v2/nothing")
    assert answer.status_code == 404
    assert answer.json()["error"]["type"] == "invalid_request_error"
    answer = http.get(TEXT)
    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"
