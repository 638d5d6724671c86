"""Published models by name: their configurations as their makers published them, as specs of ours.

``preset("llama-3.2-1b").build()`` is that architecture with fresh weights; on the meta device it costs nothing, and its
parameters can be counted exactly. Sources: the ``config.json`` of each model on the Hugging Face Hub.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from underhood.core.errors import UserError, nearest
from underhood.models.base import parameter_count
from underhood.models.decoder import DecoderSpec
from underhood.models.huggingface import spec_from_config
from underhood.nn.moe import MixtureOfExperts

_LLAMA31 = {
    "rope_type": "llama3",
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def _llama(
    vocab: int, width: int, hidden: int, layers: int, heads: int, kv_heads: int, context: int, **more: Any
) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "vocab_size": vocab,
        "hidden_size": width,
        "intermediate_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": context,
        "rms_norm_eps": 1e-5,
    } | more


def _gpt2(width: int, layers: int, heads: int) -> dict[str, Any]:
    shape = {"n_embd": width, "n_layer": layers, "n_head": heads, "n_positions": 1024}
    return {"model_type": "gpt2", "vocab_size": 50257} | shape


_TIED = {"tie_word_embeddings": True}
_LLAMA3 = {"rope_theta": 500_000.0}
_QWEN2 = {"model_type": "qwen2", "rope_theta": 1e6, "rms_norm_eps": 1e-6}
_QWEN3 = {"model_type": "qwen3", "rope_theta": 1e6, "rms_norm_eps": 1e-6, "head_dim": 128}
_GEMMA2 = {"model_type": "gemma2", "rms_norm_eps": 1e-6, "head_dim": 256, "sliding_window": 4096}
_GEMMA3 = {"model_type": "gemma3_text", "rms_norm_eps": 1e-6, "head_dim": 256, "sliding_window": 512}
_MISTRAL = {"model_type": "mistral", "sliding_window": 4096}
_MIXTRAL = {"model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 2, "rope_theta": 1e6}
_MOE = {"model_type": "qwen3_moe", "num_experts": 128, "num_experts_per_tok": 8, "norm_topk_prob": True}
_OLMO2 = {"model_type": "olmo2", "rope_theta": 500_000.0, "rms_norm_eps": 1e-6}

CONFIGS: dict[str, dict[str, Any]] = {
    "gpt2": _gpt2(768, 12, 12),
    "gpt2-medium": _gpt2(1024, 24, 16),
    "gpt2-large": _gpt2(1280, 36, 20),
    "gpt2-xl": _gpt2(1600, 48, 25),
    "llama-2-7b": _llama(32000, 4096, 11008, 32, 32, 32, 4096),
    "llama-2-13b": _llama(32000, 5120, 13824, 40, 40, 40, 4096),
    "llama-2-70b": _llama(32000, 8192, 28672, 80, 64, 8, 4096),
    "llama-3-8b": _llama(128256, 4096, 14336, 32, 32, 8, 8192, **_LLAMA3),
    "llama-3.1-8b": _llama(128256, 4096, 14336, 32, 32, 8, 131072, **_LLAMA3, rope_scaling=_LLAMA31 | {"factor": 8.0}),
    "llama-3.2-1b": _llama(
        128256, 2048, 8192, 16, 32, 8, 131072, **_LLAMA3, **_TIED, rope_scaling=_LLAMA31 | {"factor": 32.0}
    ),
    "llama-3.2-3b": _llama(
        128256, 3072, 8192, 28, 24, 8, 131072, **_LLAMA3, **_TIED, rope_scaling=_LLAMA31 | {"factor": 32.0}
    ),
    "smollm-135m": _llama(49152, 576, 1536, 30, 9, 3, 2048, **_TIED),
    "smollm2-135m": _llama(49152, 576, 1536, 30, 9, 3, 8192, **_TIED, rope_theta=100_000.0),
    "smollm2-360m": _llama(49152, 960, 2560, 32, 15, 5, 8192, **_TIED, rope_theta=100_000.0),
    "smollm2-1.7b": _llama(49152, 2048, 8192, 24, 32, 32, 8192, **_TIED, rope_theta=130_000.0),
    "mistral-7b-v0.1": _llama(32000, 4096, 14336, 32, 32, 8, 32768, **_MISTRAL),
    "mixtral-8x7b": _llama(32000, 4096, 14336, 32, 32, 8, 32768, **_MIXTRAL),
    "qwen2.5-0.5b": _llama(151936, 896, 4864, 24, 14, 2, 32768, **_QWEN2, **_TIED),
    "qwen2.5-1.5b": _llama(151936, 1536, 8960, 28, 12, 2, 131072, **_QWEN2, **_TIED),
    "qwen2.5-7b": _llama(152064, 3584, 18944, 28, 28, 4, 131072, **_QWEN2),
    "qwen3-0.6b": _llama(151936, 1024, 3072, 28, 16, 8, 40960, **_QWEN3, **_TIED),
    "qwen3-1.7b": _llama(151936, 2048, 6144, 28, 16, 8, 40960, **_QWEN3, **_TIED),
    "qwen3-8b": _llama(151936, 4096, 12288, 36, 32, 8, 40960, **_QWEN3),
    "qwen3-30b-a3b": _llama(151936, 2048, 6144, 48, 32, 4, 40960, **_QWEN3 | _MOE, moe_intermediate_size=768),
    "gemma-2-2b": _llama(256000, 2304, 9216, 26, 8, 4, 8192, **_GEMMA2, query_pre_attn_scalar=256),
    "gemma-2-9b": _llama(256000, 3584, 14336, 42, 16, 8, 8192, **_GEMMA2, query_pre_attn_scalar=256),
    "gemma-3-270m": _llama(262144, 640, 2048, 18, 4, 1, 32768, **_GEMMA3, query_pre_attn_scalar=256),
    "gemma-3-1b": _llama(262144, 1152, 6912, 26, 4, 1, 32768, **_GEMMA3, query_pre_attn_scalar=256),
    "phi-3-mini-4k": _llama(32064, 3072, 8192, 32, 32, 32, 4096, model_type="phi3", sliding_window=2047),
    "olmo-2-1b": _llama(100352, 2048, 8192, 16, 16, 16, 4096, **_OLMO2),
    "olmo-2-7b": _llama(100352, 4096, 11008, 32, 32, 32, 4096, **_OLMO2),
}
"""What decides each model's function; keys for training and text generation are left out."""


def preset(name: str) -> DecoderSpec:
    """The architecture of a published model.

    Raises:
        UserError: there is no such preset (the nearest is named).
    """
    if name not in CONFIGS:
        near = nearest(name, CONFIGS)
        fix = f"Did you mean {near}?" if near else f"There are {', '.join(CONFIGS)}"
        raise UserError(f"there is no preset {name!r}", fix=fix)
    return spec_from_config(CONFIGS[name], where=f"the preset {name}")


def count_parameters(spec: DecoderSpec) -> tuple[int, int]:
    """Parameters of a model, in all and as many as one token uses; nothing is allocated."""
    with torch.device("meta"):
        model = spec.build()
    return parameter_count(model), active_parameter_count(model)


def active_parameter_count(model: nn.Module) -> int:
    """Parameters that one token uses: of each mixture of experts, the router and the active experts only."""
    idle = 0
    for module in model.modules():
        if isinstance(module, MixtureOfExperts):
            idle += (module.spec.experts - module.spec.experts_per_token) * parameter_count(module.experts[0])
    return parameter_count(model) - idle
