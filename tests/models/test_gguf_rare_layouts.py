"""Rare forms of GGUF files: Mixtral's of 2023 with a tensor for each expert, and the score scale of Gemma's 27B models.

Both are read beside the transformers model that was written, and beside llama.cpp, which chooses the scale of 27 B
models by their number of layers as we do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFWriter, TokenType
from gguf_peers import GGUF_PEERS, Tensors, write_gguf_peer
from hf_peers import V, make_model, relative, tokens_of

from llama_peer import LlamaCpp
from underhood.core.errors import UserError
from underhood.models import gguf_config
from underhood.models.gguf_reader import read_gguf
from underhood.models.gguf_weights import gguf_parameters, load_gguf

TOLERANCE = 1e-4
EXACT = 2e-3
"""Nats by which llama.cpp's token may be below our likeliest: sums in another order."""
GELU_TABLE = 0.02
"""The same where llama.cpp takes its GELU from a table of 16-bit numbers, in each of 46 or 62 layers."""


@pytest.fixture(scope="module")
def llama_cpp() -> Iterator[LlamaCpp]:
    with LlamaCpp() as peer:
        yield peer


def one_tensor_per_expert(tensors: Tensors) -> Tensors:
    """``blk.N.ffn_gate_exps.weight`` as the converter of 2023 wrote it: ``blk.N.ffn_gate.E.weight`` for each expert."""
    result: Tensors = {}
    for name, values in tensors.items():
        if match := re.fullmatch(r"(blk\.\d+\.ffn_(?:gate|up|down))_exps\.weight", name):
            result |= {f"{match[1]}.{expert}.weight": values[expert] for expert in range(len(values))}
        else:
            result[name] = values
    return result


def add_tokenizer(writer: GGUFWriter) -> None:
    """A byte-level vocabulary with as many tokens as the peers have: llama.cpp opens no file without one."""
    characters = [chr(code) for code in range(0x100, 0x100 + V - 4)]
    tokens = ["<pad>", "<s>", "</s>", *characters, "".join(characters[:2])]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL] * 3 + [TokenType.NORMAL] * (V - 3))
    writer.add_token_merges([" ".join(characters[:2])])
    writer.add_eos_token_id(2)


@torch.no_grad()
def gap_to_llama_cpp(peer: LlamaCpp, path: Path, count: int = 12) -> float:
    """By how much the log-probability of a token of llama.cpp's greedy texts is below our likeliest one's, at most."""
    assert peer.open(path, context_length=128) == ""
    model = load_gguf(read_gguf(path))
    worst = 0.0
    for prompt in tokens_of(3, 20, seed=3).tolist():
        written = peer.write(prompt, count)
        assert len(written) > 3
        logprobs_TV = model(torch.tensor([[*prompt, *written]]))[0, len(prompt) - 1 : -1].log_softmax(dim=-1)
        chosen_T = logprobs_TV[range(len(written)), written]
        worst = max(worst, float((logprobs_TV.amax(dim=-1) - chosen_T).max()))
    return worst


# Mixtral of 2023


@torch.no_grad()
def test_mixtral_with_a_tensor_per_expert_matches_the_model_that_was_written(tmp_path: Path) -> None:
    peer = make_model(GGUF_PEERS["mixtral"])
    apart = read_gguf(write_gguf_peer(peer, tmp_path / "apart.gguf", rearrange=one_tensor_per_expert))
    stacked = read_gguf(write_gguf_peer(peer, tmp_path / "stacked.gguf"))
    assert "blk.1.ffn_down.3.weight" in apart.tensors
    assert not any("_exps" in name for name in apart.tensors)
    assert "llama.expert_feed_forward_length" not in apart.metadata  # the width is that of the tensors
    tokens = tokens_of(2, 60)
    logits = load_gguf(apart)(tokens)
    assert relative(logits, peer(tokens, use_cache=False).logits) < TOLERANCE
    assert torch.equal(logits, load_gguf(stacked)(tokens))


@torch.no_grad()
def test_ablation_with_two_experts_exchanged_logits_differ(tmp_path: Path) -> None:
    peer = make_model(GGUF_PEERS["mixtral"])

    def exchanged(tensors: Tensors) -> Tensors:
        apart = one_tensor_per_expert(tensors)
        first, second = "blk.0.ffn_up.0.weight", "blk.0.ffn_up.1.weight"
        return apart | {first: apart[second], second: apart[first]}

    tokens = tokens_of(2, 60)
    model = load_gguf(read_gguf(write_gguf_peer(peer, tmp_path / "m.gguf", rearrange=exchanged)))
    assert relative(model(tokens), peer(tokens, use_cache=False).logits) > 100 * TOLERANCE


def test_each_expert_keeps_its_own_blocks(tmp_path: Path) -> None:
    peer = make_model(GGUF_PEERS["mixtral"])
    file = read_gguf(write_gguf_peer(peer, tmp_path / "m.gguf", rearrange=one_tensor_per_expert))
    model = load_gguf(file)
    for name, tensor in gguf_parameters(file, model).items():
        if match := re.search(r"blocks\.(\d+)\.feedforward\.experts\.(\d+)\.(gate|up|down)", name):
            assert tensor.name == f"blk.{match[1]}.ffn_{match[3]}.{match[2]}.weight"
            assert np.shares_memory(tensor.blocks, file.tensors[tensor.name].blocks)


def test_missing_expert_is_named(tmp_path: Path) -> None:
    peer = make_model(GGUF_PEERS["mixtral"])
    lost = "blk.1.ffn_up.2.weight"

    def without(tensors: Tensors) -> Tensors:
        return {name: values for name, values in one_tensor_per_expert(tensors).items() if name != lost}

    with pytest.raises(UserError, match=r"lacks the tensor 'blk\.1\.ffn_up(\.2|_exps)\.weight'"):
        load_gguf(read_gguf(write_gguf_peer(peer, tmp_path / "m.gguf", rearrange=without)))


def test_mixtral_with_stacked_experts_writes_the_same_in_llama_cpp(tmp_path: Path, llama_cpp: LlamaCpp) -> None:
    path = write_gguf_peer(make_model(GGUF_PEERS["mixtral"]), tmp_path / "m.gguf", add_keys=add_tokenizer)
    assert gap_to_llama_cpp(llama_cpp, path) < EXACT


# Gemma's 27B models: scores are scaled by the width of the model over its heads, not by that of a head


def gemma_27b(name: str) -> Any:
    """A peer with as many layers as the 27B model, its heads twice as wide as its width over its heads."""
    layers = {"gemma2": 46, "gemma3": 62}[name]
    keys = {"num_hidden_layers": layers, "query_pre_attn_scalar": 8, "head_dim": 16}
    return make_model(replace(GGUF_PEERS[name], keys=GGUF_PEERS[name].keys | keys))


@torch.no_grad()
@pytest.mark.parametrize("name", ["gemma2", "gemma3"])
def test_gemma_27b_scales_scores_by_width_over_heads(
    name: str, tmp_path: Path, llama_cpp: LlamaCpp, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = gemma_27b(name)
    path = write_gguf_peer(peer, tmp_path / "m.gguf", add_keys=add_tokenizer)
    tokens = tokens_of(2, 24)
    expected = peer(tokens, use_cache=False).logits
    assert relative(load_gguf(read_gguf(path))(tokens), expected) < TOLERANCE
    assert gap_to_llama_cpp(llama_cpp, path) < GELU_TABLE
    monkeypatch.setattr(gguf_config, "GEMMA_27B_LAYERS", ())
    assert relative(load_gguf(read_gguf(path))(tokens), expected) > 100 * TOLERANCE
    assert gap_to_llama_cpp(llama_cpp, path) > 10 * GELU_TABLE
