"""A prepared model computes what the plain one does; a rounded one what its rounded weights say."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from underhood.core.errors import UserError
from underhood.infer.cache import ContiguousCache
from underhood.infer.generate import generate
from underhood.infer.quantize import prepare
from underhood.models.decoder import Decoder
from underhood.models.huggingface import spec_from_config
from underhood.models.presets import CONFIGS
from underhood.nn.cap import CappedLinear
from underhood.nn.fused import FusedAttention, FusedGated
from underhood.nn.integer import IntegerLinear, multiplies_integers
from underhood.nn.packed import Int4Linear, Int8Linear, block_width

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
    fused = prepare(copy.deepcopy(plain))
    ids = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5]
    with torch.inference_mode():
        expected_TV = plain(torch.tensor([ids]))[0]
        torch.testing.assert_close(fused(torch.tensor([ids]))[0], expected_TV, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(token_by_token(fused, ids), expected_TV, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["gpt2", "llama-3.2-1b", "gemma-3-1b", "qwen3-30b-a3b"])
def test_fused_greedy_text_is_that_of_the_naive_loop(name: str):
    plain = small(name)
    fused = prepare(copy.deepcopy(plain))
    prompts = [[1, 2, 3], [7], [5, 5, 5, 5, 8]]
    expected = generate(plain, prompts, max_new_tokens=12, cache=False)
    assert [one.ids for one in generate(fused, prompts, max_new_tokens=12)] == [one.ids for one in expected]


@pytest.mark.parametrize("quantize", ["int8", "int4"])
@pytest.mark.parametrize("name", FAMILIES)
def test_quantised_model_matches_float_weights_rounded_alike(name: str, quantize: Any):
    """The oracle is a plain model whose matrices hold what the packed ones stand for."""
    packed = prepare(small(name), quantize, fuse=False)
    plain = small(name)
    for path, layer in packed.named_modules():
        if isinstance(layer, (IntegerLinear, Int8Linear, Int4Linear)):
            at = plain.get_submodule(path)
            assert isinstance(at, nn.Linear)
            at.weight = nn.Parameter(layer.weight(), requires_grad=False)
    ids = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5]
    with torch.inference_mode():
        expected_TV = plain(torch.tensor([ids]))[0]
    found_TV = token_by_token(packed, ids)
    # 4 bits take bfloat16 activations, 8 bits rounded ones; an expert may then change where two scores are close.
    if "a3b" not in name:
        allowed = 0.1 if quantize == "int4" else 0.03 if multiplies_integers() else 1e-3
        assert float((found_TV - expected_TV).std()) < allowed * float(expected_TV.std())


@pytest.mark.parametrize("quantize", ["int8", "int4"])
def test_quantised_and_fused_stays_near_the_model(quantize: Any):
    plain = small("llama-3.2-1b")
    packed = prepare(copy.deepcopy(plain), quantize)
    ids = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5]
    with torch.inference_mode():
        expected_TV = plain(torch.tensor([ids]))[0]
    off = float((token_by_token(packed, ids) - expected_TV).std() / expected_TV.std())
    # Rounding must show, or nothing was rounded, and must not matter.
    assert (1e-4 < off < 0.03) if quantize == "int8" else (1e-2 < off < 0.3)


def test_prepare_replaces_what_it_should():
    model = prepare(small("llama-3.2-1b"), "int4")
    block = model.blocks[0]
    assert isinstance(block.mixer, FusedAttention)
    assert isinstance(block.feedforward, FusedGated)
    assert isinstance(block.mixer.qkv, Int4Linear)
    assert isinstance(model.unembed, Int4Linear)
    assert isinstance(model.embed, nn.Embedding)
    capped = prepare(small("gemma-2-2b"), "int8")
    assert type(capped.unembed) is CappedLinear
    experts = prepare(small("qwen3-30b-a3b"), "int8")
    assert type(experts.blocks[0].feedforward.router) is nn.Linear  # type: ignore[union-attr]


def test_prepare_refuses_unknown_kinds_and_places():
    with pytest.raises(UserError, match="int3"):
        prepare(small("gpt2"), "int3")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="CPU"):
        prepare(small("gpt2").to("meta"), "int8")


@pytest.mark.parametrize("outputs", [1, 16, 63, 200, 768, 2304, 50_257])
@pytest.mark.parametrize("rows", [1, 3, 20])
def test_int8_product_matches_its_own_weight(outputs: int, rows: int):
    torch.manual_seed(outputs)
    linear = nn.Linear(40, outputs)
    packed = Int8Linear(linear)
    x = torch.randn(rows, 40)
    expected = F.linear(x, packed.weight(), linear.bias)
    torch.testing.assert_close(packed(x), expected, rtol=1e-4, atol=1e-5)
    # Half a step of 255 on the range of a row's block.
    with torch.no_grad():
        assert float((packed.weight() - linear.weight).abs().max()) <= float(linear.weight.abs().max()) / 255 * 1.01


needs_vnni = pytest.mark.skipif(not multiplies_integers(), reason="needs FBGEMM and VNNI instructions")


@needs_vnni
@pytest.mark.parametrize("outputs", [1, 16, 63, 200, 50_257])
@pytest.mark.parametrize("rows", [1, 3, 20])
@torch.no_grad()
def test_integer_product_is_the_exact_sum_of_rounded_numbers(outputs: int, rows: int):
    torch.manual_seed(outputs)
    linear = nn.Linear(40, outputs)
    packed = IntegerLinear(linear)
    x = torch.randn(rows, 40) * torch.tensor([[1.0], [100.0], [0.01]]).repeat(7, 1)[:rows]
    scale = x.abs().amax(dim=1, keepdim=True) / 127
    expected = F.linear((x / scale).round() * scale, packed.weight(), linear.bias)
    torch.testing.assert_close(packed(x), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    half = linear.weight.abs().amax(dim=1, keepdim=True) / 254  # of a step of 127 on an output's own weights
    assert bool(((packed.weight() - linear.weight).abs() <= half * 1.01).all())


@needs_vnni
def test_integer_product_of_a_token_does_not_depend_on_its_neighbours():
    torch.manual_seed(0)
    packed = IntegerLinear(nn.Linear(96, 70))
    x = torch.randn(9, 96) * torch.logspace(-3, 3, 9)[:, None]
    alone = torch.cat([packed(row[None]) for row in x])
    torch.testing.assert_close(packed(x), alone, rtol=1e-6, atol=0)
    torch.testing.assert_close(packed(x.view(3, 3, 96)).view(9, 70), alone, rtol=1e-6, atol=0)
    assert bool((packed(torch.zeros(2, 96)) == packed.bias).all())


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("rows", [slice(-2, None), torch.tensor([0, 3]), None], ids=["last", "some", "all"])
def test_rows_that_are_asked_for_are_those_of_the_whole_pass(name: str, rows: slice | torch.Tensor | None):
    for model in (small(name), prepare(small(name))):
        with torch.inference_mode():
            whole = model.hidden(torch.tensor([[3, 1, 4, 1, 5]]))
            found = model.hidden(torch.tensor([[3, 1, 4, 1, 5]]), rows=rows)
        torch.testing.assert_close(found, whole if rows is None else whole[:, rows], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("inputs", "outputs", "group"), [(64, 10, 64), (96, 64, 32), (256, 130, 128)])
@pytest.mark.parametrize("rows", [1, 3, 20])
def test_int4_product_matches_its_own_weight(inputs: int, outputs: int, group: int, rows: int):
    torch.manual_seed(inputs)
    linear = nn.Linear(inputs, outputs)
    packed = Int4Linear(linear, group=group)
    x = torch.randn(rows, inputs).bfloat16().float()
    expected = F.linear(x, packed.weight(), linear.bias)
    torch.testing.assert_close(packed(x), expected, rtol=2e-2, atol=2e-2)
    off = float((packed.weight() - linear.weight).std() / linear.weight.std())
    assert off < 0.09  # a uniform variable in 15 steps loses 1/15 of its standard deviation


def test_int4_search_beats_plain_rounding_of_the_range():
    """Weights with a few far ones are what narrowing the range is for."""
    torch.manual_seed(0)
    linear = nn.Linear(256, 64, bias=False)
    with torch.no_grad():
        linear.weight.copy_(torch.distributions.StudentT(4.0).sample(linear.weight.shape))
    grouped = linear.weight.detach().view(64, -1, 64)
    low, high = grouped.amin(-1, keepdim=True), grouped.amax(-1, keepdim=True)
    step = (high - low) / 15
    plain = ((grouped - low) / step).round() * step + low
    packed = Int4Linear(linear, group=64)
    error = float((packed.weight() - linear.weight).square().mean())
    assert error < 0.97 * float((plain - grouped).square().mean())


@pytest.mark.parametrize("outputs", [65, 96, 768, 2304, 4096, 32_000, 50_257])
def test_block_width_wastes_little(outputs: int):
    width = block_width(outputs)
    blocks = -(-outputs // width)
    assert width % 16 == 0
    assert 64 <= width <= 256
    assert blocks * width <= outputs * 1.35 + 64
