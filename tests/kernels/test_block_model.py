"""Models with block-quantised weights against plain ones with the dequantised weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType
from torch import Tensor, nn

from underhood.infer.cache import ContiguousCache
from underhood.infer.optimize import compiled_decoder, optimize_for_inference, select_path
from underhood.kernels import cpu_decoder
from underhood.kernels.block_linear import BlockEmbedding, BlockKind, BlockLinear, StackedBlocks
from underhood.kernels.block_surgery import BlockRows, takes_blocks, use_blocks
from underhood.kernels.fused_layers import FusedAttention, FusedGatedMLP
from underhood.models.base import parameter_count
from underhood.models.decoder import Decoder
from underhood.models.huggingface import spec_from_config
from underhood.models.presets import CONFIGS

KindOf = Callable[[str], BlockKind]


def alike(name: str) -> BlockKind:
    """As in SmolLM2's file."""
    return "q8_0" if "embed" in name else "q4_1"


def mixed(name: str) -> BlockKind:
    """Query and key unlike value, gate unlike up."""
    return "q8_0" if name.endswith(("value.weight", "up.weight")) else "q4_0"


def small(name: str, **changes: Any) -> Decoder:
    config: dict[str, Any] = dict(CONFIGS[name])
    config |= {"num_hidden_layers": 2, "vocab_size": 90, "hidden_size": 64, "intermediate_size": 96}
    config |= {"num_attention_heads": 4, "head_dim": 16, "num_key_value_heads": 2} | changes
    model = spec_from_config(config, where="the test").build().eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model


def pack(model: Decoder, kind_of: KindOf) -> None:
    """Quantises a model's matrices; the model itself becomes what they represent, `packed` holds them in blocks."""
    matrices: dict[str, BlockRows] = {}
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2 and takes_blocks(model, name) and "router" not in name:
            kind = kind_of(name)
            matrices[name] = BlockRows(gguf.quantize(parameter.numpy(), GGMLQuantizationType[kind.upper()]), kind)
    use_blocks(model, matrices, tied=model.spec.tied)


def dequantised(model: Decoder, packed: Decoder) -> Decoder:
    """A plain model with the weights that the packed one represents."""
    for name, layer in packed.named_modules(remove_duplicate=False):
        table = layer.table if isinstance(layer, BlockEmbedding) else layer
        if isinstance(table, BlockLinear) and not name.endswith((".table", ".linear")):
            model.get_submodule(name).weight = nn.Parameter(table.weight(), requires_grad=False)
        if name.endswith(".linear") and isinstance(layer, BlockLinear):  # behind a softcap
            model.get_submodule(name.removesuffix(".linear")).weight = nn.Parameter(layer.weight(), requires_grad=False)
    return model


@torch.inference_mode()
def token_by_token(model: Decoder, ids: list[int]) -> Tensor:
    cache = ContiguousCache.for_model(model, 1, len(ids))
    return torch.stack([model(torch.tensor([[id]]), cache=cache)[0, 0] for id in ids])


@torch.inference_mode()
def compiled(model: Decoder, ids: list[int]) -> Tensor:
    decoder = compiled_decoder(model)
    assert decoder is not None
    assert select_path(model, decoder, 1, 1)[0] == "compiled"
    cache = ContiguousCache.for_model(model, 1, len(ids))
    rows = []
    for id in ids:
        positions, _ = cache.extend(1, None)
        rows.append(decoder([id], positions[0].tolist(), cache)[0])
    return torch.stack(rows)


FAMILIES = ["llama-3.2-1b", "qwen2.5-0.5b", "qwen3-0.6b", "gemma-2-2b", "phi-3-mini-4k"]


@pytest.mark.parametrize("kind_of", [alike, mixed])
@pytest.mark.parametrize("name", FAMILIES)
def test_packed_model_matches_the_dequantised_one(name: str, kind_of: KindOf) -> None:
    packed = small(name)
    pack(packed, kind_of)
    plain = dequantised(small(name), packed)
    optimized = optimize_for_inference(packed)
    ids = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5]
    with torch.inference_mode():
        expected_TV = plain(torch.tensor([ids]))[0]
        for logits_TV in (packed(torch.tensor([ids]))[0], optimized(torch.tensor([ids]))[0]):
            assert float((logits_TV - expected_TV).std()) < 1e-3 * float(expected_TV.std())
    for run in (token_by_token, compiled):
        assert float((run(optimized, ids) - expected_TV).std()) < 1e-3 * float(expected_TV.std())


@pytest.mark.parametrize("name", FAMILIES)
def test_branches_give_what_their_kernels_give_one_by_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    packed, ids = small(name), [3, 1, 4, 1, 5, 9, 2, 6]
    pack(packed, alike)
    optimized = optimize_for_inference(packed)
    whole_TV = compiled(optimized, ids)
    monkeypatch.setattr(cpu_decoder, "branch_of", lambda *_: None)
    single_TV = compiled(optimized, ids)
    # Not bit for bit: compiled together, a sum may run in another order (on some processors it does), and a last bit
    # decides how an activation is rounded to 16 bits. That rounding makes 6e-5, so two of them make 9e-5.
    assert float((whole_TV - single_TV).std()) < 1e-4 * float(single_TV.std())


def test_experts_take_blocks_and_the_router_stays() -> None:
    name = "qwen3-30b-a3b"
    changes = {"num_experts": 4, "num_experts_per_tok": 4, "moe_intermediate_size": 64}
    packed = small(name, **changes)
    pack(packed, alike)
    assert isinstance(packed.get_submodule("blocks.0.feedforward.experts.1.gate"), BlockLinear)
    plain = dequantised(small(name, **changes), packed)
    ids = [3, 1, 4, 1, 5]
    with torch.inference_mode():
        expected_TV = plain(torch.tensor([ids]))[0]
    assert float((token_by_token(optimize_for_inference(packed), ids) - expected_TV).std()) < 1e-3 * float(
        expected_TV.std()
    )


def test_layers_of_one_kind_become_one_matrix_and_others_a_stack() -> None:
    for kind_of, kind in ((alike, BlockLinear), (mixed, StackedBlocks)):
        packed = small("llama-3.2-1b")
        pack(packed, kind_of)
        block = optimize_for_inference(packed).blocks[0]
        assert isinstance(block.mixer, FusedAttention)
        assert type(block.mixer.qkv) is kind
        assert isinstance(block.feedforward, FusedGatedMLP)
        assert type(block.feedforward.gate_up) is kind


def test_an_optimized_copy_shares_what_it_does_not_join() -> None:
    packed = small("llama-3.2-1b")
    pack(packed, alike)
    optimized = optimize_for_inference(packed)
    output = "blocks.0.mixer.output"
    assert optimized.get_submodule(output).codes is packed.get_submodule(output).codes
    assert optimized.embed.table is optimized.unembed
    assert optimized.unembed.codes is packed.unembed.codes


def test_parameters_are_counted_once() -> None:
    for tied in (True, False):
        model = small("llama-3.2-1b", tie_word_embeddings=tied)
        expected = parameter_count(model)
        pack(model, alike)
        assert parameter_count(model) == expected
        assert sum(parameter.numel() for parameter in model.parameters()) == 5 * 64  # the norms


def test_position_embeddings_stay_plain() -> None:
    config = dict(CONFIGS["gpt2"]) | {"n_embd": 64, "n_layer": 1, "n_head": 4, "vocab_size": 90}
    model = spec_from_config(config, where="the test").build()
    names = [name for name, parameter in model.named_parameters() if parameter.ndim == 2]
    assert "position_embed.weight" in names
    assert {name for name in names if not takes_blocks(model, name)} == {"position_embed.weight"}


def test_a_matrix_of_another_shape_is_refused() -> None:
    model = small("llama-3.2-1b")
    rows = BlockRows(np.zeros((16, 34), dtype=np.uint8), "q8_0")
    with pytest.raises(ValueError, match="has the shape"):
        use_blocks(model, {"blocks.0.mixer.query.weight": rows}, tied=True)
