"""An optimized copy computes what the model does, a quantised one what its rounded weights say; the model stays."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from underhood.core.errors import UserError
from underhood.infer.cache import ContiguousCache
from underhood.infer.generate import generate
from underhood.infer.optimize import compiled_decoder, optimize_for_inference, select_path
from underhood.infer.session import Session
from underhood.kernels.fused_layers import FusedAttention, FusedGatedMLP
from underhood.kernels.weight_only_linear import Int4Linear, WeightOnlyLinear
from underhood.models.decoder import Decoder
from underhood.models.huggingface import spec_from_config
from underhood.models.presets import CONFIGS
from underhood.nn.softcap import SoftcappedLinear

FAMILIES = ["gpt2", "llama-3.2-1b", "qwen2.5-0.5b", "qwen3-0.6b", "gemma-2-2b", "gemma-3-1b", "olmo-2-1b"]
FAMILIES += ["phi-3-mini-4k", "qwen3-30b-a3b"]


def small(name: str, seed: int = 0) -> Decoder:
    """A published architecture, small, with weights that make every part matter."""
    config: dict[str, Any] = dict(CONFIGS[name])
    if name == "gpt2":
        config |= {"n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 90}
    else:
        config |= {"num_hidden_layers": 2, "vocab_size": 90, "hidden_size": 64, "intermediate_size": 96}
        config |= {"num_attention_heads": 4, "head_dim": 16, "num_key_value_heads": 2}
    if "num_experts" in config:
        config |= {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64}
    model = spec_from_config(config, where="the test").build().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model


@torch.inference_mode()
def token_by_token(model: Decoder, ids: list[int]) -> torch.Tensor:
    """The scores (T, V) of a text that is read one token at a time: the short way of a prepared model."""
    cache = ContiguousCache.for_model(model, 1, len(ids))
    return torch.stack([model(torch.tensor([[id]]), cache=cache)[0, 0] for id in ids])


@pytest.mark.parametrize("name", FAMILIES)
def test_fused_model_matches_the_plain_one(name: str):
    plain = small(name)
    fused = optimize_for_inference(plain)
    ids = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5]
    with torch.inference_mode():
        expected_TV = plain(torch.tensor([ids]))[0]
        torch.testing.assert_close(fused(torch.tensor([ids]))[0], expected_TV, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(token_by_token(fused, ids), expected_TV, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["gpt2", "llama-3.2-1b", "gemma-3-1b", "qwen3-30b-a3b"])
def test_fused_greedy_text_is_that_of_the_naive_loop(name: str):
    plain = small(name)
    fused = optimize_for_inference(plain)
    prompts = [[1, 2, 3], [7], [5, 5, 5, 5, 8]]
    expected = generate(plain, prompts, max_new_tokens=12, cache=False)
    assert [completion.ids for completion in generate(fused, prompts, max_new_tokens=12)] == [
        completion.ids for completion in expected
    ]


@pytest.mark.parametrize("quantize", ["int8", "int4"])
@pytest.mark.parametrize("name", FAMILIES)
def test_quantised_model_matches_float_weights_rounded_alike(name: str, quantize: Any):
    """The oracle is a plain model whose matrices hold what the packed ones represent."""
    packed = optimize_for_inference(small(name), quantize, fuse=False)
    plain = small(name)
    for path, layer in packed.named_modules():
        if isinstance(layer, WeightOnlyLinear):
            at = plain.get_submodule(path)
            assert isinstance(at, nn.Linear)
            at.weight = nn.Parameter(layer.weight(), requires_grad=False)
    ids = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5]
    with torch.inference_mode():
        expected_TV = plain(torch.tensor([ids]))[0]
    found_TV = token_by_token(packed, ids)
    # Activations keep 16 bits. An expert may change even so where two scores are close.
    if "a3b" not in name:
        assert float((found_TV - expected_TV).std()) < 1e-3 * float(expected_TV.std())


@pytest.mark.parametrize("quantize", ["int8", "int4"])
def test_quantised_and_fused_stays_near_the_model(quantize: Any):
    plain = small("llama-3.2-1b")
    packed = optimize_for_inference(plain, quantize)
    ids = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5]
    with torch.inference_mode():
        expected_TV = plain(torch.tensor([ids]))[0]
    off = float((token_by_token(packed, ids) - expected_TV).std() / expected_TV.std())
    # Rounding must show, or nothing was rounded, and must not matter.
    assert (1e-4 < off < 0.03) if quantize == "int8" else (1e-2 < off < 0.3)


def test_prepare_replaces_what_it_should():
    model = optimize_for_inference(small("llama-3.2-1b"), "int4")
    block = model.blocks[0]
    assert isinstance(block.mixer, FusedAttention)
    assert isinstance(block.feedforward, FusedGatedMLP)
    assert isinstance(block.mixer.qkv, Int4Linear)
    assert isinstance(model.unembed, Int4Linear)
    assert isinstance(model.embed, nn.Embedding)
    capped = optimize_for_inference(small("gemma-2-2b"), "int8")
    assert type(capped.unembed) is SoftcappedLinear
    experts = optimize_for_inference(small("qwen3-30b-a3b"), "int8")
    assert type(experts.blocks[0].feedforward.router) is nn.Linear  # type: ignore[union-attr]


def test_prepare_refuses_unknown_kinds_and_places():
    with pytest.raises(UserError, match="int3"):
        optimize_for_inference(small("gpt2"), "int3")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="CPU"):
        optimize_for_inference(small("gpt2").to("meta"), "int8")


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("rows", [slice(-2, None), torch.tensor([0, 3]), None], ids=["last", "some", "all"])
def test_rows_that_are_asked_for_are_those_of_the_whole_pass(name: str, rows: slice | torch.Tensor | None):
    for model in (small(name), optimize_for_inference(small(name))):
        with torch.inference_mode():
            whole = model.hidden_states(torch.tensor([[3, 1, 4, 1, 5]]))
            actual = model.hidden_states(torch.tensor([[3, 1, 4, 1, 5]]), rows=rows)
        torch.testing.assert_close(actual, whole if rows is None else whole[:, rows], rtol=1e-5, atol=1e-5)


def train(model: Decoder, steps: int = 3) -> list[float]:
    """Losses of a few steps of SGD."""
    tokens_BT = torch.randint(0, model.vocab_size, (2, 12), generator=torch.Generator().manual_seed(1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    losses = []
    for _ in range(steps):
        loss = nn.functional.cross_entropy(model(tokens_BT)[:, :-1].flatten(0, 1), tokens_BT[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("quantize", [None, "int8", "int4"])
def test_a_served_model_trains_like_one_that_was_never_served(quantize: Any):
    served, twin = small("llama-3.2-1b").train(), small("llama-3.2-1b").train()
    optimized = optimize_for_inference(served, quantize)
    assert len(list(Session(optimized).stream([3, 1, 4], max_new_tokens=5))) == 5
    assert served.training
    assert all(parameter.requires_grad for parameter in served.parameters())
    assert list(served.state_dict()) == list(twin.state_dict())
    assert train(served) == train(twin)
    for trained, expected in zip(served.parameters(), twin.parameters(), strict=True):
        assert torch.equal(trained, expected)


def test_weights_that_stay_the_same_are_shared():
    model = small("llama-3.2-1b")
    optimized = optimize_for_inference(model)
    known = {parameter.data_ptr() for parameter in model.parameters()}
    shared = {name for name, parameter in optimized.named_parameters() if parameter.data_ptr() in known}
    assert {"embed.table.weight", "blocks.0.mixer.output.weight", "blocks.0.feedforward.down.weight"} <= shared
    if model.spec.tied:
        assert optimized.unembed.weight is optimized.embed.weight


def test_hooks_choose_the_eager_path():
    model = small("llama-3.2-1b")
    optimized = optimize_for_inference(model)
    compiled = compiled_decoder(optimized)
    assert select_path(model, None, 1, 1) == ("eager", model)
    assert select_path(optimized, compiled, 1, 1) == ("compiled", optimized)
    assert select_path(optimized, None, 1, 1) == ("fused", optimized)
    assert select_path(optimized, compiled, 2, 1) == ("fused", optimized)
    assert select_path(optimized, compiled, 1, 500) == ("fused", optimized)
    seen: list[tuple[int, ...]] = []
    hook = model.blocks[1].register_forward_hook(lambda _, __, y: seen.append(tuple(y.shape)))
    assert select_path(optimized, compiled, 1, 1) == ("eager", model)
    hook.remove()
    assert select_path(optimized, compiled, 1, 1) == ("compiled", optimized)
    optimized.blocks[0].register_forward_hook(lambda *_: seen.append(()))
    assert select_path(optimized, compiled, 1, 1) == ("fused", optimized)
