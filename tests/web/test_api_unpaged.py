"""The HTTP API over a model that the paged KV cache cannot hold: each sequence has a cache of its own."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from live_server import SPEC, Live, serving
from recurrent_mixer import recurrent_model
from tiny_run import make_run

from underhood.infer.generate import Completion, generate
from underhood.infer.load import LoadedModel, load
from underhood.infer.model_runner import UnpagedModelRunner
from underhood.web.registry import ModelRegistry
from underhood.web.settings import ServeSettings

PROMPTS = ["The list", "A list holds items, and the items of", "", "emoji 🙂 and"]
WRITTEN = 10


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """Serves a run whose only model has recurrent layers, as `underhood serve` would."""
    folder = tmp_path_factory.mktemp("unpaged")
    run = make_run(folder / "tiny", stages=("sft",))
    model = recurrent_model()

    def load_recurrent(*arguments: Any, **options: Any) -> LoadedModel:
        """Takes the tests' own model, because a checkpoint may name the package's spec types only."""
        return replace(load(*arguments, **options), model=model, spec=model.spec)

    settings = ServeSettings(port=0, feedback=folder / "feedback.db", drain_seconds=5.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("underhood.web.registry.load", load_recurrent)
        registry = ModelRegistry.open([run], spec=SPEC)
    with serving(registry, settings) as server:
        yield server


def completion(live: Live, prompt: str, **options: Any) -> dict[str, Any]:
    body = {"model": live.registry.default.id, "prompt": prompt, "max_tokens": WRITTEN, "temperature": 0} | options
    with live.http() as client:
        answer = client.post("/v1/completions", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def expected(live: Live, prompt: str) -> Completion:
    """The text that reading everything again for each token gives."""
    loaded = live.registry.default.loaded
    [text] = generate(
        loaded.model, [loaded.prompt_ids(prompt)], max_new_tokens=WRITTEN, stop_ids=loaded.stop_ids, cache=False
    )
    return text


def test_unpaged_completions_match_reading_everything_again(live: Live) -> None:
    assert isinstance(live.registry.default.engine.engine.runner, UnpagedModelRunner)
    decode = live.registry.default.loaded.tokenizer.decode
    for prompt in PROMPTS:
        answer = completion(live, prompt)
        assert answer["choices"][0]["text"] == decode(expected(live, prompt).ids)
        assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] == 0


def test_unpaged_completions_side_by_side_are_those_of_each_alone(live: Live) -> None:
    alone = [completion(live, prompt)["choices"][0]["text"] for prompt in PROMPTS]
    with ThreadPoolExecutor(len(PROMPTS)) as pool:
        assert list(pool.map(lambda prompt: completion(live, prompt)["choices"][0]["text"], PROMPTS * 2)) == alone * 2
    engine = live.registry.default.engine.engine
    assert (engine.stats().running, engine.stats().waiting) == (0, 0)
    assert isinstance(engine.runner, UnpagedModelRunner)
    assert not engine.runner._runners, "caches of finished sequences are freed"


def test_unpaged_choices_of_a_seeded_request_repeat_and_differ(live: Live) -> None:
    options = {"temperature": 1.0, "seed": 3, "n": 3}
    first, again = ([choice["text"] for choice in completion(live, "The list", **options)["choices"]] for _ in range(2))
    assert first == again
    assert len(set(first)) > 1


def test_unpaged_model_streams_and_chats(live: Live) -> None:
    client = live.openai()
    model = live.registry.default.id
    stream = client.completions.create(model=model, prompt="The list", max_tokens=WRITTEN, temperature=0, stream=True)
    whole = completion(live, "The list")["choices"][0]["text"]
    assert "".join(chunk.choices[0].text for chunk in stream if chunk.choices) == whole
    messages: Any = [{"role": "user", "content": "A list?"}]
    answers = [
        client.chat.completions.create(model=model, messages=messages, max_tokens=WRITTEN, temperature=0)
        for _ in range(2)
    ]
    assert answers[0].choices[0].message.content == answers[1].choices[0].message.content
    usage = answers[0].usage
    assert usage is not None
    assert 0 < usage.completion_tokens <= WRITTEN
