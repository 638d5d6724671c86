"""``/v1/completions``, ``/v1/embeddings``, ``/v1/models`` and ``/tokenize`` as the official client uses them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import openai
import pytest
import torch
from live_server import SPEC, Live, serving, tiny_server
from tiny_run import make_run

from underhood.infer.generate import generate
from underhood.web.registry import ModelRegistry
from underhood.web.settings import ServeSettings

TEXT = "The list is a"


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with tiny_server(tmp_path_factory.mktemp("completions")) as live:
        yield live


@pytest.fixture(scope="module")
def client(live: Live) -> openai.OpenAI:
    return live.openai()


def test_greedy_texts_of_several_prompts_match_the_naive_loop(live: Live, client: openai.OpenAI):
    loaded = live.registry.loaded("base")
    answer = client.completions.create(model="base", prompt=[TEXT, "Naïve café"], temperature=0, max_tokens=20)
    prompts = [loaded.prompt_ids(text) for text in (TEXT, "Naïve café")]
    done = generate(loaded.model, prompts, max_new_tokens=20, stop_ids=loaded.stop_ids)
    assert [choice.text for choice in answer.choices] == [
        loaded.tokenizer.decode(completion.ids) for completion in done
    ]
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert [choice.finish_reason for choice in answer.choices] == [completion.finish for completion in done]
    assert answer.usage.prompt_tokens == sum(map(len, prompts))


@pytest.mark.parametrize("route", ["/v1/completions", "/v1/chat/completions"])
def test_stream_is_what_the_description_says(live: Live, route: str):
    """Schemathesis found it wrong, after six minutes."""
    with live.http() as http:
        described = http.get("/openapi.json").json()["paths"][route]["post"]["responses"]["200"]["content"]
        request = {"prompt": TEXT} if route == "/v1/completions" else {"messages": [{"role": "user", "content": TEXT}]}
        answer = http.post(route, json=request | {"model": "sft", "stream": True, "max_tokens": 4})
    kind = answer.headers["content-type"].partition(";")[0]
    events = [dict([line.split(": ", 1)]) for line in answer.text.split("\n\n") if line]
    assert len(events) > 2
    output = described[kind]["itemSchema"]
    assert output["type"] == "object"
    for event in events:
        assert set(output["required"]) <= set(event) <= set(output["properties"])
        assert all(output["properties"][name]["type"] == "string" for name in event)


@pytest.mark.parametrize("with_model", [True, False], ids=["draft model", "prompt lookup"])
def test_server_that_guesses_gives_the_same_answers(tmp_path: Path, with_model: bool):
    run = make_run(tmp_path / "tiny", context=512)
    registry = ModelRegistry.open(
        [run], stage="base", spec=replace(SPEC, draft_tokens=4), draft=run if with_model else None
    )
    with serving(registry, ServeSettings(port=0, drain_seconds=5.0)) as live:
        loaded = live.registry.loaded("base")
        [expected] = generate(loaded.model, [loaded.prompt_ids(TEXT)], max_new_tokens=60, stop_ids=loaded.stop_ids)
        answer = live.openai().completions.create(model="base", prompt=TEXT, temperature=0, max_tokens=60)
        assert answer.choices[0].text == loaded.tokenizer.decode(expected.ids)
        metrics = live.http().get("/metrics").text
        told = dict(re.findall(r'underhood_(\w+)_tokens_total\{model="tiny:base"\} ([\d.]+)', metrics))
    assert float(told["draft"]) >= float(told["accepted"])
    if with_model:  # the best stage is the draft of another
        assert float(told["draft"]) > 0


def test_prompts_may_be_token_ids(live: Live, client: openai.OpenAI):
    loaded = live.registry.loaded("base")
    ids = loaded.prompt_ids(TEXT)
    given = {"model": "base", "temperature": 0, "max_tokens": 10}
    by_text = client.completions.create(prompt=TEXT, **given).choices[0].text
    assert client.completions.create(prompt=ids, **given).choices[0].text == by_text
    many = client.completions.create(prompt=[ids, ids[:2]], **given)
    assert many.choices[0].text == by_text
    assert len(many.choices) == 2


def test_a_request_that_says_nothing_gets_sixteen_tokens_of_a_new_text(client: openai.OpenAI, live: Live):
    answer = live.http().post("/v1/completions", json={"model": "base"}).json()
    assert answer["usage"]["completion_tokens"] <= 16
    assert answer["usage"]["prompt_tokens"] == 1


def test_echo_scores_a_text_without_writing_matches_the_model(live: Live, client: openai.OpenAI):
    loaded = live.registry.loaded("base")
    answer = client.completions.create(model="base", prompt=TEXT, max_tokens=0, echo=True, logprobs=2)
    (choice,) = answer.choices
    assert choice.text == TEXT
    told = choice.logprobs
    assert "".join(told.tokens) == TEXT
    assert [TEXT[at : at + len(token)] for at, token in zip(told.text_offset, told.tokens, strict=True)] == told.tokens
    ids = loaded.prompt_ids(TEXT)
    with torch.no_grad():
        logprobs_TV = loaded(ids)[0].log_softmax(dim=-1)
    expected = [float(logprobs_TV[t, id]) for t, id in enumerate(ids[1:])]
    assert told.token_logprobs == pytest.approx(expected, abs=1e-4)
    # Broken characters are named alike, so two alternatives may share one name.
    assert all(1 <= len(tops) <= 2 for tops in told.top_logprobs)
    assert any(len(tops) == 2 for tops in told.top_logprobs)
    assert answer.usage.completion_tokens == 0


def test_echo_of_token_ids_has_no_logprob_for_the_first(live: Live, client: openai.OpenAI):
    ids = live.registry.loaded("base").tokenizer.encode(TEXT)
    (choice,) = client.completions.create(model="base", prompt=ids, max_tokens=1, echo=True, logprobs=1).choices
    assert choice.logprobs.token_logprobs[0] is None
    assert choice.logprobs.top_logprobs[0] is None
    assert len(choice.logprobs.tokens) == len(ids) + 1
    assert choice.text.startswith(TEXT)


@pytest.mark.parametrize("echo", [False, True])
def test_stream_spells_every_choice(client: openai.OpenAI, echo: bool):
    given = {
        "model": "base", "prompt": [TEXT, "A"], "n": 2, "seed": 4, "max_tokens": 12, "logprobs": 1, "echo": echo,
    }  # fmt: skip
    whole = client.completions.create(**given)
    chunks = [*client.completions.create(**given, stream=True, stream_options={"include_usage": True})]
    assert chunks[-1].usage == whole.usage.model_copy(
        update={"prompt_tokens_details": chunks[-1].usage.prompt_tokens_details}
    )
    for choice in whole.choices:
        mine = [piece for chunk in chunks for piece in chunk.choices if piece.index == choice.index]
        assert "".join(piece.text for piece in mine) == choice.text
        assert [piece.finish_reason for piece in mine if piece.finish_reason] == [choice.finish_reason]
        tokens = [token for piece in mine if piece.logprobs for token in piece.logprobs.tokens]
        offsets = [offset for piece in mine if piece.logprobs for offset in piece.logprobs.text_offset]
        assert tokens == choice.logprobs.tokens
        assert offsets == choice.logprobs.text_offset


def test_best_of_returns_the_likeliest_of_its_choices(client: openai.OpenAI):
    given = {"model": "base", "prompt": TEXT, "seed": 9, "temperature": 1, "max_tokens": 8, "logprobs": 0}
    mean = lambda choice: sum(choice.logprobs.token_logprobs) / max(1, len(choice.logprobs.token_logprobs))  # noqa: E731
    every = client.completions.create(**given, n=6).choices
    best = client.completions.create(**given, n=2, best_of=6).choices
    ranked = sorted(every, key=mean, reverse=True)
    assert [choice.text for choice in best] == [choice.text for choice in ranked[:2]]


def test_shared_beginning_is_read_once(client: openai.OpenAI):
    prompt = "The list holds items, and the items of a list can be changed. " * 3
    first, second = (client.completions.create(model="sft", prompt=prompt, max_tokens=1) for _ in range(2))
    assert first.usage.prompt_tokens_details.cached_tokens == 0
    assert second.usage.prompt_tokens_details.cached_tokens >= first.usage.prompt_tokens // 2
    salted = client.completions.create(model="sft", prompt=prompt, max_tokens=1, extra_body={"cache_salt": "mine"})
    assert salted.usage.prompt_tokens_details.cached_tokens == 0


@pytest.mark.parametrize("encoding", ["float", "base64", None])
def test_embeddings_are_the_mean_of_the_last_layer(live: Live, client: openai.OpenAI, encoding: str | None):
    loaded = live.registry.loaded("base")
    extra = {} if encoding is None else {"encoding_format": encoding}
    answer = client.embeddings.create(model="base", input=[TEXT, "A"], **extra)
    for item, text in zip(answer.data, (TEXT, "A"), strict=True):
        vector = item.embedding
        if isinstance(vector, str):
            import base64

            import numpy as np

            vector = np.frombuffer(base64.b64decode(vector), "<f4").tolist()
        ids = torch.tensor([loaded.prompt_ids(text)])
        with torch.no_grad():
            mean = loaded.model.hidden_states(ids)[0].mean(dim=0)
        assert vector == pytest.approx((mean / mean.norm()).tolist(), abs=1e-5)
        assert math.isclose(sum(x * x for x in vector), 1, abs_tol=1e-4)
    assert answer.usage.prompt_tokens == sum(len(loaded.prompt_ids(text)) for text in (TEXT, "A"))


def test_tokenize_matches_the_tokenizer_and_the_template(live: Live):
    http, loaded = live.http(), live.registry.loaded("tiny")
    answer = http.post(
        "/tokenize", json={"prompt": "Naïve 🙂", "add_special_tokens": False, "return_token_strs": True}
    ).json()
    assert answer["tokens"] == loaded.tokenizer.encode("Naïve 🙂")
    assert answer["count"] == len(answer["tokens"]) == len(answer["token_strs"])
    assert answer["max_model_len"] == 512
    assert http.post("/tokenize", json={"prompt": "A"}).json()["tokens"] == loaded.prompt_ids("A")
    messages = [{"role": "user", "content": "Hi"}]
    talk = loaded.conversation()
    for prompt in (True, False):
        request = {"messages": messages, "add_generation_prompt": prompt}
        expected = talk.template.render(loaded.tokenizer, messages, add_generation_prompt=prompt).ids
        assert http.post("/tokenize", json=request).json()["tokens"] == expected
