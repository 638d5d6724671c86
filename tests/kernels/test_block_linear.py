"""Block-quantised layers against the gguf package's own dequantisation."""

from __future__ import annotations

import copy

import gguf
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gguf import GGMLQuantizationType
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic
from torch import Tensor

from underhood.kernels.block_linear import BLOCK_BYTES, BlockEmbedding, BlockKind, BlockLinear, joinable
from underhood.kernels.block_matmul import CHUNK_VECTORS, TILE_VECTORS, widen_rows
from underhood.kernels.block_rounding import to_blocks
from underhood.kernels.block_simd import BLOCK, PANEL, float16_to_float32

KINDS: list[BlockKind] = ["q4_0", "q4_1", "q8_0"]
COUNTS = [1, TILE_VECTORS - 1, TILE_VECTORS, TILE_VECTORS + 1, CHUNK_VECTORS, CHUNK_VECTORS + 3, 150]


def random_blocks(kind: BlockKind, outputs: int, inputs: int, seed: int = 0) -> np.ndarray:
    """Rows of blocks with any codes, and scales and offsets of many magnitudes, subnormal and negative ones too."""
    random = np.random.default_rng(seed)
    blocks = random.integers(0, 256, (outputs, inputs // BLOCK, BLOCK_BYTES[kind])).astype(np.uint8)
    heads = 2 if kind == "q4_1" else 1
    scales = random.standard_normal((outputs, inputs // BLOCK, heads)) * 2.0 ** random.integers(-22, 2, heads)
    blocks[..., : 2 * heads] = scales.astype(np.float16).view(np.uint8)
    return blocks.reshape(outputs, -1)


def dequantized(kind: BlockKind, rows: np.ndarray) -> np.ndarray:
    return gguf.dequantize(rows, GGMLQuantizationType[kind.upper()])


def assert_close_enough(y: Tensor, x: Tensor, weight: np.ndarray, bias: Tensor | None) -> None:
    """Within half a step of 16 bits for each activation, and the float32 sum over blocks."""
    expected = x.double().numpy() @ weight.T.astype(np.float64) + (0 if bias is None else bias.double().numpy())
    most = np.abs(weight).sum(axis=1) * x.abs().amax(dim=1, keepdim=True).numpy() / 65_534
    size = np.abs(x.double().numpy()) @ np.abs(weight.T) + 1
    assert bool((np.abs(y.numpy() - expected) <= most + size * (2 + weight.shape[1] // BLOCK) * 2.0**-23).all())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("outputs", "inputs"), [(1, 32), (15, 64), (16, 96), (50, 576)])
def test_values_are_gguf_dequantize_bit_for_bit(kind: BlockKind, outputs: int, inputs: int) -> None:
    rows = random_blocks(kind, outputs, inputs)
    layer = BlockLinear.from_blocks(rows, kind)
    assert (layer.kind, layer.in_features, layer.out_features) == (kind, inputs, outputs)
    expected = dequantized(kind, rows)
    assert np.array_equal(layer.weight().numpy().view(np.uint32), expected.view(np.uint32))
    ids = torch.tensor([[0, outputs - 1, outputs // 2]])
    assert np.array_equal(layer.rows(ids).numpy(), expected[ids.numpy()])


@pytest.mark.parametrize("kind", KINDS)
def test_memory_mapped_rows_are_read_without_a_warning(kind: BlockKind, recwarn: pytest.WarningsRecorder) -> None:
    rows = random_blocks(kind, 32, 64)
    rows.flags.writeable = False
    layer = BlockLinear.from_blocks(rows, kind)
    assert not recwarn.list
    assert np.array_equal(layer.weight().numpy(), dequantized(kind, rows))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", COUNTS)
def test_product_matches_the_dequantized_one(kind: BlockKind, count: int) -> None:
    generator = torch.Generator().manual_seed(count)
    for outputs, inputs in ((1, 32), (7, 64), (16, 96), (33, 576), (64, 1_536)):
        rows = random_blocks(kind, outputs, inputs, seed=outputs)
        weight = dequantized(kind, rows)
        x = torch.randn(count, inputs, generator=generator)
        for bias in (None, torch.randn(outputs, generator=generator)):
            assert_close_enough(BlockLinear.from_blocks(rows, kind, bias)(x), x, weight, bias)


@pytest.mark.parametrize("kind", KINDS)
def test_product_with_extreme_codes_does_not_overflow(kind: BlockKind) -> None:
    blocks = np.zeros((16, 2, BLOCK_BYTES[kind]), dtype=np.uint8)
    blocks[..., :2] = np.full(1, 1.0, dtype=np.float16).view(np.uint8)
    blocks[..., -(BLOCK // 2 if kind != "q8_0" else BLOCK) :] = 0x80 if kind == "q8_0" else 0xFF
    rows = blocks.reshape(16, -1)
    x = torch.full((5, 64), 3.0)
    assert_close_enough(BlockLinear.from_blocks(rows, kind)(x), x, dequantized(kind, rows), None)


@pytest.mark.parametrize("kind", KINDS)
def test_joined_layers_give_both_outputs(kind: BlockKind) -> None:
    sizes = (32, 16, 23)
    layers = [BlockLinear.from_blocks(random_blocks(kind, size, 96, seed=size), kind) for size in sizes]
    whole = BlockLinear.joined(layers)
    assert torch.equal(whole.weight(), torch.cat([layer.weight() for layer in layers]))
    x = torch.randn(3, 96)
    assert torch.equal(whole(x), torch.cat([layer(x) for layer in layers], dim=1))


def test_layers_that_do_not_fit_are_not_joined() -> None:
    def layer(kind: BlockKind, outputs: int, bias: bool = False) -> BlockLinear:
        return BlockLinear.from_blocks(random_blocks(kind, outputs, 64), kind, torch.zeros(outputs) if bias else None)

    assert joinable([layer("q4_1", 32), layer("q4_1", 5)])
    for others in ([layer("q4_1", 5), layer("q4_1", 32)], [layer("q4_0", 32), layer("q4_1", 32)]):
        assert not joinable(others)
        with pytest.raises(ValueError, match="different kinds"):
            BlockLinear.joined(others)
    assert not joinable([layer("q8_0", 32), layer("q8_0", 32, bias=True)])
    assert not joinable([layer("q8_0", 32), torch.nn.Linear(64, 32)])


@pytest.mark.parametrize("kind", KINDS)
def test_embedding_looks_up_rows(kind: BlockKind) -> None:
    rows = random_blocks(kind, 40, 64)
    tokens = torch.tensor([[3, 39, 3], [0, 17, 16]])
    expected = F.embedding(tokens, torch.from_numpy(dequantized(kind, rows)))
    assert torch.equal(BlockEmbedding(BlockLinear.from_blocks(rows, kind))(tokens), expected)
    assert torch.equal(BlockEmbedding(BlockLinear.from_blocks(rows, kind), scale=3.0)(tokens), expected * 3)


@pytest.mark.parametrize("kind", KINDS)
def test_compiled_lookup_gives_the_dequantized_rows(kind: BlockKind) -> None:
    rows, ids = random_blocks(kind, 40, 96), np.array([3, 39, 3, 0, 17, 16])
    weights = BlockLinear.from_blocks(rows, kind).block_weights()
    x_NI = np.empty((len(ids), 96), dtype=np.float32)
    widen_rows(weights.codes_PBX, weights.scale_PBR, weights.offset_PBR, ids, np.float32(3.0), x_NI)
    # A product and a sum may be rounded together.
    np.testing.assert_allclose(x_NI, dequantized(kind, rows)[ids] * 3, rtol=1e-6, atol=1e-6)


def test_bits_survive_a_change_of_the_model_s_type() -> None:
    layer = BlockLinear.from_blocks(random_blocks("q4_1", 32, 64), "q4_1")
    x = torch.randn(2, 64)
    expected = layer(x)
    for change in (torch.nn.Module.bfloat16, torch.nn.Module.double):
        torch.testing.assert_close(change(torch.nn.Sequential(copy.deepcopy(layer)))(x), expected)


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 34 bytes"):
        BlockLinear.from_blocks(np.zeros((4, 33), dtype=np.uint8), "q8_0")
    layer = BlockLinear.from_blocks(random_blocks("q8_0", 16, 64), "q8_0")
    with pytest.raises(ValueError, match="cannot multiply"):
        layer.product()(np.zeros((1, 32), dtype=np.float32), np.zeros((1, 16), dtype=np.float32))


@pytest.mark.parametrize("native", [False, True])
def test_float16_becomes_float32_on_any_processor(native: bool) -> None:
    bits = np.arange(2**16, dtype=np.uint16)
    bits = bits[np.isfinite(bits.view(np.float16))]  # the portable code knows finite numbers only
    bits = bits[: len(bits) // PANEL * PANEL].copy()
    y = np.empty(len(bits), dtype=np.float32)

    @intrinsic
    def convert(_, source, target):  # type: ignore[no-untyped-def]
        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            words, floats = ir.VectorType(ir.IntType(16), PANEL), ir.VectorType(ir.FloatType(), PANEL)
            loaded = builder.load(builder.inttoptr(arguments[0], words.as_pointer()), align=2)
            result = float16_to_float32(builder, loaded, native=native)
            builder.store(result, builder.inttoptr(arguments[1], floats.as_pointer()), align=4)
            return context.get_dummy_value()

        return types.void(types.intp, types.intp), generate

    @njit
    def convert_all(bits: np.ndarray, y: np.ndarray) -> None:
        for start in range(0, len(bits), PANEL):
            convert(bits.ctypes.data + 2 * start, y.ctypes.data + 4 * start)  # type: ignore[call-arg]

    convert_all(bits, y)
    assert np.array_equal(y, bits.view(np.float16).astype(np.float32))


@pytest.mark.parametrize(("kind", "bound"), [("q8_0", 1.002), ("q4_1", 1.0)])
def test_rounding_is_no_worse_than_that_of_gguf(kind: BlockKind, bound: float) -> None:
    weight = torch.randn(40, 128, generator=torch.Generator().manual_seed(0)) * 0.1
    weight[3, 32:64], weight[4, :32] = 0.0, 0.25  # a block of zeros, a constant one
    ours = BlockLinear.from_blocks(to_blocks(weight, kind), kind).weight()
    theirs = torch.from_numpy(dequantized(kind, gguf.quantize(weight.numpy(), GGMLQuantizationType[kind.upper()])))
    assert float((ours - weight).square().sum()) <= bound * float((theirs - weight).square().sum())
    assert torch.equal(ours[3, 32:64], torch.zeros(32))
    torch.testing.assert_close(ours[4, :32], torch.full((32,), 0.25), rtol=2**-11, atol=0.0)  # a float16 scale


def test_rounding_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ValueError, match="multiple of 32"):
        to_blocks(torch.zeros(2, 40), "q8_0")
    with pytest.raises(ValueError, match="expected q8_0 or q4_1"):
        to_blocks(torch.zeros(2, 64), "q4_0")
