"""Steering vectors: what is added, that it changes what is written, and that nothing is left of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_run import make_run
from traced import opened

from underhood.core.errors import UserError
from underhood.infer.generate import generate
from underhood.infer.load import LoadedModel, load
from underhood.infer.optimize import optimize_for_inference
from underhood.inspect.steering import SteeringVector, steer, steered, steering_vector
from underhood.inspect.trace import trace
from underhood.nn.forward_context import ForwardContext

LOVE, HATE = "The list is a", "A cafe and more"


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(make_run(tmp_path_factory.mktemp("runs") / "tiny"))


def test_a_vector_is_the_difference_of_means(loaded: LoadedModel):
    pair = steering_vector(loaded, [LOVE, "items"], HATE, layer=1)
    ends = [trace(loaded, text, ["residual.1"])["residual.1"] for text in (LOVE, "items", HATE)]
    assert torch.allclose(pair.values, (ends[0][-1] + ends[1][-1]) / 2 - ends[2][-1], atol=1e-6)
    whole = steering_vector(loaded, LOVE, HATE, layer=2, tokens="all")
    ends = [trace(loaded, text, ["residual.2"])["residual.2"][1:].mean(dim=0) for text in (LOVE, HATE)]
    assert torch.allclose(whole.values, ends[0] - ends[1], atol=1e-6)


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_a_strength_of_one_moves_the_stream_by_the_vector(layer: int, loaded: LoadedModel):
    vector = steering_vector(loaded, LOVE, HATE, layer=layer)
    before = trace(loaded, LOVE, ["residual"])
    with steered(loaded, vector, 1.0):
        moved = trace(loaded, LOVE, ["residual", "logits"])
    if layer > 0:
        assert torch.equal(moved[f"residual.{layer - 1}"], before[f"residual.{layer - 1}"])
    with torch.no_grad():
        stream_TD = before[f"residual.{layer}"] + vector.values
        for block in list(loaded.decoder.blocks)[layer:]:
            tokens = torch.zeros(1, len(stream_TD), dtype=torch.long)
            stream_TD = block(stream_TD[None], ForwardContext(tokens, None, None))[0]
        expected = loaded.decoder.unembed(loaded.decoder.norm(stream_TD))
    assert torch.allclose(moved["logits"], expected, atol=1e-5)


def test_steering_changes_the_text_and_leaves_nothing_behind(loaded: LoadedModel):
    vector = steering_vector(loaded, LOVE, HATE, layer=1)
    logits = loaded(loaded.prompt_ids(LOVE))
    plain = generate(loaded.decoder, [loaded.prompt_ids(LOVE)], max_new_tokens=12)[0]
    steered_texts = steer(loaded, LOVE, vector, strengths=[0.0, 8.0, 0.0], max_tokens=12)
    assert steered_texts.texts[0] == steered_texts.texts[2] != steered_texts.texts[1]
    assert torch.equal(loaded(loaded.prompt_ids(LOVE)), logits)
    again = generate(loaded.decoder, [loaded.prompt_ids(LOVE)], max_new_tokens=12)[0]
    assert (again.ids, again.logprobs) == (plain.ids, plain.logprobs)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in loaded.decoder.modules())


def test_generation_is_steered_with_and_without_a_cache(loaded: LoadedModel):
    vector = steering_vector(loaded, LOVE, HATE, layer=1)
    prompt = loaded.prompt_ids(LOVE)
    plain = generate(loaded.decoder, [prompt], max_new_tokens=8)[0].ids
    with steered(loaded, vector, 6.0):
        cached, whole = (
            generate(loaded.decoder, [prompt], max_new_tokens=8, cache=cache)[0] for cache in (True, False)
        )
    assert cached.ids == whole.ids != plain
    assert generate(loaded.decoder, [prompt], max_new_tokens=8)[0].ids == plain


def test_a_copy_for_inference_is_steered_too(loaded: LoadedModel):
    vector = steering_vector(loaded, LOVE, HATE, layer=1)
    prompt, fast = loaded.prompt_ids(LOVE), optimize_for_inference(loaded.decoder)
    with steered(loaded, vector, 6.0):
        expected = generate(loaded.decoder, [prompt], max_new_tokens=8)[0].ids
        assert generate(fast, [prompt], max_new_tokens=8)[0].ids == expected
    assert generate(fast, [prompt], max_new_tokens=8)[0].ids != expected


def test_an_error_inside_removes_the_hook(loaded: LoadedModel):
    vector = steering_vector(loaded, LOVE, HATE, layer=0)
    with pytest.raises(RuntimeError, match="stop"), steered(loaded, vector):
        raise RuntimeError("stop")
    assert not any(module._forward_pre_hooks for module in loaded.decoder.modules())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: steering_vector(model, [], HATE, layer=0), "a set of prompts is empty"),
        (lambda model: steering_vector(model, LOVE, HATE, layer=3), "no site 'residual.3'"),
        (lambda model: steering_vector(model, LOVE, HATE, layer=0, tokens="some"), "no 'some' tokens"),
    ],
)
def test_mistakes_are_explained(call: Any, message: str, loaded: LoadedModel):
    with pytest.raises(UserError, match=message):
        call(loaded)


def test_a_vector_of_another_model_is_refused(loaded: LoadedModel, tmp_path: Path):
    other = opened("llama2", tmp_path / "llama")[0]
    vector = SteeringVector(0, torch.zeros(other.decoder.spec.d_model), ("a",), ("b",), 1.0)
    with pytest.raises(UserError, match="the vector has 32 numbers; expected 16"), steered(loaded, vector):
        pass


def test_results_describe_themselves(loaded: LoadedModel):
    vector = steering_vector(loaded, LOVE, HATE, layer=1)
    assert "steering vector before layer 1" in repr(vector)
    texts = steer(loaded, LOVE, vector, max_tokens=3)
    assert "+1" in repr(texts)
    assert "underhood" in texts._repr_html_()
