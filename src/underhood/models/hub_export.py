"""The way back: a model of ours as a Hugging Face configuration, where a published family has its function.

Nothing here decides whether a family fits. A configuration is written from the spec's numbers, read back by the same
code that opens published models, and compared with the spec: equal means the same function, anything else is refused.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from underhood.core.errors import UserError
from underhood.models.decoder import DecoderSpec
from underhood.models.hub_specs import ACTIVATIONS, shortest_pattern
from underhood.models.huggingface import FAMILIES, spec_from_config
from underhood.nn.attention import AttentionSpec, attention_of
from underhood.nn.block import BlockSpec
from underhood.nn.feedforward import GatedMLPSpec, MLPSpec
from underhood.nn.moe import MoESpec
from underhood.nn.rope_scaling import LinearScaling, Llama3Scaling, RotaryScalingSpec, YarnScaling

Json = dict[str, Any]

_COMMON = (
    "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads "
    "max_position_embeddings rms_norm_eps tie_word_embeddings rope_theta rope_scaling"
)
_QWEN = f"{_COMMON} hidden_act use_sliding_window sliding_window"
_GEMMA = (
    f"{_COMMON} head_dim attention_bias hidden_activation query_pre_attn_scalar sliding_window layer_types "
    "attn_logit_softcapping final_logit_softcapping"
)
_GPT2 = (
    "vocab_size n_embd n_inner n_layer n_head n_positions activation_function layer_norm_epsilon tie_word_embeddings"
)

KEYS: dict[str, str] = {
    "qwen3": f"{_QWEN} head_dim attention_bias layer_types",
    "llama": f"{_COMMON} hidden_act head_dim attention_bias mlp_bias",
    "qwen2": f"{_QWEN} layer_types",
    "mistral": f"{_COMMON} hidden_act head_dim sliding_window",
    "gpt2": _GPT2,
    "qwen3_moe": f"{_QWEN} head_dim attention_bias num_experts num_experts_per_tok moe_intermediate_size "
    "norm_topk_prob mlp_only_layers",
    "qwen2_moe": f"{_QWEN} qkv_bias num_experts num_experts_per_tok moe_intermediate_size layer_types "
    "norm_topk_prob mlp_only_layers shared_expert_intermediate_size",
    "mixtral": f"{_COMMON} hidden_act head_dim sliding_window num_local_experts num_experts_per_tok",
    "gemma2": _GEMMA,
    "gemma3_text": f"{_GEMMA} rope_local_base_freq",
    "smollm3": f"{_QWEN} attention_bias mlp_bias layer_types no_rope_layers",
    "olmo2": f"{_COMMON} hidden_act attention_bias",
    "phi3": f"{_COMMON} hidden_act sliding_window partial_rotary_factor",
}
"""The keys that each family's configuration is made of, in the order in which families are tried."""


def to_huggingface(spec: DecoderSpec) -> Json:
    """The ``config.json`` of a published family with exactly this function (``architectures`` included).

    Raises:
        UserError: no family has it.
    """
    for name, keys in KEYS.items():
        if (config := config_of(spec, name, keys)) is not None:
            return {"architectures": [FAMILIES[name].architecture]} | config
    raise UserError("this model has no form in transformers", expected=f"a model like {', '.join(KEYS)}")


def config_of(spec: DecoderSpec, family: str, keys: str) -> Json | None:
    """The spec's numbers under a family's keys; None unless they, read back, are the very same function.

    Args:
        family: a ``model_type``.
        keys: names of keys, separated by spaces; those that the spec has no value for are left out.
    """
    values = _values(spec)
    config = {"model_type": family} | {key: values[key] for key in keys.split() if key in values}
    try:
        same = canonical(spec_from_config(config)) == canonical(spec)
    except UserError:
        return None
    return config if same else None


def canonical(spec: DecoderSpec) -> DecoderSpec:
    """The same function with every default written out and the shortest pattern of blocks."""

    def block(layer: BlockSpec) -> BlockSpec:
        mixer = attention_of(layer.mixer)
        if mixer is None:
            return layer
        width = mixer.head_dim_for(spec.d_model)
        window = None if mixer.window is not None and mixer.window >= spec.context_length else mixer.window
        scale = width**-0.5 if mixer.scale is None else mixer.scale
        return replace(
            layer,
            mixer=replace(mixer, kv_heads=mixer.groups, head_dim=width, window=window, scale=float(f"{scale:.12g}")),
        )

    blocks = [block(spec.block(layer)) for layer in range(spec.layers)]
    return replace(spec, blocks=shortest_pattern(blocks))


def _values(spec: DecoderSpec) -> Json:
    """Every number of the spec under the name that configurations give it; what the spec lacks is left out."""
    blocks = [spec.block(layer) for layer in range(spec.layers)]
    mixers = [mixer for block in blocks if (mixer := attention_of(block.mixer)) is not None]
    if len(mixers) < len(blocks):
        return {}
    mixer = mixers[0]
    parts = [block.feedforward for block in blocks]
    dense = next((mlp for mlp in parts if isinstance(mlp, (GatedMLPSpec, MLPSpec))), None)
    experts = next((mlp for mlp in parts if isinstance(mlp, MoESpec)), None)
    windows = [other.window for other in mixers]
    window = next((window for window in windows if window is not None), None)
    hidden = dense.d_ff if dense else experts.d_ff if experts else None
    activation = next(
        (their for their, our in ACTIVATIONS.items() for mlp in (dense, experts) if mlp and mlp.activation == our),
        None,
    )
    eps = getattr(spec.norm, "eps", None)
    scale = mixer.scale or mixer.head_dim_for(spec.d_model) ** -0.5
    values: Json = {
        "vocab_size": spec.vocab_size,
        "hidden_size": spec.d_model,
        "intermediate_size": hidden,
        "num_hidden_layers": spec.layers,
        "num_attention_heads": mixer.heads,
        "num_key_value_heads": mixer.groups,
        "head_dim": mixer.head_dim_for(spec.d_model),
        "max_position_embeddings": spec.context_length,
        "rms_norm_eps": eps,
        "tie_word_embeddings": spec.tied,
        "hidden_act": activation,
        "hidden_activation": "gelu_pytorch_tanh" if activation == "gelu_new" else activation,
        "attention_bias": mixer.bias,
        "qkv_bias": mixer.bias,
        "no_rope_layers": [int(other.rotary is not None) for other in mixers],
        "mlp_bias": bool(dense and dense.bias),
        "use_sliding_window": window is not None,
        "sliding_window": window,
        "query_pre_attn_scalar": _tidy(scale**-2),
        "attn_logit_softcapping": mixer.softcap,
        "final_logit_softcapping": spec.logit_softcap,
        "n_embd": spec.d_model,
        "n_inner": hidden,
        "n_layer": spec.layers,
        "n_head": mixer.heads,
        "n_positions": spec.context_length,
        "activation_function": activation,
        "layer_norm_epsilon": eps,
    } | _rotary_values(mixers)
    if window is not None:
        values["layer_types"] = ["full_attention" if w is None else "sliding_attention" for w in windows]
    if experts is not None:
        values |= {
            "num_experts": experts.experts,
            "num_local_experts": experts.experts,
            "num_experts_per_tok": experts.experts_per_token,
            "moe_intermediate_size": experts.d_ff,
            "norm_topk_prob": experts.normalise,
            "shared_expert_intermediate_size": experts.shared_d_ff,
            "mlp_only_layers": [layer for layer, mlp in enumerate(parts) if not isinstance(mlp, MoESpec)],
        }
    return values


def _rotary_values(mixers: list[AttentionSpec]) -> Json:
    """The positions of the layers that see everything, and of those that do not, where these differ."""
    specs = [mixer for mixer in mixers if mixer.rotary is not None]
    if not specs:
        return {}
    whole = next((mixer.rotary for mixer in specs if mixer.window is None), specs[0].rotary)
    local = next((mixer.rotary for mixer in specs if mixer.window is not None), whole)
    assert whole is not None
    assert local is not None
    values: Json = {
        "rope_theta": whole.theta,
        "rope_local_base_freq": local.theta,
        "partial_rotary_factor": whole.fraction,
    }
    if whole.scaling is not None and (scaling := _scaling_values(whole.scaling)) is not None:
        values["rope_scaling"] = scaling
    return values


def _scaling_values(scaling: RotaryScalingSpec) -> Json | None:
    if isinstance(scaling, LinearScaling):
        return {"rope_type": "linear", "factor": scaling.factor}
    if isinstance(scaling, Llama3Scaling):
        return {
            "rope_type": "llama3",
            "factor": scaling.factor,
            "low_freq_factor": scaling.low_turns,
            "high_freq_factor": scaling.high_turns,
            "original_max_position_embeddings": scaling.original_context,
        }
    if isinstance(scaling, YarnScaling):
        values: Json = {
            "rope_type": "yarn",
            "factor": scaling.factor,
            "beta_fast": scaling.fast_turns,
            "beta_slow": scaling.slow_turns,
            "original_max_position_embeddings": scaling.original_context,
            "truncate": scaling.whole_pairs,
        }
        return values if scaling.attention_factor is None else values | {"attention_factor": scaling.attention_factor}
    return None


def _tidy(value: float) -> float | int:
    """A whole number where rounding errors alone keep it from being one."""
    return round(value) if math.isclose(value, round(value), rel_tol=1e-9) else value
