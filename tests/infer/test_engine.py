"""The rule that holds the engine together: whatever it does for speed, greedy text is that of the plain loop."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import pytest
import torch
from tiny_run import tiny_model, tiny_tokenizer

from underhood.core.errors import UserError
from underhood.infer.engine import Engine, EngineSpec
from underhood.infer.generate import generate
from underhood.infer.optimize import optimize_for_inference
from underhood.infer.request import OutputChunk, Request
from underhood.infer.request_handle import EngineStopped, QueueFull, RequestHandle
from underhood.infer.sample import SamplingSpec
from underhood.models.decoder import Decoder, DecoderSpec
from underhood.nn.attention import AttentionSpec
from underhood.nn.positions import LearnedPositionSpec, SinusoidalPositionSpec
from underhood.nn.relative_attention import RelativeAttentionSpec

TOKENIZER = tiny_tokenizer()


def random_model(spec: DecoderSpec, seed: int = 0) -> Decoder:
    generator = torch.Generator().manual_seed(seed)
    model = spec.build()
    for name, parameter in model.named_parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.4 + float("norm" in name)
    return model.eval()


def variant(kind: str) -> Decoder:
    """Small models of every kind of attention that the cache has a path of its own for."""
    spec = tiny_model(TOKENIZER, seed=0).spec
    block = spec.blocks[0]
    mixer = block.mixer
    assert isinstance(mixer, AttentionSpec)
    if kind.startswith("plain "):
        kind = kind.removeprefix("plain ")
    mixers = {
        "grouped": [mixer],
        "window": [replace(mixer, window=7)],
        "mixed windows": [mixer, replace(mixer, window=5)],
        "capped": [replace(mixer, softcap=3.0, scale=0.5)],
        "capped window": [replace(mixer, softcap=3.0, window=6)],
    }[kind]
    return random_model(replace(spec, blocks=tuple(replace(block, mixer=mixer) for mixer in mixers)))


@torch.inference_mode()
def naive(model: Decoder, prompt: Sequence[int], count: int) -> list[int]:
    """Reads everything again for every token: what all else is compared with."""
    ids = list(prompt)
    for _ in range(min(count, model.context_length - len(prompt) + 1)):
        ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    return ids[len(prompt) :]


def prompts(count: int, seed: int = 0, longest: int = 40, common: int = 0) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, longest + 1, (count,), generator=generator).tolist()
    shared = torch.randint(270, (common,), generator=generator).tolist()
    return [shared + torch.randint(270, (length,), generator=generator).tolist() for length in lengths]


ASKED = prompts(6, longest=30) + prompts(3, seed=1, longest=9, common=21)
WRITTEN = 14


@cache
def expected_of(kind: str) -> list[list[int]]:
    return [naive(variant(kind), prompt, WRITTEN) for prompt in ASKED]


def run(engine: Engine, handles: Sequence[RequestHandle]) -> list[list[int]]:
    while not all(handle.done for handle in handles):
        engine.step()
    return [[token.id for chunk in handle.chunks() for token in chunk.tokens] for handle in handles]


def spec(blocks: int = 200, **changes: int | bool) -> EngineSpec:
    """Blocks of 4 tokens of the tiny model: 2 layers × keys and values × 1 head × width 8 × 4 bytes each."""
    size = 4 * 2 * 2 * 8 * 4
    return EngineSpec(
        **{"block": 4, "max_sequences": 8, "max_batched_tokens": 32, "cache_bytes": blocks * size, **changes}
    )


KINDS = ["grouped", "window", "mixed windows", "capped", "capped window"]
ROOMY, TIGHT = 200, 20
WHOLE, CHUNKED = 64, 9


def served(kind: str) -> Decoder:
    """What the engine is given: the model made ready for it, or as it is."""
    return variant(kind) if kind.startswith("plain ") else optimize_for_inference(variant(kind))


@pytest.mark.parametrize(
    ("kind", "blocks", "budget"),
    [
        *((kind, blocks, budget) for kind in KINDS for blocks, budget in ((ROOMY, WHOLE), (TIGHT, CHUNKED))),
        ("grouped", ROOMY, CHUNKED),
        ("grouped", TIGHT, WHOLE),
        ("plain grouped", TIGHT, CHUNKED),
        ("plain window", ROOMY, WHOLE),
        ("plain capped", ROOMY, CHUNKED),
    ],
)
def test_engine_greedy_text_matches_the_naive_loop(kind: str, blocks: int, budget: int) -> None:
    prompt_ids = ASKED
    engine = Engine(served(kind), TOKENIZER, spec(blocks, max_batched_tokens=budget))
    handles = [engine.submit(Request(prompt=prompt, max_new_tokens=WRITTEN)) for prompt in prompt_ids]
    actual = run(engine, handles)
    # Once more: now beginnings are in the cache.
    again = [engine.submit(Request(prompt=prompt, max_new_tokens=WRITTEN)) for prompt in prompt_ids]
    expected = expected_of(kind)
    assert actual == expected
    assert run(engine, again) == expected
    assert engine.stats().prefix_hits > 0
    # Behind a window blocks are given back early, and nobody has to make room.
    assert (engine.stats().preemptions > 0) == (blocks == TIGHT and kind.split()[-1] != "window")
    assert engine.stats().blocks_used == 0


def test_engine_text_behind_a_window_holds_the_blocks_of_its_window_only() -> None:
    held: dict[str, int] = {}
    for kind in ("window", "mixed windows"):
        model = variant(kind)
        engine = Engine(model, TOKENIZER, spec(prefix_caching=False))
        handle = engine.submit(Request(prompt=[1, 2, 3], max_new_tokens=80))
        held[kind] = 0
        while engine.step():
            held[kind] = max(held[kind], engine.block_manager.used)
        assert [token.id for chunk in handle.chunks() for token in chunk.tokens] == naive(model, [1, 2, 3], 80)
    # 7 tokens lie in 3 blocks of 4 at most; where a layer sees everything, 82 tokens have to stay.
    assert held == {"window": 3, "mixed windows": 21}


@pytest.mark.parametrize("greedy", [True, False], ids=["greedy", "sampled"])
def test_engine_writes_what_generate_writes_for_the_same_seed(greedy: bool) -> None:
    model, prompt_ids = variant("grouped"), prompts(5)
    sampling = SamplingSpec(temperature=0.0 if greedy else 1.3, top_p=0.9, seed=7)
    stops = frozenset(range(0, 270, 9))
    engine = Engine(model, TOKENIZER, spec())
    requests = [Request(prompt=prompt, max_new_tokens=30, sampling=sampling, stop_ids=stops) for prompt in prompt_ids]
    handles = [engine.submit(request) for request in requests]
    for handle, prompt in zip(handles, prompt_ids, strict=True):
        [expected] = generate(model, [prompt], max_new_tokens=30, sampling=sampling, stop_ids=stops)
        chunks = collected(handle)
        assert [token.id for chunk in chunks for token in chunk.tokens] == expected.ids
        assert handle.finishes == {0: expected.finish}
        logprobs = [token.logprob for chunk in chunks for token in chunk.tokens]
        assert logprobs == pytest.approx(expected.logprobs, abs=1e-4)
        assert handle.usage.prompt_tokens == len(prompt)
        assert handle.usage.completion_tokens == len(expected.ids) + (expected.finish == "stop")


def collected(handle: RequestHandle) -> list[OutputChunk]:
    return list(handle.chunks())


@pytest.mark.parametrize("running", [2, 8], ids=["in turns", "at once"])
def test_engine_choices_of_one_request_match_generate_on_copies_of_its_prompt(running: int) -> None:
    model, [prompt] = variant("grouped"), prompts(1, seed=3, longest=30)
    sampling = SamplingSpec(temperature=1.5, seed=11)
    engine = Engine(model, TOKENIZER, spec(max_sequences=running))
    handle = engine.submit(Request(prompt=prompt, max_new_tokens=15, sampling=sampling, n=5))
    actual: dict[int, list[int]] = {choice: [] for choice in range(5)}
    for chunk in handle.chunks():
        actual[chunk.choice] += [token.id for token in chunk.tokens]
    expected = generate(model, [prompt] * 5, max_new_tokens=15, sampling=sampling)
    assert list(actual.values()) == [completion.ids for completion in expected]
    assert len({tuple(ids) for ids in actual.values()}) == 5
    assert handle.usage.completion_tokens == 75
    assert engine.stats().prompt_tokens == len(prompt)
    assert engine.block_manager.used == 0


@pytest.mark.parametrize("kind", ["sinusoidal", "learned", "relative"])
def test_engine_serves_positions_that_are_added_or_relative(kind: str) -> None:
    base = tiny_model(TOKENIZER, seed=0).spec
    relative = RelativeAttentionSpec(heads=2, clip=4)
    mixer = relative if kind == "relative" else AttentionSpec(heads=2, rotary=None)
    added = {"sinusoidal": SinusoidalPositionSpec(), "learned": LearnedPositionSpec()}.get(kind)
    model = random_model(replace(base, blocks=(replace(base.blocks[0], mixer=mixer),), positions=added))
    engine, prompt_ids = Engine(optimize_for_inference(model), TOKENIZER, spec()), prompts(2)
    handles = [engine.submit(Request(prompt=prompt, max_new_tokens=15)) for prompt in prompt_ids]
    assert run(engine, handles) == [naive(model, prompt, 15) for prompt in prompt_ids]


def test_engine_best_of_returns_the_likeliest_choices_at_the_end() -> None:
    model, [prompt] = variant("grouped"), prompts(1, seed=3, longest=30)
    sampling = SamplingSpec(temperature=1.5, seed=11)
    handle = Engine(model, TOKENIZER, spec()).submit(
        Request(prompt=prompt, max_new_tokens=15, sampling=sampling, n=2, best_of=5)
    )
    chunks = collected(handle)
    every = generate(model, [prompt] * 5, max_new_tokens=15, sampling=sampling)
    best = sorted(every, key=lambda completion: -sum(completion.logprobs) / 15)[:2]
    assert [[token.id for token in chunk.tokens] for chunk in chunks] == [completion.ids for completion in best]
    assert [(chunk.choice, chunk.finish) for chunk in chunks] == [(0, "length"), (1, "length")]


def test_engine_streams_the_text_of_the_tokens() -> None:
    model, [prompt] = variant("grouped"), prompts(1)
    handle = Engine(model, TOKENIZER, spec()).submit(Request(prompt=prompt, max_new_tokens=40))
    chunks = collected(handle)
    ids = [token.id for chunk in chunks for token in chunk.tokens]
    assert "".join(chunk.text for chunk in chunks) == TOKENIZER.decode(ids)
    assert len(chunks) == 40
    assert [chunk.finish for chunk in chunks] == [None] * 39 + ["length"]


def test_engine_quantized_cache_stays_close_in_a_quarter_of_the_memory() -> None:
    model, [prompt] = variant("grouped"), prompts(1, seed=5)
    logprobs = {}
    for quantized in (False, True):
        engine = Engine(model, TOKENIZER, spec(quantize_cache=quantized, cache_bytes=1 << 20))
        chunks = collected(engine.submit(Request(prompt=prompt, max_new_tokens=8)))
        logprobs[quantized] = [token.logprob for chunk in chunks for token in chunk.tokens]
        # 2 layers × (keys, values) × head width 8 × 4 bytes, or 1 byte each and a scale
        assert engine.runner.cache.bytes // (engine.block_manager.total * 4) == (48 if quantized else 128)
    assert logprobs[True][:4] == pytest.approx(logprobs[False][:4], abs=0.2)
    assert logprobs[True] != logprobs[False]


def test_engine_shares_beginnings_within_a_salt_only() -> None:
    model = variant("grouped")
    engine = Engine(model, TOKENIZER, spec())
    prompt = prompts(1, seed=1, common=21)[0]
    cached = []
    for salt in ("ours", "ours", "theirs", ""):
        handle = engine.submit(Request(prompt=prompt, max_new_tokens=4, cache_salt=salt))
        collected(handle)
        cached.append(handle.usage.cached_tokens)
    assert cached == [0, (len(prompt) - 1) // 4 * 4, 0, 0]
    longer = engine.submit(Request(prompt=[*prompt[:21], 1, 2, 3], max_new_tokens=4, cache_salt="ours"))
    collected(longer)
    assert longer.usage.cached_tokens == 20


def test_engine_reads_a_shared_beginning_once() -> None:
    passes: list[int] = []
    model = variant("grouped")
    model.embed.register_forward_hook(lambda _, inputs, __: passes.append(inputs[0].shape[1]))
    engine = Engine(model, TOKENIZER, spec(max_batched_tokens=64))
    prompt = prompts(1, common=44, longest=4)[0]
    for _ in range(2):
        collected(engine.submit(Request(prompt=prompt, max_new_tokens=1)))
    assert passes == [len(prompt), len(prompt) - 44]


def test_engine_frees_the_blocks_of_whom_is_cancelled_or_late_within_a_step() -> None:
    model = variant("grouped")
    engine = Engine(model, TOKENIZER, spec())
    prompt_ids = prompts(4, longest=20)
    stays, leaves, late = (
        engine.submit(Request(prompt=prompt_ids[0], max_new_tokens=30)),
        engine.submit(Request(prompt=prompt_ids[1], max_new_tokens=30, n=2)),
        engine.submit(Request(prompt=prompt_ids[2], max_new_tokens=30, deadline=time.monotonic() + 3600)),
    )
    for _ in range(3):
        engine.step()
    leaves.cancel()
    leaves.cancel()
    engine._deadlines[0] = (time.monotonic() - 1, *engine._deadlines[0][1:])
    engine.step()
    assert engine.stats().running == 1
    assert engine.block_manager.used == len(engine.scheduler.running[0].blocks)
    assert leaves.finishes == {0: "cancelled", 1: "cancelled"}
    assert late.finishes == {0: "deadline"}
    assert [token.id for chunk in stays.chunks() for token in chunk.tokens] == naive(model, prompt_ids[0], 30)
    assert engine.stats().finished == {"cancelled": 2, "deadline": 1, "length": 1}
    assert engine.idle


def test_engine_reader_who_leaves_early_cancels() -> None:
    engine = Engine(variant("grouped"), TOKENIZER, spec())
    handle = engine.submit(Request(prompt=[1, 2, 3], max_new_tokens=30))
    chunks = handle.chunks()
    next(chunks)
    chunks.close()
    engine.step()
    assert handle.finishes == {0: "cancelled"}
    assert engine.block_manager.used == 0


def test_engine_refuses_what_it_can_never_do_and_what_is_too_much_now() -> None:
    engine = Engine(variant("grouped"), TOKENIZER, spec(10, max_waiting=2))
    with pytest.raises(UserError, match="room for; expected at most 40 tokens, got 50"):
        engine.submit(Request(prompt=[1] * 30, max_new_tokens=20))
    with pytest.raises(UserError, match="empty"):
        engine.submit(Request(prompt=[]))
    with pytest.raises(UserError, match="best_of"):
        engine.submit(Request(prompt=[1], n=3, best_of=2))
    with pytest.raises(UserError, match="too little memory"):
        Engine(variant("grouped"), TOKENIZER, spec(0))
    with pytest.raises(UserError, match="more than the 8 texts"):
        spec(max_batched_tokens=8)
    for _ in range(2):
        engine.submit(Request(prompt=[1], max_new_tokens=1))
    with pytest.raises(QueueFull):
        engine.submit(Request(prompt=[1], max_new_tokens=1))
    engine.step()
    engine.submit(Request(prompt=[1], max_new_tokens=1))
    engine.stop_accepting()
    with pytest.raises(EngineStopped):
        engine.submit(Request(prompt=[1], max_new_tokens=1))


def test_engine_ends_at_once_where_nothing_is_to_be_written() -> None:
    engine = Engine(variant("grouped"), TOKENIZER, spec())
    assert [chunk.finish for chunk in engine.submit(Request(prompt=[1], max_new_tokens=0)).chunks()] == ["length"]
    full = engine.submit(Request(prompt=[1] * 96, max_new_tokens=9))  # the context holds 96
    assert [len(chunk.tokens) for chunk in full.chunks()] == [1]
    assert engine.idle


class Fails:
    """Makes a model raise when a certain token is read."""

    def __init__(self, model: Decoder, token: int | None):
        self.token = token
        model.embed.register_forward_hook(self._check)

    def _check(self, _module: object, inputs: tuple[torch.Tensor], _output: object) -> None:
        if self.token is None or bool((inputs[0] == self.token).any()):
            raise RuntimeError("out of luck")


def test_engine_text_that_breaks_the_model_ends_alone(caplog: pytest.LogCaptureFixture) -> None:
    model = variant("grouped")
    unlucky = TOKENIZER.vocab_size - 1
    prompt_ids = [[1, 2, 3], [1, unlucky, 3], [4, 5, 6]]
    expected = [naive(model, prompt, 12) for prompt in prompt_ids]
    Fails(model, unlucky)
    engine = Engine(model, TOKENIZER, spec())
    handles = [engine.submit(Request(prompt=prompt, max_new_tokens=12)) for prompt in prompt_ids]
    actual = run(engine, handles)
    assert [actual[0], actual[2]] == [expected[0], expected[2]]
    assert handles[1].finishes == {0: "error"}
    assert str(handles[1].error) == "out of luck"
    assert engine.failure is None
    assert engine.block_manager.used == 0
    assert "the model failed on a text" in caplog.text


def test_engine_gives_up_when_its_model_has_broken() -> None:
    model = variant("grouped")
    engine = Engine(model, TOKENIZER, spec())
    handles = [engine.submit(Request(prompt=[1, 2], max_new_tokens=12)) for _ in range(5)]
    engine.step()
    Fails(model, None)
    engine.step()
    assert isinstance(engine.failure, RuntimeError)
    assert all(handle.finishes == {0: "error"} for handle in handles)
    assert (engine.idle, engine.block_manager.used) == (True, 0)
    with pytest.raises(EngineStopped):
        engine.submit(Request(prompt=[1]))


def test_engine_choice_that_fails_ends_its_request_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model = variant("grouped")
    engine = Engine(model, TOKENIZER, spec())
    good = engine.submit(Request(prompt=[1, 2], max_new_tokens=6))
    penalised = SamplingSpec(temperature=0.0, presence_penalty=1.0)
    bad = engine.submit(Request(prompt=[3, 4], max_new_tokens=6, sampling=penalised))

    def broken(*_: object) -> None:
        raise RuntimeError("no such mask")

    monkeypatch.setattr("underhood.infer.sampler.SequenceSampler.reshape", broken)
    assert run(engine, [good, bad])[0] == naive(model, [1, 2], 6)
    assert bad.finishes == {0: "error"}
    assert str(bad.error) == "no such mask"


def test_engine_embeds_the_mean_of_what_the_model_says_of_each_token() -> None:
    model = variant("grouped")
    engine = Engine(model, TOKENIZER, spec())
    rows = prompts(6, longest=25)
    handle = engine.submit(Request(prompt=[1, 2], max_new_tokens=6))
    actual = engine.embed(rows)
    with torch.inference_mode():
        expected = torch.stack([model.hidden_states(torch.tensor([row]))[0].mean(dim=0) for row in rows])
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
    assert [token.id for chunk in handle.chunks() for token in chunk.tokens] == naive(model, [1, 2], 6)
    with pytest.raises(UserError, match="empty"):
        engine.embed([[]])
