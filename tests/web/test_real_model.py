"""The official OpenAI client and SmolLM2-135M-Instruct, a real model, served from its GGUF file."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pydantic
import pytest
from live_server import Live, serving

from underhood.infer.engine_spec import EngineSpec
from underhood.retrieve.collect import collect_passages
from underhood.retrieve.index import PassageIndex
from underhood.web.documents import RetrievalSettings
from underhood.web.registry import ModelRegistry
from underhood.web.settings import ServeSettings

pytestmark = pytest.mark.slow

CAPITAL: list[Any] = [{"role": "user", "content": "What is the capital of France?"}]
GUIDE = """# Harbour guide

## Berths
The yellow boat Marlin is at berth seventeen. Visitors tie up at berth four.

## Fuel
Diesel is sold on Tuesdays between nine and noon.
"""
ADD: Any = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds two numbers.",
        "parameters": {"properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, "required": ["a", "b"]},
    },
}
CLOCK: Any = {
    "type": "function",
    "function": {"name": "get_time", "description": "The current date and time.", "parameters": {}},
}


@pytest.fixture(scope="module")
def live(smollm2_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("real")
    (folder / "guide.md").write_text(GUIDE)
    index = folder / "guide.index"
    PassageIndex.build(collect_passages(str(folder / "guide.md"))).save(index)
    registry = ModelRegistry.open(
        [smollm2_gguf],
        quantize="int8",
        spec=EngineSpec(max_sequences=4, cache_bytes=256 << 20),
        retrieval=RetrievalSettings(index=index),
    )
    with serving(registry, ServeSettings(port=0, feedback=folder / "feedback.db")) as live:
        yield live


@pytest.fixture(scope="module")
def client(live: Live) -> openai.OpenAI:
    return live.openai()


@pytest.fixture(scope="module")
def ask(live: Live, client: openai.OpenAI):
    """Chat completions of the served model, greedy and without retrieval unless told otherwise."""

    def create(messages: list[Any], **options: Any) -> Any:
        extra = {"retrieve": options.pop("retrieve", False)}
        given = {"temperature": 0, "max_tokens": 60} | options
        model = live.registry.default.id
        return client.chat.completions.create(model=model, messages=messages, extra_body=extra, **given)

    return create


def test_answer_is_the_plain_loops_and_streams_the_same(live: Live, ask):
    answer = ask(CAPITAL)
    expected = live.registry.default.loaded.chat(CAPITAL, temperature=0.0, max_tokens=60)
    assert answer.choices[0].message.content == expected
    chunks = [*ask(CAPITAL, stream=True, stream_options={"include_usage": True})]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == answer.choices[0].message.content
    assert chunks[-1].usage.total_tokens == answer.usage.total_tokens


def test_history_is_read(ask):
    history = [
        {"role": "user", "content": "My dog is called Biscuit."},
        {"role": "assistant", "content": "That is a nice name for a dog!"},
        {"role": "user", "content": "What is my dog called?"},
    ]
    assert "Biscuit" in ask(history).choices[0].message.content


def test_forced_calls_have_the_right_arguments(ask):
    question = [{"role": "user", "content": "What is 12 plus 30?"}]
    for choice in ("required", {"type": "function", "function": {"name": "add"}}):
        (answer,) = ask(question, tools=[ADD, CLOCK], tool_choice=choice).choices
        (call,) = answer.message.tool_calls
        assert (call.function.name, json.loads(call.function.arguments)) == ("add", {"a": 12, "b": 30})
        assert answer.finish_reason == "tool_calls"


def test_function_without_arguments_is_called_at_once(ask):
    answer = ask(CAPITAL, tools=[CLOCK], tool_choice={"type": "function", "function": {"name": "get_time"}})
    assert answer.choices[0].message.tool_calls[0].function.arguments == "{}"
    assert answer.usage.completion_tokens <= 4


def test_result_of_a_call_is_used(ask):
    history: list[Any] = [{"role": "user", "content": "What is the weather in Oslo?"}]
    weather: Any = {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {"properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
    (call,) = ask(history, tools=[weather], tool_choice="required").choices[0].message.tool_calls
    assert json.loads(call.function.arguments) == {"city": "Oslo"}
    history += [
        {"role": "assistant", "content": None, "tool_calls": [call.model_dump()]},
        {"role": "tool", "tool_call_id": call.id, "name": "get_weather", "content": "-7 degrees and snow"},
    ]
    assert "snow" in ask(history, tools=[weather], tool_choice="none").choices[0].message.content


def test_automatic_choice_leaves_plain_questions_plain(ask):
    (answer,) = ask(CAPITAL, tools=[ADD, CLOCK], tool_choice="auto").choices
    assert answer.message.tool_calls is None
    assert "Paris" in answer.message.content


class Person(pydantic.BaseModel):
    name: str
    age: int


def test_json_schema_takes_the_facts_from_the_text(live: Live, client: openai.OpenAI):
    question: list[Any] = [{"role": "user", "content": "Anna is 34 years old. Give her name and age as JSON."}]
    answer = client.chat.completions.parse(
        model=live.registry.default.id,
        messages=question,
        response_format=Person,
        temperature=0,
        extra_body={"retrieve": False},
    )
    assert answer.choices[0].message.parsed == Person(name="Anna", age=34)


def test_embeddings_tell_topics_apart(live: Live, client: openai.OpenAI):
    texts = ["The cat sleeps on the sofa.", "A kitten naps on the couch.", "Interest rates rose by half a percent."]
    answer = client.embeddings.create(model=live.registry.default.id, input=texts)
    cat, kitten, rates = (np.array(item.embedding) for item in answer.data)
    assert len(cat) == 576
    assert np.linalg.norm(cat) == pytest.approx(1, abs=1e-5)
    assert cat @ kitten > cat @ rates
    assert cat @ kitten > kitten @ rates


def test_logprobs_are_of_the_tokens_written(ask):
    (answer,) = ask(CAPITAL, logprobs=True, top_logprobs=3).choices
    tokens = answer.logprobs.content
    assert b"".join(bytes(token.bytes) for token in tokens).decode().startswith(answer.message.content)
    for token in tokens:
        assert token.logprob == token.top_logprobs[0].logprob  # greedy
        assert sum(math.exp(top.logprob) for top in token.top_logprobs) <= 1 + 1e-5


def test_stop_string_ends_the_answer(ask):
    whole = ask(CAPITAL).choices[0].message.content
    (answer,) = ask(CAPITAL, stop=[whole[10:16], "never written"]).choices
    assert answer.message.content == whole[: whole.index(whole[10:16])]
    assert answer.finish_reason == "stop"


def test_several_choices_differ(ask):
    answer = ask([{"role": "user", "content": "Tell me a story."}], n=3, temperature=1, seed=5, max_tokens=20)
    assert len({choice.message.content for choice in answer.choices}) == 3


def test_answer_comes_from_the_documents(ask):
    question = [{"role": "user", "content": "At which berth is the Marlin?"}]
    answer = ask(question, retrieve=True)
    assert "seventeen" in answer.choices[0].message.content.lower()
    assert answer.model_extra["retrieved"][0]["title"].endswith("Berths")
    assert "seventeen" not in ask(question).choices[0].message.content.lower()
