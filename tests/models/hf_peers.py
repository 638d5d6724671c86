"""Small random checkpoints of every family, made and saved by transformers itself: the oracle of the import tests."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

V, WINDOW = 120, 8

COMMON: dict[str, Any] = {
    "vocab_size": V,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 160,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
}


@dataclass(frozen=True)
class Peer:
    """How transformers makes one checkpoint: its configuration class and the keys."""

    config: str
    keys: dict[str, Any] = field(default_factory=dict)
    shard: str | None = None
    seed: int = 7


LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
GPT2 = {"vocab_size": V, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 160, "bos_token_id": 1} | {
    "eos_token_id": 2
}
GEMMA = {"head_dim": 16, "sliding_window": WINDOW, "query_pre_attn_scalar": 24, "tie_word_embeddings": True}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10_000.0,
    "short_factor": [1.0, 1.1, 1.3, 1.5],
    "long_factor": [1.0, 2.0, 4.0, 8.0],
}

PEERS: dict[str, Peer] = {
    "gpt2": Peer("GPT2Config", GPT2),
    "llama2": Peer("LlamaConfig", shard="20KB"),
    "llama3": Peer("LlamaConfig", {"rope_parameters": LLAMA3, "tie_word_embeddings": True}),
    "llama_biased": Peer("LlamaConfig", {"attention_bias": True, "mlp_bias": True, "head_dim": 12}),
    "llama_linear": Peer("LlamaConfig", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}}),
    "mistral": Peer("MistralConfig", {"sliding_window": WINDOW}, shard="20KB"),
    "mixtral": Peer("MixtralConfig", {"num_local_experts": 4, "sliding_window": None}, shard="20KB"),
    "qwen2": Peer("Qwen2Config"),
    "qwen2_window": Peer(
        "Qwen2Config",
        {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1, "num_hidden_layers": 3},
    ),
    "qwen2_yarn": Peer(
        "Qwen2Config",
        {
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 1e4,
                "factor": 4.0,
                "original_max_position_embeddings": 40,
                "beta_fast": 4.0,
            }
        },
    ),
    "qwen2_moe": Peer(
        "Qwen2MoeConfig",
        {
            "num_experts": 6,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
            "shared_expert_intermediate_size": 24,
            "mlp_only_layers": [1],
            "num_hidden_layers": 3,
        },
    ),
    "qwen3": Peer("Qwen3Config", {"head_dim": 12, "tie_word_embeddings": True}),
    "qwen3_moe": Peer(
        "Qwen3MoeConfig",
        {
            "num_experts": 6,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
            "mlp_only_layers": [1],
            "norm_topk_prob": False,
            "num_hidden_layers": 3,
        },
    ),
    "gemma2": Peer(
        "Gemma2Config",
        GEMMA | {"num_hidden_layers": 3, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0},
        seed=12,  # others say one word over and over
    ),
    "gemma3": Peer(
        "Gemma3TextConfig",
        GEMMA
        | {
            "num_hidden_layers": 4,
            "layer_types": ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 2.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            },
        },
    ),
    "phi3": Peer("Phi3Config", {"sliding_window": WINDOW}),
    "phi3_partial": Peer(
        "Phi3Config",
        {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}},
    ),
    "phi3_long": Peer("Phi3Config", {"rope_parameters": LONGROPE, "original_max_position_embeddings": 96}),
    "olmo2": Peer("Olmo2Config"),
    "smollm3": Peer("SmolLM3Config", {"num_hidden_layers": 5, "tie_word_embeddings": True}),
    "smollm3_window": Peer(
        "SmolLM3Config",
        {"num_hidden_layers": 5, "no_rope_layer_interval": 2, "use_sliding_window": True, "sliding_window": WINDOW},
    ),
    "smollm": Peer(
        "LlamaConfig",
        {"num_attention_heads": 3, "num_key_value_heads": 1, "hidden_size": 36, "tie_word_embeddings": True},
    ),
}
WINDOWED = ("mistral", "qwen2_window", "gemma2", "gemma3", "phi3", "smollm3_window")
EXPERTS = ("mixtral", "qwen2_moe", "qwen3_moe")


def make_peer(name: str) -> Any:
    """transformers' own model of that name; see `make_model`."""
    return make_model(PEERS[name])


def make_model(peer: Peer) -> Any:
    """transformers' own model with weights that let every part act (a fresh one's norms and biases do nothing)."""
    import transformers

    keys = peer.keys if peer.config == "GPT2Config" else COMMON | peer.keys
    torch.manual_seed(peer.seed)
    config = getattr(transformers, peer.config)(**keys)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    centred = peer.config.startswith("Gemma")
    embedding = 0.1 if config.tie_word_embeddings else 0.5  # a strong tied one would repeat the last token forever
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            noise = torch.randn_like(parameter)
            if parameter.ndim > 1:
                parameter.copy_(noise * (embedding if "embed" in key or ".wte" in key or ".wpe" in key else 0.3))
            elif "norm" in key or ".ln_" in key:
                parameter.copy_(0.3 * noise + float(key.endswith("weight") and not centred))
            else:
                parameter.copy_(0.3 * noise)
    return model


def save_peer(name: str, folder: Path) -> Any:
    """Makes a peer and saves it; returns the model."""
    model = make_peer(name)
    shard = PEERS[name].shard
    model.save_pretrained(folder, **({} if shard is None else {"max_shard_size": shard}))
    return model


def tokens_of(rows: int, count: int, seed: int = 0) -> Tensor:
    return torch.randint(3, V, (rows, count), generator=torch.Generator().manual_seed(seed))


def relative(actual: Tensor, expected: Tensor) -> float:
    """The largest difference as a share of the largest score."""
    return ((actual - expected).abs().max() / expected.abs().max()).item()
