"""GGUF metadata as the Hugging Face configuration of the same model, one function per llama.cpp architecture.

GGUF says in metadata what ``config.json`` says, and some of it only by which tensors there are: an untied unembedding,
biases, Llama 3's rotary scaling. Translated into a configuration, the functions of `hub_specs` read it.

Source: llama.cpp's loader (what a key means, and what a missing one) and its converter (where a key comes from).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from underhood.core.errors import UserError
from underhood.models.gguf_reader import GGUFFile
from underhood.models.hub_config import Config

Json = dict[str, Any]

LLAMA_3_CONTEXT, LLAMA_3_SLOW_TURNS, LLAMA_3_FAST_TURNS = 8192, 1.0, 4.0
"""Rotary scaling of every published Llama 3.1 to 3.3; see `Llama3Scaling`."""

GEMMA_27B_LAYERS = (46, 62)
"""Layers of the Gemmas whose scores are scaled by d_model / heads and not by the width of a head."""

SMOLLM3_NO_ROPE_INTERVAL = 4
"""Every fourth layer of SmolLM3 has no rotary positions; the file does not say so."""


class Metadata:
    """The metadata of a file's architecture, and which keys have been read.

    Every key that is left over at the end is refused by name: it may change what the model computes.
    """

    def __init__(self, file: GGUFFile):
        self.file = file
        self.where = f"{file.path} (architecture {file.architecture})"
        self.keys = Config(file.parameters(), self.where)

    def whole(self, key: str, *default: int) -> int:
        """A whole number from 1; a list of one per layer must have the same number for all of them."""
        return self._same_in_all_layers(key).whole(key, *default)

    def number(self, key: str, *default: float) -> float:
        """A finite number above 0, or a list of the same one per layer."""
        return self._same_in_all_layers(key).number(key, *default)

    def optional(self, key: str) -> Any:
        """The value as it is, or None."""
        return self.keys.get(key, None)

    def only(self, key: str, *values: Any) -> None:
        """Refuses other values of a key than those under which the architecture does what is built here."""
        value = self.keys.get(key, None)
        if value is not None and value not in values:
            expected = " or ".join(map(repr, values))
            raise UserError(f"{key} in {self.where} is not supported", expected=expected, got=repr(value))

    def has(self, tensor: str) -> bool:
        """Whether the file has a tensor of this name."""
        return tensor in self.file.tensors

    def rows_of(self, tensor: str, dimension: int = 0) -> int:
        """A dimension of a tensor that the file must have."""
        if tensor not in self.file.tensors:
            raise UserError(f"{self.where} lacks the tensor {tensor!r}")
        return self.file.tensors[tensor].shape[dimension]

    def vector(self, tensor: str) -> list[float]:
        """The values of a tensor."""
        return self.file.tensors[tensor].dequantize().flatten().tolist()

    def _same_in_all_layers(self, key: str) -> Config:
        """The keys, with a list under this one replaced by the value that all of it has."""
        value = self.keys.get(key, None)
        if not isinstance(value, list):
            return self.keys
        if len(set(value)) != 1:
            raise UserError(f"{key} in {self.where} differs from layer to layer, which is not supported")
        return Config({key: value[0]}, self.where)


def config_of_gguf(file: GGUFFile) -> Json:
    """The ``config.json`` of the model in a GGUF file.

    Raises:
        UserError: the architecture is not known, a key is missing, or one changes the function in an unknown way.
    """
    architecture = architecture_of(file)
    metadata = Metadata(file)
    config = architecture.config(metadata)
    metadata.only("attention.causal", True)
    metadata.only("use_parallel_residual", False)
    metadata.only("pooling_type", 0)
    metadata.only("leading_dense_block_count", 0)
    metadata.keys.skip("vocab_size", "tensor_data_layout", "rope.scaling.finetuned")
    metadata.keys.finish()
    return config


def _common(m: Metadata, family: str, *, head_dim: int | None = None) -> Json:
    """What all families with rotary positions share."""
    d_model, heads = m.whole("embedding_length"), m.whole("attention.head_count")
    head_dim = m.whole("attention.key_length", head_dim or max(1, d_model // heads))
    m.only("attention.value_length", head_dim)
    context = m.whole("context_length")
    config: Json = {
        "model_type": family,
        "vocab_size": m.rows_of("token_embd.weight"),
        "hidden_size": d_model,
        "intermediate_size": m.whole("feed_forward_length"),
        "num_hidden_layers": m.whole("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": m.whole("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "max_position_embeddings": context,
        "rms_norm_eps": m.number("attention.layer_norm_rms_epsilon"),
        "rope_theta": m.number("rope.freq_base", 10_000.0),
        "tie_word_embeddings": not m.has("output.weight"),
    }
    if (rotated := m.whole("rope.dimension_count", head_dim)) != head_dim:
        config["partial_rotary_factor"] = rotated / head_dim
    return config | _rope_scaling(m, context)


def _rope_scaling(m: Metadata, context: int) -> Json:
    """Stretched rotary positions, by metadata or by a tensor of divisors."""
    kind = m.optional("rope.scaling.type") or "none"
    original = m.optional("rope.scaling.original_context_length")
    if m.has("rope_freqs.weight"):
        m.only("rope.scaling.type", "none", "linear")  # linear of factor 1 is what some writers say for none
        m.only("rope.scaling.factor", 1.0, 0.0)
        return {"rope_scaling": _divided_frequencies(m, m.vector("rope_freqs.weight"), context)}
    if m.has("rope_factors_short.weight") or m.has("rope_factors_long.weight"):
        m.only("rope.scaling.type", "longrope", "none")
        m.keys.skip("rope.scaling.factor")
        short, long = (m.vector(f"rope_factors_{length}.weight") for length in ("short", "long"))
        amplitude = m.optional("rope.scaling.attn_factor")
        scaling = {"rope_type": "longrope", "short_factor": short, "long_factor": long}
        scaling |= {} if amplitude is None else {"attention_factor": amplitude}
        return {"rope_scaling": scaling, "original_max_position_embeddings": original or context}
    linear = m.optional("rope.scale_linear")  # how files of 2023 say it
    factor = m.optional("rope.scaling.factor") or linear or 1.0
    if kind == "yarn":
        return {"rope_scaling": _yarn(m, factor, original or context)}
    if kind not in ("none", "linear"):
        expected = "none | linear | yarn"
        raise UserError(f"rope.scaling.type in {m.where} is not known", expected=expected, got=repr(kind))
    stretched = factor != 1.0 and (kind == "linear" or linear)
    return {"rope_scaling": {"rope_type": "linear", "factor": factor}} if stretched else {}


def _yarn(m: Metadata, factor: float, original: int) -> Json:
    m.only("rope.scaling.yarn_ext_factor", 1.0)
    m.only("rope.scaling.yarn_log_multiplier", 0.0)
    values = {
        "beta_fast": m.optional("rope.scaling.yarn_beta_fast"),
        "beta_slow": m.optional("rope.scaling.yarn_beta_slow"),
        "attention_factor": m.optional("rope.scaling.yarn_attn_factor"),
    }
    given = {key: value for key, value in values.items() if value is not None}
    return {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original} | given


def _divided_frequencies(m: Metadata, divisors: list[float], context: int) -> Json:
    """The scaling that a tensor of divisors of the rotary frequencies came from: Llama 3's if it is that.

    Anything else keeps the divisors as they are, in LongRoPE's form.
    """
    pairs, factor, theta = len(divisors), max(divisors), m.number("rope.freq_base", 10_000.0)
    frequencies = theta ** -(np.arange(pairs) / pairs)
    turns = LLAMA_3_CONTEXT * frequencies / (2 * math.pi)
    fast = np.clip((turns - LLAMA_3_SLOW_TURNS) / (LLAMA_3_FAST_TURNS - LLAMA_3_SLOW_TURNS), 0, 1)
    if np.allclose(divisors, 1 / ((1 - fast) / factor + fast), rtol=1e-5):
        return {
            "rope_type": "llama3",
            "factor": round(factor, 4),
            "low_freq_factor": LLAMA_3_SLOW_TURNS,
            "high_freq_factor": LLAMA_3_FAST_TURNS,
            "original_max_position_embeddings": LLAMA_3_CONTEXT,
        }
    return {
        "rope_type": "longrope",
        "short_factor": divisors,
        "long_factor": divisors,
        "attention_factor": 1.0,
        "original_max_position_embeddings": context,
    }


def _llama(m: Metadata) -> Json:
    rotated = m.optional("rope.dimension_count")
    config = _common(m, "llama", head_dim=rotated)
    experts, window = m.optional("expert_count"), m.optional("attention.sliding_window")
    if experts:
        config |= {"model_type": "mixtral", **_experts(m, normalised=True), "sliding_window": window or None}
        config["num_local_experts"] = config.pop("num_experts")
        return config
    m.only("expert_used_count", 0)
    if window:
        return config | {"model_type": "mistral", "sliding_window": window}
    biases = {"attention_bias": m.has("blk.0.attn_q.bias"), "mlp_bias": m.has("blk.0.ffn_gate.bias")}
    return config | {key: True for key, present in biases.items() if present}


def _smollm3(m: Metadata) -> Json:
    config = _common(m, "smollm3", head_dim=m.optional("rope.dimension_count"))
    interval = SMOLLM3_NO_ROPE_INTERVAL
    rotated = [int((layer + 1) % interval != 0) for layer in range(config["num_hidden_layers"])]
    return config | {"no_rope_layers": rotated, "no_rope_layer_interval": interval}


def _qwen2_moe(m: Metadata) -> Json:
    config = _common(m, "qwen2_moe") | _experts(m, normalised=False)
    shared = m.rows_of("blk.0.ffn_up_shexp.weight")
    m.only("expert_shared_feed_forward_length", shared)
    return config | {"shared_expert_intermediate_size": shared, "decoder_sparse_step": 1}


def _qwen3_moe(m: Metadata) -> Json:
    return _common(m, "qwen3_moe") | _experts(m, normalised=True) | {"decoder_sparse_step": 1}


def _experts(m: Metadata, *, normalised: bool) -> Json:
    """Mixture of experts; their width is that of their tensors, which old files say nowhere else."""
    if m.has("blk.0.ffn_down_exps.weight"):
        width = m.rows_of("blk.0.ffn_down_exps.weight", -1)
    else:
        width = m.rows_of("blk.0.ffn_down.0.weight", -1)  # Mixtral's files of 2023: a tensor for each expert
    m.only("expert_feed_forward_length", width)
    m.only("expert_gating_func", 0, 1)  # none given, softmax
    m.only("expert_weights_norm", normalised)
    m.only("expert_weights_scale", 0.0, 1.0)
    m.only("expert_shared_count", 0)
    m.only("expert_group_count", 0, 1)
    m.only("expert_group_used_count", 0, 1)
    config = {"num_experts": m.whole("expert_count"), "num_experts_per_tok": m.whole("expert_used_count")}
    if m.file.architecture == "llama":
        return config | {"intermediate_size": width}
    return config | {"moe_intermediate_size": width, "norm_topk_prob": normalised}


def _gemma2(m: Metadata) -> Json:
    caps = {
        "attn_logit_softcapping": m.number("attn_logit_softcapping", 50.0),
        "final_logit_softcapping": m.number("final_logit_softcapping", 30.0),
    }
    return _gemma(m, "gemma2", every=2) | caps


def _gemma3(m: Metadata) -> Json:
    config = _gemma(m, "gemma3_text", every=6)
    cap = m.optional("final_logit_softcapping")
    m.only("attn_logit_softcapping", 0.0)
    config["rope_local_base_freq"] = m.number("rope.freq_base_swa", 10_000.0)
    return config | {"final_logit_softcapping": cap or None, "attn_logit_softcapping": None}


def _gemma(m: Metadata, family: str, *, every: int) -> Json:
    """Gemma: windows on all layers but each `every`-th, and scores scaled as its size has it."""
    config = _common(m, family)
    layers = config["num_hidden_layers"]
    pattern = m.optional("attention.sliding_window_pattern")
    if isinstance(pattern, list):
        slides = [bool(kind) for kind in pattern]
    else:
        slides = [bool((layer + 1) % (pattern or every)) for layer in range(layers)]
    scale = m.optional("attention.scale")
    if scale:
        query = scale**-2
    elif layers in GEMMA_27B_LAYERS:
        query = config["hidden_size"] / config["num_attention_heads"]
    else:
        query = config["head_dim"]
    return config | {
        "sliding_window": m.whole("attention.sliding_window"),
        "layer_types": ["sliding_attention" if slide else "full_attention" for slide in slides],
        "query_pre_attn_scalar": query,
        "hidden_activation": "gelu_pytorch_tanh",
    }


def _phi3(m: Metadata) -> Json:
    window = m.optional("attention.sliding_window")
    return _common(m, "phi3") | {"sliding_window": window or None}


def _gpt2(m: Metadata) -> Json:
    d_model = m.whole("embedding_length")
    heads = m.whole("attention.head_count")
    m.only("attention.head_count_kv", heads)
    m.keys.skip("rope.dimension_count")  # there are no rotary positions
    return {
        "model_type": "gpt2",
        "vocab_size": m.rows_of("token_embd.weight"),
        "n_embd": d_model,
        "n_inner": m.whole("feed_forward_length", 4 * d_model),
        "n_layer": m.whole("block_count"),
        "n_head": heads,
        "n_positions": m.whole("context_length"),
        "layer_norm_epsilon": m.number("attention.layer_norm_epsilon"),
        "activation_function": "gelu_new",
        "tie_word_embeddings": not m.has("output.weight"),
    }


@dataclass(frozen=True)
class Architecture:
    """How llama.cpp stores one model family.

    Attributes:
        config: metadata to configuration.
        interleaved: the rows of queries and keys are ordered for rotations of neighbours (2i, 2i + 1).
        norm_shift: added to the weights of RMS norms to make them those of our module.
    """

    config: Callable[[Metadata], Json]
    interleaved: bool = False
    norm_shift: float = 0.0


def _plain(family: str) -> Callable[[Metadata], Json]:
    return lambda m: _common(m, family)


ARCHITECTURES: dict[str, Architecture] = {
    "llama": Architecture(_llama, interleaved=True),
    "qwen2": Architecture(_plain("qwen2")),
    "qwen2moe": Architecture(_qwen2_moe),
    "qwen3": Architecture(_plain("qwen3")),
    "qwen3moe": Architecture(_qwen3_moe),
    "gemma2": Architecture(_gemma2, norm_shift=-1.0),
    "gemma3": Architecture(_gemma3, norm_shift=-1.0),
    "phi3": Architecture(_phi3),
    "gpt2": Architecture(_gpt2),
    "olmo2": Architecture(_plain("olmo2")),
    "smollm3": Architecture(_smollm3, interleaved=True),
}
"""The architectures that can be read, by ``general.architecture``."""


def architecture_of(file: GGUFFile) -> Architecture:
    """How the file's architecture stores its models.

    Raises:
        UserError: it is not known; the known ones are listed.
    """
    name = file.architecture
    if name not in ARCHITECTURES:
        expected = " | ".join(ARCHITECTURES)
        raise UserError(f"{file.path} is of an architecture that can't be read", expected=expected, got=repr(name))
    return ARCHITECTURES[name]
