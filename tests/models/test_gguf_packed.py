"""GGUF files whose matrices stay in few bits, against the same files dequantised."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGMLQuantizationType
from torch import Tensor, nn

from underhood.infer import forward_pass
from underhood.infer.cache import ContiguousCache
from underhood.infer.forward_pass import ForwardPass
from underhood.infer.generate import generate
from underhood.infer.load import load
from underhood.infer.optimize import optimize_for_inference, select_path
from underhood.infer.packed_loading import load_for_inference
from underhood.kernels import jit
from underhood.kernels.block_linear import BlockEmbedding, BlockLinear
from underhood.models.base import parameter_count
from underhood.models.decoder import Decoder, qwen3_shaped
from underhood.models.gguf_packed import load_packed_gguf, rounded_rows
from underhood.models.gguf_reader import read_gguf
from underhood.models.gguf_tensor import GGUFTensor
from underhood.models.gguf_weights import load_gguf

PROMPT = "The capital of France is"


@pytest.fixture(scope="module")
def dequantised(smollm2_gguf: Path) -> Decoder:
    return load_gguf(read_gguf(smollm2_gguf))


def test_real_model_keeps_every_bit(smollm2_gguf: Path, dequantised: Decoder) -> None:
    packed, packing = load_packed_gguf(read_gguf(smollm2_gguf))
    assert str(packing) == "Matrices: 210 Q4_1 and 1 Q8_0 kept bit for bit"
    assert parameter_count(packed) == parameter_count(dequantised)
    expected = dict(dequantised.named_parameters())
    for name, parameter in packed.named_parameters():
        assert torch.equal(parameter, expected.pop(name))
    for name in [*expected]:
        layer = packed.get_submodule(name.removesuffix(".weight"))
        table = layer.table if isinstance(layer, BlockEmbedding) else layer
        assert isinstance(table, BlockLinear)
        assert torch.equal(table.weight(), expected.pop(name))
    assert isinstance(packed.embed, BlockEmbedding)
    assert packed.embed.table is packed.unembed


@torch.inference_mode()
def test_real_model_s_logits_are_those_of_its_dequantised_weights(smollm2_gguf: Path, dequantised: Decoder) -> None:
    loaded = load_for_inference(smollm2_gguf)
    ids = loaded.tokenizer.encode("Large language models are trained on text, one token at a time, and then " * 6)
    expected_TV = dequantised(torch.tensor([ids]))[0]
    for model in (loaded.model, optimize_for_inference(loaded.model)):
        logits_TV: Tensor = model(torch.tensor([ids]))[0]  # type: ignore[operator]
        # Activations of 16 bits: a thousandth of the spread, and as good as never another token.
        assert float((logits_TV - expected_TV).std()) < 2e-3 * float(expected_TV.std())
        assert float((logits_TV.argmax(-1) == expected_TV.argmax(-1)).float().mean()) >= 0.99


def test_real_model_writes_the_same_text(smollm2_gguf: Path, dequantised: Decoder) -> None:
    loaded = load_for_inference(smollm2_gguf)
    prompt = loaded.tokenizer.encode(PROMPT)
    [expected] = generate(dequantised, [prompt], max_new_tokens=16)
    [actual] = generate(optimize_for_inference(loaded.model), [prompt], max_new_tokens=16)
    assert actual.ids == expected.ids


def test_a_model_that_is_trained_on_is_dequantised(smollm2_gguf: Path) -> None:
    model = load(smollm2_gguf).model
    assert all(type(layer) is nn.Linear for name, layer in model.named_modules() if name.endswith(".query"))


@pytest.mark.parametrize(("kind", "bound"), [("q8_0", 0.01), ("q4_1", 0.1)])
def test_other_types_are_rounded_again(kind: str, bound: float) -> None:
    """Q6_K has no quantiser in the gguf package; bits at random with a scale that is not are a valid tensor."""
    blocks = torch.randint(0, 256, (9, 2 * 210), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    blocks.view(9, 2, 210)[..., 208:] = torch.tensor([0.01], dtype=torch.float16).view(torch.uint8)
    tensor = GGUFTensor("x", GGMLQuantizationType.Q6_K, (9, 512), blocks.numpy())
    rounded = BlockLinear.from_blocks(rounded_rows(tensor, kind), kind).weight()  # type: ignore[arg-type]
    expected = tensor.dequantize()
    assert float((rounded - expected).std()) < bound * float(expected.std())


def test_building_a_skeleton_imports_no_compiler() -> None:
    """PyTorch's random numbers on the device "meta" import `torch._dynamo`: a second of every start."""
    code = """
import sys, torch
from underhood.models.decoder import qwen3_shaped
from underhood.models.restore import empty_model
spec = qwen3_shaped(vocab_size=9, context_length=9, d_model=64, layers=1, heads=1)
empty_model(spec, torch.float32, "cpu")
print("torch._dynamo" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_first_token_on_a_new_machine_waits_for_no_compiling(smollm2_gguf: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "underhood", "generate", str(smollm2_gguf), PROMPT, "--temperature", "0"]
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path), "LOCALAPPDATA": str(tmp_path)}
    environment.pop("NUMBA_CACHE_DIR", None)
    done = subprocess.run([*command, "--max-tokens", "1"], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == " Paris\n"
    assert done.stderr.splitlines() == [
        "Matrices: 210 Q4_1 and 1 Q8_0 kept bit for bit",
        "Kernels are compiled once, after the first token: half a minute",
    ]
    assert not list(tmp_path.rglob("*.nbi"))


@pytest.mark.skipif(not jit.HAS_NUMBA, reason="the kernels need Numba")
def test_without_cached_kernels_the_first_pass_is_fused_and_the_next_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jit, "_folder", lambda: tmp_path)
    model = optimize_for_inference(qwen3_shaped(vocab_size=90, context_length=9, d_model=64, layers=1, heads=1).build())
    forward = ForwardPass(model)
    cache = ContiguousCache.for_model(model, 1, 9)
    taken: list[str] = []

    def recorded(*arguments: Any) -> tuple[str, object]:
        path, chosen = select_path(*arguments)
        taken.append(path)
        return path, chosen

    monkeypatch.setattr(forward_pass, "select_path", recorded)
    assert jit.defer_compiling()
    for _ in range(3):
        forward([[1]], cache)
    assert taken == ["fused", "compiled", "compiled"]
    (tmp_path / "kernel.nbi").touch()
    assert not jit.defer_compiling()
