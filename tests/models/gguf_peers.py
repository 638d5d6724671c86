"""GGUF files of transformers' small random models, converted as llama.cpp's converter does: its names, its metadata."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import MODEL_ARCH_NAMES, GGUFWriter
from hf_peers import GEMMA, PEERS, Peer
from safetensors.numpy import load_file

ARCHITECTURE = {
    "gpt2": "gpt2",
    "llama": "llama",
    "mistral": "llama",
    "mixtral": "llama",
    "qwen2": "qwen2",
    "qwen2_moe": "qwen2moe",
    "qwen3": "qwen3",
    "qwen3_moe": "qwen3moe",
    "gemma2": "gemma2",
    "gemma3_text": "gemma3",
    "phi3": "phi3",
    "olmo2": "olmo2",
    "smollm3": "smollm3",
}
"""transformers' families by llama.cpp's architectures."""


def _with(name: str, **keys: Any) -> Peer:
    return replace(PEERS[name], keys=PEERS[name].keys | keys, shard=None)


_AS_IS = "gpt2 llama2 llama3 llama_biased llama_linear smollm mistral mixtral qwen2 qwen2_yarn qwen3 phi3 phi3_partial"
GGUF_PEERS: dict[str, Peer] = {
    **{name: _with(name) for name in f"{_AS_IS} phi3_long olmo2 smollm3".split()},
    "qwen2_moe": _with("qwen2_moe", mlp_only_layers=[]),
    "qwen3_moe": _with("qwen3_moe", mlp_only_layers=[], norm_topk_prob=True),
    "gemma2": _with("gemma2", query_pre_attn_scalar=16),
    "gemma3": Peer(
        "Gemma3TextConfig",
        GEMMA
        | {
            "num_hidden_layers": 7,
            "query_pre_attn_scalar": 16,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 2.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            },
        },
    ),
}
"""Models that GGUF can hold, one at least of every architecture; what GGUF fixes is as llama.cpp fixes it."""

PERMUTED = {"llama", "smollm3"}
"""Architectures whose queries and keys llama.cpp rotates in pairs of neighbours."""


Tensors = dict[str, np.ndarray]


def write_gguf_peer(
    model: Any,
    path: Path,
    *,
    add_keys: Callable[[GGUFWriter], None] = lambda writer: None,
    rearrange: Callable[[Tensors], Tensors] = lambda tensors: tensors,
    **options: Any,
) -> Path:
    """Writes transformers' model as llama.cpp's converter would, in float32.

    Args:
        add_keys: adds further metadata.
        rearrange: from the tensors of today's converter to those of another one.
        options: of `GGUFWriter`, such as ``split_max_tensors``.
    """
    architecture = ARCHITECTURE[model.config.model_type]
    writer = GGUFWriter(path, architecture, **options)
    add_metadata(writer, model.config)
    add_keys(writer)
    for name, values in rearrange(_tensors(model, architecture, path.parent)).items():
        writer.add_tensor(name, np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def permute(weights: np.ndarray, heads: int) -> np.ndarray:
    """Rows for rotations of halves (i, i + K/2) put in the order of rotations of neighbours (2i, 2i + 1)."""
    halves = weights.reshape(heads, 2, weights.shape[0] // heads // 2, *weights.shape[1:])
    return halves.swapaxes(1, 2).reshape(weights.shape)


def _tensors(model: Any, architecture: str, folder: Path) -> dict[str, np.ndarray]:
    """The tensors under llama.cpp's names, with its changes to their values."""
    config = model.config
    layers = config.num_hidden_layers
    kind = next(kind for kind, name in MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(kind, layers)
    saved = folder / f"{config.model_type}-saved"
    model.save_pretrained(saved)
    stored = load_file(saved / "model.safetensors")
    tensors: dict[str, np.ndarray] = {}
    for name, values in _stacked(stored).items():
        theirs = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert theirs is not None, name
        if architecture in PERMUTED and (match := re.search(r"\.([qk])_proj\.", name)):
            heads = config.num_attention_heads if match[1] == "q" else config.num_key_value_heads
            values = permute(values, heads)
        if architecture.startswith("gemma") and name.endswith("norm.weight"):
            values = values + 1
        if architecture == "gpt2" and re.search(r"c_(attn|proj|fc)\.weight", name):
            values = values.T
        tensors[theirs] = values.squeeze()
    return tensors | _rotary_tensors(config)


def _stacked(stored: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """One tensor for all experts of a layer."""
    result: dict[str, np.ndarray] = {}
    experts: dict[str, list[np.ndarray]] = {}
    ordered = sorted(stored, key=lambda name: [int(word) if word.isdigit() else 0 for word in name.split(".")])
    for name in ordered:
        if match := re.fullmatch(r"(.*\.experts)\.\d+\.(.*)", name):
            experts.setdefault(f"{match[1]}.{match[2]}", []).append(stored[name])
        else:
            result[name] = stored[name]
    return result | {name: np.stack(values) for name, values in experts.items()}


def _rotary_tensors(config: Any) -> dict[str, np.ndarray]:
    """Divisors of the rotary frequencies: Llama 3's one list, LongRoPE's two."""
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") == "longrope":
        return {
            f"rope_factors_{length}.weight": np.array(rope[f"{length}_factor"], dtype=np.float32)
            for length in ("short", "long")
        }
    if rope.get("rope_type") != "llama3":
        return {}
    width = config.head_dim
    wavelengths = 2 * math.pi * rope["rope_theta"] ** (np.arange(0, width, 2) / width)
    low, high, factor = rope["low_freq_factor"], rope["high_freq_factor"], rope["factor"]
    share = (rope["original_max_position_embeddings"] / wavelengths - low) / (high - low)
    blended = 1 / ((1 - share) / factor + share)
    divisors = np.where(share > 1, 1.0, np.where(share < 0, factor, blended))
    return {"rope_freqs.weight": divisors.astype(np.float32)}


def add_metadata(writer: GGUFWriter, config: Any) -> None:
    """The settings of a configuration under llama.cpp's keys."""
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_vocab_size(config.vocab_size)
    if config.model_type == "gpt2":
        writer.add_feed_forward_length(4 * config.hidden_size)
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
        return
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if getattr(config, "head_dim", None):
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    if config.model_type in ("mistral", "phi3", "gemma2", "gemma3_text"):
        writer.add_sliding_window(config.sliding_window or 0)
    if config.model_type == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    _add_rotary(writer, config, head_dim)
    _add_experts(writer, config)


def _add_rotary(writer: GGUFWriter, config: Any, head_dim: int) -> None:
    rope = config.rope_parameters
    rope = rope.get("full_attention", rope)
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_rope_dimension_count(int(head_dim * rope.get("partial_rotary_factor", 1.0)))
    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    if rope["rope_type"] == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        writer.add_rope_scaling_yarn_beta_fast(rope["beta_fast"])
    if rope["rope_type"] == "longrope":
        original = config.original_max_position_embeddings
        scale = config.max_position_embeddings / original
        writer.add_rope_scaling_orig_ctx_len(original)
        writer.add_rope_scaling_attn_factors(math.sqrt(1 + math.log(scale) / math.log(original)))


def _add_experts(writer: GGUFWriter, config: Any) -> None:
    experts = getattr(config, "num_experts", None) or getattr(config, "num_local_experts", None)
    if experts:
        writer.add_expert_count(experts)
        writer.add_expert_used_count(config.num_experts_per_tok)
    if config.model_type in ("qwen2_moe", "qwen3_moe"):
        writer.add_expert_feed_forward_length(config.moe_intermediate_size)
    if config.model_type == "qwen2_moe":
        writer.add_expert_shared_feed_forward_length(config.shared_expert_intermediate_size)
