"""``/v1/chat/completions`` as the official client uses it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from live_server import Live, tiny_server

from underhood.infer.engine_spec import EngineSpec
from underhood.infer.generate import generate
from underhood.infer.sample import GREEDY, SamplingSpec

ASK = [{"role": "user", "content": "What is a list?"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "How the weather is.",
        "parameters": {
            "type": "object",
            "properties": {
                "place": {"enum": ["here", "there"]},
                "days": {"type": "integer", "minimum": 1, "maximum": 9},
            },
            "required": ["place", "days"],
            "additionalProperties": False,
        },
    },
}
CLOCK = {"type": "function", "function": {"name": "clock"}}


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with tiny_server(tmp_path_factory.mktemp("chat"), context=2048) as live:
        yield live


@pytest.fixture(scope="module")
def client(live: Live) -> openai.OpenAI:
    return live.openai()


def ids_of(live: Live, model: str, messages: list) -> list[int]:
    loaded = live.registry.loaded(model)
    return loaded.conversation().template.render(loaded.tokenizer, messages, add_generation_prompt=True).ids


def expected(live: Live, model: str, count: int, sampling: SamplingSpec = GREEDY):
    loaded = live.registry.loaded(model)
    (done,) = generate(
        loaded.model, [ids_of(live, model, ASK)], max_new_tokens=count, sampling=sampling, stop_ids=loaded.stop_ids
    )
    return done, loaded.tokenizer.decode(done.ids)


def test_greedy_answer_and_logprobs_match_the_naive_loop(live: Live, client: openai.OpenAI):
    answer = client.chat.completions.create(
        model="tiny", messages=ASK, temperature=0, max_completion_tokens=24, logprobs=True, top_logprobs=3
    )
    done, text = expected(live, "tiny", 24)
    (choice,) = answer.choices
    assert choice.message.content == text
    assert choice.message.role == "assistant"
    assert choice.finish_reason == done.finish
    assert answer.model == "tiny:dpo"
    told = choice.logprobs.content
    assert [token.logprob for token in told] == pytest.approx(done.logprobs, abs=1e-4)
    assert b"".join(bytes(token.bytes) for token in told).decode("utf-8", "replace") == text
    for token in told:
        best = [other.logprob for other in token.top_logprobs]
        assert len(best) == 3
        assert best == sorted(best, reverse=True)
        assert token.logprob <= best[0] + 1e-6
    assert answer.usage.prompt_tokens == len(ids_of(live, "tiny", ASK))
    assert answer.usage.completion_tokens == len(done.ids) + (done.finish == "stop")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_stream_spells_the_answer_and_ends_with_the_usage(client: openai.OpenAI):
    given = {"model": "tiny", "messages": ASK, "seed": 3, "max_completion_tokens": 20, "n": 2, "logprobs": True}
    whole = client.chat.completions.create(**given)
    chunks = [*client.chat.completions.create(**given, stream=True, stream_options={"include_usage": True})]
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk.id for chunk in chunks}) == 1
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    for choice in whole.choices:
        mine = [piece for chunk in chunks for piece in chunk.choices if piece.index == choice.index]
        assert mine[0].delta.role == "assistant"
        assert "".join(piece.delta.content or "" for piece in mine) == choice.message.content
        assert [piece.finish_reason for piece in mine if piece.finish_reason] == [choice.finish_reason]
        told = [item.logprob for piece in mine if piece.logprobs for item in piece.logprobs.content]
        assert told == pytest.approx([item.logprob for item in choice.logprobs.content], abs=1e-5)


def test_stream_without_options_has_no_usage(client: openai.OpenAI):
    chunks = [*client.chat.completions.create(model="tiny", messages=ASK, max_tokens=3, stream=True)]
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)


def test_seed_repeats_and_choice_i_draws_as_prompt_i_of_generate(live: Live, client: openai.OpenAI):
    def texts(seed: int | None) -> list[str]:
        answer = client.chat.completions.create(
            model="tiny", messages=ASK, seed=seed, temperature=1, n=3, max_completion_tokens=16
        )
        return [choice.message.content for choice in answer.choices]

    assert texts(5) == texts(5) != texts(6)
    loaded = live.registry.loaded("tiny")
    done = generate(
        loaded.model,
        [ids_of(live, "tiny", ASK)] * 3,
        max_new_tokens=16,
        sampling=SamplingSpec(temperature=1.0, seed=5),
        stop_ids=loaded.stop_ids,
    )
    assert texts(5) == [loaded.tokenizer.decode(completion.ids) for completion in done]
    assert len(set(texts(-5))) == 3, "a negative seed is one like any other"


def test_stages_answer_by_their_ids_and_other_names(client: openai.OpenAI):
    listed = client.models.list().data
    assert [model.id for model in listed] == ["tiny:dpo", "tiny:sft", "tiny:base"]
    assert client.models.retrieve("sft").id == "tiny:sft"
    assert client.models.retrieve("tiny").id == "tiny:dpo"
    answers = {
        model: client.chat.completions.create(model=model, messages=ASK, temperature=0, max_tokens=8)
        for model in ("tiny", "dpo", "tiny:dpo", "sft")
    }
    assert answers["tiny"].choices[0].message.content == answers["dpo"].choices[0].message.content
    assert answers["sft"].model == "tiny:sft"


def test_stop_string_ends_the_answer_and_is_no_part_of_it(live: Live, client: openai.OpenAI):
    _, text = expected(live, "tiny", 30)
    stop = text[8:11]
    for stream in (False, True):
        answer = client.chat.completions.create(
            model="tiny", messages=ASK, temperature=0, max_tokens=30, stop=[stop, "never said"], stream=stream
        )
        if stream:
            parts = [piece for chunk in answer for piece in chunk.choices]
            output, finish = "".join(piece.delta.content or "" for piece in parts), parts[-1].finish_reason
        else:
            output, finish = answer.choices[0].message.content, answer.choices[0].finish_reason
        assert output == text[: text.index(stop)]
        assert finish == "stop"


def test_penalties_and_bias_reach_the_draw(live: Live, client: openai.OpenAI):
    loaded = live.registry.loaded("tiny")
    token = loaded.tokenizer.encode("x")[0]
    bias = {str(token): 100}
    answer = client.chat.completions.create(model="tiny", messages=ASK, temperature=0, logit_bias=bias, max_tokens=5)
    assert answer.choices[0].message.content == "xxxxx"
    answer = client.chat.completions.create(
        model="tiny",
        messages=ASK,
        temperature=0,
        logit_bias=bias,
        frequency_penalty=2,
        presence_penalty=2,
        max_tokens=60,
    )
    assert answer.choices[0].message.content != "x" * 60
    done, _ = expected(live, "tiny", 1)
    forbidden = {str(done.ids[0]): -100}
    answer = client.chat.completions.create(
        model="tiny", messages=ASK, temperature=0, logit_bias=forbidden, max_tokens=8, logprobs=True
    )
    told = [bytes(item.bytes) for item in answer.choices[0].logprobs.content]
    assert loaded.tokenizer.decode_bytes(done.ids) not in told


def test_own_sampling_fields_pass_through_extra_body(client: openai.OpenAI):
    def say(**extra):
        answer = client.chat.completions.create(
            model="tiny", messages=ASK, temperature=1, seed=1, max_tokens=12, extra_body=extra
        )
        return answer.choices[0].message.content

    greedy = client.chat.completions.create(model="tiny", messages=ASK, temperature=0, max_tokens=12)
    assert say(top_k=1) == say(min_p=1.0) == greedy.choices[0].message.content != say()


def test_json_schema_makes_every_answer_parse(client: openai.OpenAI):
    schema = {"name": "weather", "schema": WEATHER["function"]["parameters"], "strict": True}
    for seed in range(6):
        answer = client.chat.completions.create(
            model="tiny",
            messages=ASK,
            seed=seed,
            temperature=1,
            max_tokens=200,
            response_format={"type": "json_schema", "json_schema": schema},
        )
        actual = json.loads(answer.choices[0].message.content)
        assert actual["place"] in ("here", "there")
        assert 1 <= actual["days"] <= 9
        assert answer.choices[0].finish_reason == "stop"


def test_json_object_begins_as_one_and_regex_matches(client: openai.OpenAI):
    answer = client.chat.completions.create(
        model="tiny", messages=ASK, seed=1, max_tokens=40, response_format={"type": "json_object"}
    )
    text = answer.choices[0].message.content
    assert text.startswith("{")
    if answer.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(text), dict)
    answer = client.chat.completions.create(
        model="tiny",
        messages=ASK,
        max_tokens=40,
        extra_body={"response_format": {"type": "regex", "pattern": "[0-9]{3}-[a-f]{2}"}},
    )
    import re

    assert re.fullmatch("[0-9]{3}-[a-f]{2}", answer.choices[0].message.content)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "weather"}}], ids=["required", "named"]
)
def test_forced_tool_call_parses_and_fits_its_schema(client: openai.OpenAI, choice, stream: bool):
    for seed in range(4):
        given = {"tools": [WEATHER, CLOCK] if choice == "required" else [CLOCK, WEATHER], "tool_choice": choice}
        answer = client.chat.completions.create(
            model="tiny", messages=ASK, seed=seed, temperature=1, max_tokens=200, stream=stream, **given
        )
        if stream:
            parts = [piece for chunk in answer for piece in chunk.choices]
            deltas = [call for piece in parts for call in piece.delta.tool_calls or []]
            name = deltas[0].function.name
            assert deltas[0].id
            assert deltas[0].type == "function"
            arguments = "".join(call.function.arguments or "" for call in deltas)
            assert not any(piece.delta.content for piece in parts)
            finish = parts[-1].finish_reason
        else:
            (call,) = answer.choices[0].message.tool_calls
            name, arguments = call.function.name, call.function.arguments
            assert answer.choices[0].message.content is None
            finish = answer.choices[0].finish_reason
        assert finish == "tool_calls"
        actual = json.loads(arguments)
        if name == "weather":
            assert set(actual) == {"place", "days"}
        else:
            assert choice == "required"
            assert (name, actual) == ("clock", {})


def test_automatic_choice_gives_text_or_calls_that_parse(live: Live, client: openai.OpenAI):
    loaded = live.registry.loaded("tiny")
    ways = set()
    for seed in range(8):
        # The mark's first character made likely: a random model would hardly ever write it.
        bias = {str(loaded.tokenizer.encode("<")[0]): 100 if seed % 2 else -5}
        answer = client.chat.completions.create(
            model="tiny", messages=ASK, seed=seed, temperature=1, max_tokens=150, tools=[WEATHER], logit_bias=bias
        )
        (choice,) = answer.choices
        assert "<tool_call>" not in (choice.message.content or "")
        for call in choice.message.tool_calls or []:
            assert call.function.name == "weather"
            if choice.finish_reason == "tool_calls":
                assert set(json.loads(call.function.arguments)) == {"place", "days"}
        ways.add(bool(choice.message.tool_calls))
    assert False in ways


def test_tool_results_and_earlier_calls_come_back_as_they_were_given(client: openai.OpenAI):
    forced = {"type": "function", "function": {"name": "weather"}}
    first = client.chat.completions.create(model="tiny", messages=ASK, tools=[WEATHER], tool_choice=forced, seed=1)
    output = first.choices[0].message
    result = {"role": "tool", "tool_call_id": output.tool_calls[0].id, "content": "Rain."}
    uncalled = {"model": "tiny", "tools": [WEATHER], "tool_choice": "none", "max_tokens": 4}
    second = client.chat.completions.create(messages=[*ASK, output, result], **uncalled)
    assert second.choices[0].message.tool_calls is None
    before = client.chat.completions.create(messages=ASK, **uncalled)
    assert second.usage.prompt_tokens > before.usage.prompt_tokens


def test_content_parts_and_developer_role_are_read_as_text(client: openai.OpenAI):
    plain = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "A list?"}]
    parts = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "A "}, {"type": "text", "text": "list?"}]},
    ]
    first, other = (
        client.chat.completions.create(model="tiny", messages=messages, temperature=0, max_tokens=10)
        for messages in (plain, parts)
    )
    assert first.choices[0].message.content == other.choices[0].message.content
    assert first.usage.prompt_tokens == other.usage.prompt_tokens


def test_pydantic_answers_parse_by_the_clients_own_helper(client: openai.OpenAI):
    import pydantic

    class Weather(pydantic.BaseModel):
        rain: bool
        days: list[bool] = pydantic.Field(max_length=3)

    answer = client.chat.completions.parse(model="tiny", messages=ASK, max_tokens=200, response_format=Weather, seed=2)
    assert isinstance(answer.choices[0].message.parsed, Weather)


async def _many(live: Live, count: int) -> list[str]:
    import asyncio

    async with openai.AsyncOpenAI(base_url=f"{live.url}/v1", api_key="none", max_retries=0) as client:
        answers = await asyncio.gather(
            *(
                client.chat.completions.create(
                    model="tiny", messages=[{"role": "user", "content": f"{i}?"}], temperature=0, max_tokens=12
                )
                for i in range(count)
            )
        )
    return [answer.choices[0].message.content for answer in answers]


def test_many_at_once_get_what_each_gets_alone(live: Live, client: openai.OpenAI):
    import asyncio

    together = asyncio.run(_many(live, 24))
    for number in (0, 7, 23):
        alone = client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": f"{number}?"}], temperature=0, max_tokens=12
        )
        assert alone.choices[0].message.content == together[number]


def test_lowest_logprob_is_a_json_number(client: openai.OpenAI):
    answer = client.chat.completions.create(
        model="tiny", messages=ASK, max_tokens=2, logprobs=True, top_logprobs=20, temperature=0
    )
    assert all(
        math.isfinite(logprob.logprob) for token in answer.choices[0].logprobs.content for logprob in token.top_logprobs
    )


def test_answer_without_a_limit_ends_where_the_cache_does(tmp_path: Path):
    """A cache that holds less than the context ends an answer; a limit beyond it is refused as before."""
    spec = EngineSpec(max_sequences=2, max_batched_tokens=64, cache_bytes=64 << 10)
    with tiny_server(tmp_path, spec=spec, context=8192) as live:
        served = live.registry.find("tiny")
        blocks = served.engine.engine.scheduler.blocks
        assert blocks.total * blocks.size < 8192
        endless = {str(id): -100 for id in served.loaded.stop_ids}
        answer = live.openai().chat.completions.create(model="tiny", messages=ASK, logit_bias=endless)
        assert answer.choices[0].finish_reason == "length"
        assert answer.usage.total_tokens == blocks.total * blocks.size + 1
        with pytest.raises(openai.BadRequestError, match="cache has room"):
            live.openai().chat.completions.create(model="tiny", messages=ASK, max_tokens=8000)
