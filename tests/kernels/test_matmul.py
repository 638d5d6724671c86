"""Products of a few vectors against NumPy's in double precision."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from underhood.kernels.elementwise import array
from underhood.kernels.matmul import DOT_BATCH_MAX, Weights, multiply
from underhood.kernels.simd import GROUP, LANES, pair_products

EDGES = [1, 2, 4, 5, DOT_BATCH_MAX, DOT_BATCH_MAX + 1, LANES, LANES + 1, 2 * LANES, 3 * LANES + 5]
"""Numbers of vectors around which the way of multiplying changes."""


def rounded_weights(bits: int, outputs: int, inputs: int, random: np.random.Generator) -> tuple[Weights, np.ndarray]:
    """Codes of which none is left out, and the matrix that they represent."""
    if bits == 8:
        codes = random.integers(-127, 128, (outputs, inputs)).astype(np.int8)
        scale = random.uniform(0.5, 1.0, (outputs, 1)).astype(np.float32)
        return Weights(codes, scale), codes * scale.astype(np.float64)
    codes = random.integers(0, 16, (outputs, inputs // GROUP, GROUP)).astype(np.uint8)
    packed = codes[..., : GROUP // 2] | codes[..., GROUP // 2 :] << 4
    scale, offset = (torch.from_numpy(random.uniform(0.5, 1.0, codes.shape[:2])).bfloat16() for _ in range(2))
    weight = (codes - 8.0) * scale.double().numpy()[..., None] + offset.double().numpy()[..., None]
    weights = Weights(packed.reshape(outputs, -1), array(scale), array(offset))
    return weights, weight.reshape(outputs, inputs)


@pytest.mark.parametrize("count", EDGES)
@pytest.mark.parametrize("threads", [1, 2])
def test_float_products(count: int, threads: int) -> None:
    random = np.random.default_rng(0)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for outputs, inputs in ((1, 1), (7, 16), (8, 15), (9, 64), (70, 83), (64, 256)):
            weight, x, bias = (
                random.standard_normal(shape, dtype=np.float32)
                for shape in ((outputs, inputs), (count, inputs), outputs)
            )
            for b in (bias, None):
                y = np.full((count, outputs), np.nan, dtype=np.float32)
                multiply(Weights(weight), x, b, y)
                expected = x.astype(np.float64) @ weight.T.astype(np.float64) + (0 if b is None else b)
                most = (np.abs(x) @ np.abs(weight).T + 1) * inputs * 2.0**-23  # sums in any order
                assert bool((np.abs(y - expected) <= most).all())
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("count", EDGES)
@pytest.mark.parametrize("bits", [8, 4])
def test_products_of_whole_numbers_are_exact(count: int, bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Activations that 16 bits hold: whole numbers up to 32,767, of which the largest occurs in each vector."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1 + count % 3)
    random = np.random.default_rng(count)
    for outputs, inputs in ((1, 64), (9, 192), (70, 640)):
        weights, weight = rounded_weights(bits, outputs, inputs, random)
        x = random.integers(-32_767, 32_768, (count, inputs)).astype(np.float32)
        x[:, 0] = 32_767
        x *= 2.0 ** random.integers(-20, 20, (count, 1)).astype(np.float32)
        bias = random.standard_normal(outputs, dtype=np.float32)
        y = np.full((count, outputs), np.nan, dtype=np.float32)
        multiply(weights, x, bias, y)
        expected = x.astype(np.float64) @ weight.T + bias
        most = (np.abs(x) @ (np.abs(weight).T + 16) + 1) * 2.0**-20
        assert bool((np.abs(y - expected) <= most).all())


@pytest.mark.parametrize("count", [1, 4, 20])
def test_the_largest_sums_fit(count: int) -> None:
    inputs = 20_480  # longer than what 32 bits hold of the largest products
    weights = Weights(np.full((9, inputs), 127, dtype=np.int8), np.ones((9, 1), dtype=np.float32))
    y = np.empty((count, 9), dtype=np.float32)
    for sign in (1, -1):
        multiply(weights, np.full((count, inputs), sign, dtype=np.float32), None, y)
        np.testing.assert_allclose(y, sign * 127 * inputs, rtol=1e-6)


@pytest.mark.parametrize("count", [1, 4, 20])
@pytest.mark.parametrize("bits", [8, 4])
def test_activations_lose_less_than_half_a_step_of_16_bits(count: int, bits: int) -> None:
    random = np.random.default_rng(1)
    weights, weight = rounded_weights(bits, 40, 256, random)
    x = random.standard_normal((count, 256), dtype=np.float32)
    y = np.empty((count, 40), dtype=np.float32)
    multiply(weights, x, None, y)
    most = np.abs(weight).sum(axis=1) * np.abs(x).max(axis=1, keepdims=True) / 32_767 / 2
    assert bool((np.abs(y - x.astype(np.float64) @ weight.T) < most).all())


@pytest.mark.parametrize("bits", [8, 4])
def test_a_vector_does_not_depend_on_its_neighbours(bits: int) -> None:
    random = np.random.default_rng(2)
    weights, _ = rounded_weights(bits, 24, 192, random)
    x = random.standard_normal((40, 192), dtype=np.float32) * np.logspace(-3, 3, 40, dtype=np.float32)[:, None]
    whole, alone = np.empty((40, 24), dtype=np.float32), np.empty((1, 24), dtype=np.float32)
    multiply(weights, x, None, whole)
    for n in range(40):
        multiply(weights, x[n : n + 1], None, alone)
        np.testing.assert_allclose(whole[n], alone[0], rtol=1e-4, atol=2e-4 * np.abs(alone).max())


@pytest.mark.parametrize("count", [1, 20])
@pytest.mark.parametrize("bits", [32, 8, 4])
@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_what_is_no_number_stays_so(count: int, bits: int, broken: float) -> None:
    random = np.random.default_rng(3)
    weights = Weights(np.ones((9, 64), dtype=np.float32)) if bits == 32 else rounded_weights(bits, 9, 64, random)[0]
    x = np.ones((count, 64), dtype=np.float32)
    x[0, 5] = broken
    y = np.zeros((count, 9), dtype=np.float32)
    multiply(weights, x, None, y)
    assert not np.isfinite(y[0]).any()
    assert np.isfinite(y[1:]).all()


@pytest.mark.parametrize("count", [1, 20])
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("size", [0.0, 1e-42, 1e-36, 1e-29, 1e30])
def test_very_small_and_large_vectors(count: int, bits: int, size: float) -> None:
    weights, weight = rounded_weights(bits, 9, 64, np.random.default_rng(5))
    x = np.full((count, 64), size, dtype=np.float32)
    y = np.empty((count, 9), dtype=np.float32)
    multiply(weights, x, None, y)
    np.testing.assert_allclose(y, x.astype(np.float64) @ weight.T, rtol=1e-4, atol=64 * 127 * 1e-30 + 1e-5 * size)


def test_shapes_that_do_not_fit_are_refused() -> None:
    weights = Weights(np.ones((9, 64), dtype=np.float32))
    x, y = np.ones((2, 64), dtype=np.float32), np.empty((2, 9), dtype=np.float32)
    for bad_x, bad_y in (
        (x[:, :63], y),
        (x[:1], y),
        (x, y[:, :8]),
        (np.asfortranarray(x), y),
        (x, np.asfortranarray(y)),
    ):
        with pytest.raises(ValueError, match="cannot multiply"):
            multiply(weights, bad_x, None, bad_y)


def test_4_bit_rows_of_any_length_keep_16_bits() -> None:
    weights, weight = rounded_weights(4, 8, 20_480, np.random.default_rng(6))
    x = np.zeros((1, 20_480), dtype=np.float32)
    x[0, :2] = 32_767, 1  # the second is lost where the first becomes less
    y = np.empty((1, 8), dtype=np.float32)
    multiply(weights, x, None, y)
    np.testing.assert_allclose(y[0], x[0].astype(np.float64) @ weight.T, rtol=1e-6, atol=0.05)


@pytest.mark.slow  # compiles every kernel anew
def test_kernels_of_processors_with_fewer_registers(tmp_path: Path) -> None:
    """The same tests, compiled for a processor without AVX-512."""
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("names features of x86 processors")
    environment = os.environ | {
        "NUMBA_CPU_NAME": "haswell",
        "NUMBA_CPU_FEATURES": "+sse4.2,+popcnt,+avx,+avx2,+fma,+bmi,+bmi2,+f16c",
        "NUMBA_CACHE_DIR": str(tmp_path),
    }
    chosen = "test_float_products and (2-5 or 2-53) or exact and (8-5 or 8-53 or 4-5 or 4-53)"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", __file__, "-k", chosen]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    fewer = [sys.executable, "-c", "from underhood.kernels.simd import ROWS; assert ROWS == 4"]
    subprocess.run(fewer, env=environment, check=True)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 3), st.sampled_from([8, 4]), st.integers(0, 99))
def test_shorter_vectors_are_padded(count: int, outputs: int, groups: int, bits: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    weights, weight = rounded_weights(bits, outputs, groups * GROUP, random)
    given_inputs = int(random.integers(1, groups * GROUP + 1))
    x = random.standard_normal((count, given_inputs), dtype=np.float32)
    y = np.empty((count, outputs), dtype=np.float32)
    multiply(weights, x, None, y)
    expected = x.astype(np.float64) @ weight[:, :given_inputs].T
    np.testing.assert_allclose(y, expected, atol=1e-4 * np.abs(x).max() * np.abs(weight).sum(axis=1).max())


@intrinsic
def _pairs(_: Any, a: Any, b: Any, y: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pairs, sums = ir.VectorType(ir.IntType(16), 2 * LANES), ir.VectorType(ir.IntType(32), LANES)
        a, b = (builder.load(builder.inttoptr(address, pairs.as_pointer()), align=2) for address in arguments[:2])
        builder.store(pair_products(builder, a, b), builder.inttoptr(arguments[2], sums.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp), generate


@njit
def _pair_products(a: Any, b: Any, y: Any) -> None:
    _pairs(a.ctypes.data, b.ctypes.data, y.ctypes.data)


def test_pairs_on_processors_without_an_instruction_for_them() -> None:
    random = np.random.default_rng(4)
    a, b = random.integers(-32_767, 32_768, (2, 2 * LANES)).astype(np.int16)
    y = np.empty(LANES, dtype=np.int32)
    _pair_products(a, b, y)
    np.testing.assert_array_equal(y, (a.astype(np.int64) * b).reshape(LANES, 2).sum(axis=1).astype(np.int32))
