"""Histories as clients send them back, and fields as their libraries write them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pydantic
import pytest
from live_server import Live, tiny_server

from underhood.web.messages import plain
from underhood.web.requests import ChatRequest

CHAT = "/v1/chat/completions"
ASK: list[Any] = [{"role": "user", "content": "What is a list?"}]
PLACE = {
    "type": "object",
    "properties": {"place": {"enum": ["here", "there"]}},
    "required": ["place"],
    "additionalProperties": False,
}
WEATHER: Any = {"type": "function", "function": {"name": "weather", "strict": True, "parameters": PLACE}}
FORCED: Any = {"type": "function", "function": {"name": "weather"}}


class Answer(pydantic.BaseModel):
    good: bool


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with tiny_server(tmp_path_factory.mktemp("histories"), context=1024) as live:
        yield live


@pytest.fixture(scope="module")
def client(live: Live) -> openai.OpenAI:
    return live.openai()


def accumulated(chunks: Any) -> dict[str, Any]:
    """A stream's deltas put together as hand-written clients do it: what each chunk adds stays, the index too."""
    message: dict[str, Any] = {"role": "assistant", "content": "", "tool_calls": []}
    for chunk in chunks:
        for choice in chunk.choices:
            message["content"] += choice.delta.content or ""
            for call in choice.delta.tool_calls or []:
                if call.index == len(message["tool_calls"]):
                    message["tool_calls"].append(call.model_dump())
                else:
                    message["tool_calls"][call.index]["function"]["arguments"] += call.function.arguments
    return message


def ways_to_answer(client: openai.OpenAI) -> dict[str, Any]:
    """Assistant messages in every form in which the official client hands them out."""
    chat = client.chat.completions
    bare: dict[str, Any] = {"model": "tiny", "messages": ASK, "max_tokens": 200, "seed": 1}
    text = bare | {"extra_body": {"response_format": {"type": "regex", "pattern": "[a-z]{8}"}}}
    call = bare | {"tools": [WEATHER], "tool_choice": FORCED}
    parsed = bare | {"response_format": Answer}
    answers: dict[str, Any] = {
        "text": chat.create(**text).choices[0].message,
        "call": chat.create(**call).choices[0].message,
        "parsed": chat.parse(**parsed).choices[0].message,
        "parsed call": chat.parse(**call).choices[0].message,
        "streamed text": accumulated(chat.create(stream=True, **text)),
        "streamed call": accumulated(chat.create(stream=True, **call)),
    }
    for name, given in (("text", text), ("call", call), ("parsed", parsed)):
        with chat.stream(**given) as stream:
            answers[f"helper's {name}"] = stream.get_final_completion().choices[0].message
    return answers


def test_every_answer_of_the_official_client_is_welcome_as_history(live: Live, client: openai.OpenAI):
    """Sent as the object, and as its dump in four ways: the model reads the same of all of them."""
    for name, answer in ways_to_answer(client).items():
        forms = [answer]
        if isinstance(answer, pydantic.BaseModel):
            dumps = [
                {"exclude_none": none, "exclude_unset": unset} for none in (False, True) for unset in (False, True)
            ]
            forms += [answer.model_dump(**options) for options in dumps]
        calls = answer["tool_calls"] if isinstance(answer, dict) else answer.tool_calls
        counts = set()
        for form in forms:
            results = [
                {
                    "role": "tool",
                    "tool_call_id": (call["id"] if isinstance(call, dict) else call.id),
                    "content": "Rain.",
                }
                | {"name": "weather"}
                for call in calls or []
            ]
            history = [*ASK, form, *results, {"role": "user", "content": "And now?"}]
            again = client.chat.completions.create(model="tiny", messages=history, max_tokens=1, temperature=0)
            counts.add(again.usage.prompt_tokens)
        assert len(counts) == 1, f"{name}: {counts}"
        assert counts.pop() > 15, name


CALL = {"id": "c", "type": "function", "function": {"name": "weather", "arguments": '{"place": "here"}'}}
PLAIN_CALL = [*ASK, {"role": "assistant", "content": "", "tool_calls": [CALL]}]
RESULT = {"role": "tool", "tool_call_id": "c", "content": "Rain."}
HISTORIES = {
    "content null": ([*ASK, {"role": "assistant", "content": None, "tool_calls": [CALL]}, RESULT], None),
    "content left out": ([*ASK, {"role": "assistant", "tool_calls": [CALL]}, RESULT], None),
    "no parts": ([*ASK, {"role": "assistant", "content": [], "tool_calls": [CALL]}, RESULT], None),
    "index": ([*ASK, {"role": "assistant", "content": None, "tool_calls": [CALL | {"index": 0}]}, RESULT], None),
    "type left out": (
        [*ASK, {"role": "assistant", "tool_calls": [{"id": "c", "function": CALL["function"]}]}, RESULT],
        None,
    ),
    "arguments as an object": (
        [
            *ASK,
            {
                "role": "assistant",
                "tool_calls": [CALL | {"function": {"name": "weather", "arguments": {"place": "here"}}}],
            },
            RESULT,
        ],
        None,
    ),
    "name of the tool": ([*PLAIN_CALL, RESULT | {"name": "weather"}], [*PLAIN_CALL, RESULT | {"name": "weather"}]),
    "parts of a result": ([*PLAIN_CALL, RESULT | {"content": [{"type": "text", "text": "Rain."}]}], None),
    "fields of stores": (
        [
            ASK[0] | {"id": "u1", "timestamp": 1, "mood": None},
            PLAIN_CALL[1] | {"id": "msg_1", "audio": None, "function_call": None, "refusal": None, "annotations": []},
            RESULT | {"cache_control": {"type": "ephemeral"}},
        ],
        None,
    ),
    "no calls": (
        [*ASK, {"role": "assistant", "content": "Hi", "tool_calls": []}, *ASK],
        [*ASK, {"role": "assistant", "content": "Hi"}, *ASK],
    ),
    "refusal": (
        [*ASK, {"role": "assistant", "content": None, "refusal": "No."}, *ASK],
        [*ASK, {"role": "assistant", "content": "No."}, *ASK],
    ),
    "refusal as a part": (
        [*ASK, {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}, *ASK],
        [*ASK, {"role": "assistant", "content": "No."}, *ASK],
    ),
    "developer": ([{"role": "developer", "content": "Rhyme."}, *ASK], [{"role": "system", "content": "Rhyme."}, *ASK]),
    "thoughts": (
        [*ASK, {"role": "assistant", "content": "Hi", "reasoning_content": "Hm.", "reasoning": "Hm."}, *ASK],
        [*ASK, {"role": "assistant", "content": "Hi", "reasoning_content": "Hm."}, *ASK],
    ),
    "call without arguments": (
        [*ASK, {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "weather", "arguments": ""}}]}],
        [*ASK, PLAIN_CALL[1] | {"tool_calls": [CALL | {"function": {"name": "weather", "arguments": "{}"}}]}],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HISTORIES)
def test_history_reads_the_same_in_every_spelling(live: Live, name: str):
    messages, expected = HISTORIES[name]
    body = {"model": "tiny", "messages": messages, "max_tokens": 1}
    assert [plain(message) for message in ChatRequest(**body).messages] == (expected or [*PLAIN_CALL, RESULT])
    answer = live.http().post(CHAT, json=body)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "user", "content": "x", "mood": 1}, "mood"),
        ({"role": "assistant", "content": "x", "prefix": True}, "prefix"),
        ({"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": ""}}, "function_call"),
        ({"role": "assistant", "content": "x", "audio": {"id": "a"}}, "audio"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, "content[0].type"),
        ({"role": "assistant", "tool_calls": [{"id": "c", "type": "custom", "custom": {}}]}, "tool_calls[0]"),
        ({"role": "tool", "content": "x"}, "tool_call_id"),
    ],
    ids=lambda value: str(value)[:50],
)  # fmt: skip
def test_field_that_changes_the_meaning_is_refused_by_name(live: Live, message: dict[str, Any], param: str):
    answer = live.http().post(CHAT, json={"model": "tiny", "messages": [message]})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"].startswith(f"messages[0].{param}")


INERT = {
    "max_completion_tokens": 1, "max_tokens": None, "stream_options": None, "tool_choice": "auto", "tools": [],
    "response_format": {"type": "text"}, "stop": None, "n": 1, "logit_bias": {}, "user": "me", "metadata": {},
    "store": True, "parallel_tool_calls": True, "top_logprobs": 0, "logprobs": False, "function_call": None,
    "functions": None, "audio": None, "prediction": {"type": "content", "content": "A"}, "service_tier": "flex",
    "reasoning_effort": None, "verbosity": "medium", "web_search_options": None, "prompt_cache_retention": "24h",
    "seed": -1, "top_p": 1, "temperature": 0, "frequency_penalty": 0, "presence_penalty": 0, "unheard_of": None,
}  # fmt: skip


def test_all_that_clients_write_out_without_wanting_anything_is_welcome(live: Live):
    answer = live.http().post(CHAT, json={"model": "tiny", "messages": ASK} | INERT)
    assert answer.status_code == 200, answer.text
    bare = {"model": "tiny", "messages": ASK, "max_tokens": 1, "temperature": 0}
    expected = live.http().post(CHAT, json=bare).json()
    assert answer.json()["choices"] == expected["choices"]


@pytest.mark.parametrize("name", ["second", "inner", "last"])
def test_system_messages_are_taken_anywhere(live: Live, name: str):
    """Our own template has one at the start; the others become paragraphs of users' turns."""
    system, answer = {"role": "system", "content": "Be brief."}, {"role": "assistant", "content": "A row."}
    more: Any = {"role": "developer", "content": "Rhyme."}
    given, expected = {
        "second": ([system, more, *ASK], [{"role": "system", "content": "Be brief.\n\nRhyme."}, *ASK]),
        "inner": (
            [system, *ASK, answer, more, *ASK],
            [system, *ASK, answer, {"role": "user", "content": "Rhyme.\n\nWhat is a list?"}],
        ),
        "last": ([system, *ASK, more], [system, {"role": "user", "content": "What is a list?\n\nRhyme."}]),
    }[name]
    ids = [
        live.http().post("/tokenize", json={"model": "tiny", "messages": messages}).json()["tokens"]
        for messages in (given, expected)
    ]
    assert ids[0] == ids[1]
    assert live.http().post(CHAT, json={"model": "tiny", "messages": given, "max_tokens": 1}).status_code == 200


def test_allowed_tools_leave_the_others_out(client: openai.OpenAI):
    clock: Any = {"type": "function", "function": {"name": "clock"}}
    for mode in ("required", "auto"):
        choice: Any = {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": [clock]}}
        for seed in range(3):
            answer = client.chat.completions.create(
                model="tiny", messages=ASK, tools=[WEATHER, clock], tool_choice=choice, seed=seed, max_tokens=40
            )
            names = [call.function.name for call in answer.choices[0].message.tool_calls or []]
            assert names == ["clock"] if mode == "required" else "weather" not in names


def test_call_arguments_stay_json_when_sent_back(client: openai.OpenAI):
    answer = client.chat.completions.create(
        model="tiny", messages=ASK, tools=[WEATHER], tool_choice=FORCED, max_tokens=60, seed=1
    )
    (call,) = answer.choices[0].message.tool_calls or []
    message = ChatRequest(model="m", messages=[answer.choices[0].message.model_dump()]).messages[0]  # type: ignore[list-item]
    assert json.loads(plain(message)["tool_calls"][0]["function"]["arguments"]) == json.loads(call.function.arguments)
