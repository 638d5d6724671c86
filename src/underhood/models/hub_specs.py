"""Configurations of the open model families as specs: one function each, from a file's keys to a spec.

Sources: the configurations as published, and transformers' reference models (what a key means, and what a missing one).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from underhood.core.errors import UserError
from underhood.models.decoder import DecoderSpec
from underhood.models.hub_config import Config, read_rotary
from underhood.nn.attention import AttentionSpec
from underhood.nn.block import BlockSpec
from underhood.nn.feedforward import GatedMLPSpec, MLPSpec
from underhood.nn.moe import MoESpec
from underhood.nn.norm import LayerNormSpec, NormSpec, RMSNormSpec
from underhood.nn.positions import LearnedPositionSpec
from underhood.nn.rope import RotarySpec
from underhood.nn.zero_centered_norm import ZeroCenteredRMSNormSpec

ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "relu": "relu",
    "relu2": "relu2",
}
"""transformers' names of activations to ours."""


_QK_NORM = "use_qk_norm qk_norm qk_layernorm"
"""Names by which files say that queries and keys are normalised, where the family always does it."""


def gpt2(c: Config) -> DecoderSpec:
    width = c.whole("n_embd")
    norm = LayerNormSpec(eps=c.number("layer_norm_epsilon", 1e-5))
    activation = c.choice(("activation_function",), ACTIVATIONS, "gelu_new")
    c.skip("n_ctx")  # the same number as n_positions
    c.allow(width, None, keys="hidden_size")
    c.allow(True, None, keys="bias use_bias weight_tying tie_weights")
    positions = c.whole("n_positions")
    if c.context not in (None, positions):
        raise UserError(f"{c.where} has a learned vector per position", expected=str(positions), got=str(c.context))
    return DecoderSpec(
        vocab_size=c.whole("vocab_size"),
        context_length=positions,
        d_model=width,
        layers=c.whole("n_layer"),
        blocks=(
            BlockSpec(
                mixer=AttentionSpec(heads=c.whole("n_head"), rotary=None, bias=True, output_bias=True),
                feedforward=MLPSpec(d_ff=c.whole("n_inner", 4 * width), activation=activation),
                norm=norm,
            ),
        ),
        norm=norm,
        tied=c.truth("tie_word_embeddings", True),
        positions=LearnedPositionSpec(),
    )


def llama(c: Config) -> DecoderSpec:
    bias = c.truth("attention_bias", False)
    longest = c.whole("max_sequence_length", 2048)  # the first files had the context under this name only
    rotary, context = read_rotary(c, _head_dim(c), usual=longest)
    if c.context is None and rotary.scaling is not None:
        context = max(context, longest)  # and the first stretched ones the new context, beside the old one
    mixer = _attention(c, rotary=rotary, bias=bias, output_bias=bias)
    return _decoder(c, context, [BlockSpec(mixer=mixer, feedforward=_gated(c), norm=_norm(c))])


def smollm3(c: Config) -> DecoderSpec:
    """Llama with rotary positions in three of four layers only (NoPE, Yang et al. 2025)."""
    layers, interval = c.whole("num_hidden_layers"), c.whole("no_rope_layer_interval", 4)
    rotated = c.get("no_rope_layers", None) or [int((layer + 1) % interval != 0) for layer in range(layers)]
    if len(rotated) != layers or not set(rotated) <= {0, 1}:
        raise UserError(f"no_rope_layers in {c.where} can't be read", expected=f"{layers} times 0 or 1")
    c.skip("max_window_layers")  # of Qwen 2; the layers with windows are named
    windows = _windows(c, lambda layer: not rotated[layer], None)
    used, bias = c.truth("use_sliding_window", False), c.truth("attention_bias", False)
    rotary, context = read_rotary(c, _head_dim(c))
    blocks = [
        BlockSpec(
            mixer=_attention(
                c, rotary=rotary if turns else None, window=window if used else None, bias=bias, output_bias=bias
            ),
            feedforward=_gated(c),
            norm=_norm(c),
        )
        for turns, window in zip(rotated, windows, strict=True)
    ]
    return _decoder(c, context, blocks, tied=True)


def mistral(c: Config) -> DecoderSpec:
    rotary, context = read_rotary(c, _head_dim(c))
    mixer = _attention(c, rotary=rotary, window=_window(c, 4096))
    return _decoder(c, context, [BlockSpec(mixer=mixer, feedforward=_gated(c), norm=_norm(c))])


def mixtral(c: Config) -> DecoderSpec:
    c.allow(True, None, keys="norm_topk_prob")
    rotary, context = read_rotary(c, _head_dim(c), theta=1e6)
    feedforward = MoESpec(
        experts=c.whole("num_local_experts", 8),
        experts_per_token=c.whole("num_experts_per_tok", 2),
        d_ff=c.whole("intermediate_size"),
        activation=c.choice(("hidden_act",), ACTIVATIONS, "silu"),
    )
    mixer = _attention(c, rotary=rotary, window=_window(c, None))
    return _decoder(c, context, [BlockSpec(mixer=mixer, feedforward=feedforward, norm=_norm(c, 1e-5))])


def qwen2(c: Config) -> DecoderSpec:
    c.allow(True, None, keys="qkv_bias use_qkv_bias")
    rotary, context = read_rotary(c, _head_dim(c))
    return _decoder(
        c,
        context,
        [
            BlockSpec(
                mixer=_attention(c, rotary=rotary, window=window, bias=True), feedforward=_gated(c), norm=_norm(c)
            )
            for window in _late_windows(c)
        ],
    )


def qwen3(c: Config) -> DecoderSpec:
    return _qwen3_with(c, 128, _late_windows(c), [_gated(c)] * c.whole("num_hidden_layers"))


def qwen2_moe(c: Config) -> DecoderSpec:
    used = c.truth("use_sliding_window", False)
    last = c.get("max_window_layers", 28)
    windows = _windows(c, lambda layer: layer % 2 == 0 and layer < last, 4096)
    parts = _sparse_layers(
        c, experts=60, active=4, d_ff=1408, shared_d_ff=c.whole("shared_expert_intermediate_size", 5632)
    )
    rotary, context = read_rotary(c, _head_dim(c))
    bias = c.truth("qkv_bias", True)
    blocks = [
        BlockSpec(
            mixer=_attention(c, rotary=rotary, window=window if used else None, bias=bias),
            feedforward=mlp,
            norm=_norm(c),
        )
        for window, mlp in zip(windows, parts, strict=True)
    ]
    return _decoder(c, context, blocks)


def qwen3_moe(c: Config) -> DecoderSpec:
    given, used = c.get("sliding_window", 4096), c.truth("use_sliding_window", False)
    window = given if used else None
    c.skip("max_window_layers")
    c.allow(0, None, keys="shared_expert_intermediate_size n_shared_experts num_shared_experts")
    parts = _sparse_layers(c, experts=c.get("num_local_experts", 128), active=8, d_ff=768)
    return _qwen3_with(c, None, [window] * len(parts), parts)


def _sparse_layers(
    c: Config, *, experts: int, active: int, d_ff: int, shared_d_ff: int | None = None
) -> list[GatedMLPSpec | MoESpec]:
    """Qwen's feed-forwards: a mixture of experts in the layers that the file names, dense in the others.

    Args:
        experts, active, d_ff: the family's own numbers where the file is silent.
    """
    sparse = MoESpec(
        experts=c.whole("num_experts", experts),
        experts_per_token=c.whole("num_experts_per_tok", active),
        d_ff=c.whole("moe_intermediate_size", d_ff),
        activation=c.choice(("hidden_act",), ACTIVATIONS, "silu"),
        normalise=c.truth("norm_topk_prob", False),
        shared_d_ff=shared_d_ff,
    )
    dense_layers, step = c.get("mlp_only_layers", None) or [], c.whole("decoder_sparse_step", 1)
    dense = _gated(c)
    layers = range(c.whole("num_hidden_layers"))
    return [dense if layer in dense_layers or (layer + 1) % step else sparse for layer in layers]


def _qwen3_with(
    c: Config, head_dim: int | None, windows: Sequence[int | None], parts: Sequence[GatedMLPSpec | MoESpec]
) -> DecoderSpec:
    norm, bias = _norm(c), c.truth("attention_bias", False)
    c.allow(True, None, keys=_QK_NORM)
    rotary, context = read_rotary(c, _head_dim(c, head_dim))
    more: dict[str, Any] = {"rotary": rotary, "qk_norm": norm, "bias": bias, "output_bias": bias}
    blocks = [
        BlockSpec(mixer=_attention(c, head_dim=head_dim, window=window, **more), feedforward=mlp, norm=norm)
        for window, mlp in zip(windows, parts, strict=True)
    ]
    return _decoder(c, context, blocks)


def gemma2(c: Config) -> DecoderSpec:
    c.skip("sliding_window_size")  # an older name beside the new one
    windows = _windows(c, lambda layer: layer % 2 == 0, 4096)
    rotary, context = read_rotary(c, _head_dim(c, 256))
    caps = (_optional(c, "attn_logit_softcapping", 50.0), _optional(c, "final_logit_softcapping", 30.0))
    return _gemma(c, context, [(window, rotary) for window in windows], caps, qk_norm=False)


def gemma3(c: Config) -> DecoderSpec:
    pattern = c.get("sliding_window_pattern", c.get("_sliding_window_pattern", 6))
    windows = _windows(c, lambda layer: bool((layer + 1) % pattern), 4096)
    whole, context = read_rotary(c, _head_dim(c, 256), kind="full_attention", theta=1e6, usual=131_072)
    local = _gemma3_local(c)
    layers = [(window, local if window else whole) for window in windows]
    caps = (_optional(c, "attn_logit_softcapping", None), _optional(c, "final_logit_softcapping", None))
    return _gemma(c, context, layers, caps, qk_norm=True)


def gemma3_with_images(c: Config) -> DecoderSpec:
    """The language model inside the larger Gemma 3; images are left out."""
    text = c.get("text_config")
    if not isinstance(text, Mapping):
        raise UserError(f"text_config in {c.where} has the wrong type", expected="an object")
    inner = Config(text, f"text_config in {c.where}", c.context)
    spec = gemma3(inner)
    c.finish_inner(inner, "text_config")
    c.skip("vision_config", "mm_tokens_per_image", "boi_token_index", "eoi_token_index", "image_token_index")
    c.skip("tie_word_embeddings")
    return spec


def _gemma3_local(c: Config) -> RotarySpec:
    """Its sliding layers' positions, which older files give as one number and never scale."""
    nested = c.get("rope_parameters", None) or {}
    if "sliding_attention" in nested:
        return read_rotary(c, _head_dim(c, 256), kind="sliding_attention", usual=131_072)[0]
    return RotarySpec(theta=c.number("rope_local_base_freq", 10_000.0))


def _gemma(
    c: Config,
    context: int,
    layers: Sequence[tuple[int | None, RotarySpec]],
    caps: tuple[float | None, float | None],
    *,
    qk_norm: bool,
) -> DecoderSpec:
    c.allow(True, None, keys="weight_tying tie_weights")
    if qk_norm:
        c.allow(True, None, keys=_QK_NORM)
    norm, bias = ZeroCenteredRMSNormSpec(eps=c.number("rms_norm_eps", 1e-6)), c.truth("attention_bias", False)
    feedforward = GatedMLPSpec(
        d_ff=c.whole("intermediate_size"),
        activation=c.choice(("hidden_activation", "hidden_act"), ACTIVATIONS, "gelu_pytorch_tanh"),
    )
    more: dict[str, Any] = {
        "head_dim": 256,
        "qk_norm": norm if qk_norm else None,
        "bias": bias,
        "output_bias": bias,
        "scale": c.number("query_pre_attn_scalar", 256) ** -0.5,
        "softcap": caps[0],
    }
    blocks = [
        BlockSpec(
            mixer=_attention(c, heads=8, kv_heads=4, rotary=rotary, window=window, **more),
            feedforward=feedforward,
            norm=norm,
            post_norm=norm,
        )
        for window, rotary in layers
    ]
    width = c.whole("hidden_size")
    more = {"tied": True, "embed_scale": width**0.5, "logit_softcap": caps[1], "vocab_size": (262_208,)}
    return _decoder(c, context, blocks, norm=norm, **more)


def phi3(c: Config) -> DecoderSpec:
    rotary, context = read_rotary(c, _head_dim(c))
    mixer = _attention(c, rotary=rotary, window=_window(c, None))
    return _decoder(c, context, [BlockSpec(mixer=mixer, feedforward=_gated(c), norm=_norm(c, 1e-5))])


def olmo2(c: Config) -> DecoderSpec:
    norm, bias = _norm(c, 1e-5), c.truth("attention_bias", False)
    c.allow(True, None, keys=_QK_NORM)
    rotary, context = read_rotary(c, _head_dim(c))
    mixer = _attention(c, rotary=rotary, qk_norm=norm, qk_norm_whole=True, bias=bias, output_bias=bias)
    return _decoder(c, context, [BlockSpec(mixer=mixer, feedforward=_gated(c), norm=None, post_norm=norm)])


# What they share.


def _decoder(
    c: Config,
    context: int,
    blocks: Sequence[BlockSpec],
    *,
    norm: NormSpec | None = None,
    tied: bool = False,
    embed_scale: float | None = None,
    logit_softcap: float | None = None,
    vocab_size: tuple[int, ...] = (),
) -> DecoderSpec:
    first = blocks[0]
    return DecoderSpec(
        vocab_size=c.whole("vocab_size", *vocab_size),
        context_length=context,
        d_model=c.whole("hidden_size"),
        layers=c.whole("num_hidden_layers"),
        blocks=shortest_pattern(blocks),
        norm=norm or first.norm or first.post_norm or RMSNormSpec(),
        tied=c.truth("tie_word_embeddings", tied),
        embed_scale=embed_scale,
        logit_softcap=logit_softcap,
    )


def shortest_pattern(blocks: Sequence[BlockSpec]) -> tuple[BlockSpec, ...]:
    """The shortest beginning that, repeated, gives all of them."""
    for length in range(1, len(blocks)):
        if all(block == blocks[layer % length] for layer, block in enumerate(blocks)):
            return tuple(blocks[:length])
    return tuple(blocks)


def _attention(
    c: Config, *, heads: int | None = None, kv_heads: int | None = None, head_dim: int | None = None, **more: Any
) -> AttentionSpec:
    """Attention with the file's heads; the arguments are the family's own numbers where the file is silent."""
    count = c.whole("num_attention_heads", *([] if heads is None else [heads]))
    if more.get("window") is not None and not (isinstance(more["window"], int) and more["window"] > 0):
        raise UserError(f"sliding_window in {c.where} is out of range", got=repr(more["window"]))
    return AttentionSpec(
        heads=count,
        kv_heads=c.whole("num_key_value_heads", kv_heads or count),
        head_dim=_head_dim(c, head_dim),
        **more,
    )


def _head_dim(c: Config, default: int | None = None) -> int:
    return c.whole("head_dim", default or c.whole("hidden_size") // c.whole("num_attention_heads", 8))


def _norm(c: Config, eps: float = 1e-6) -> RMSNormSpec:
    return RMSNormSpec(eps=c.number("rms_norm_eps", eps))


def _gated(c: Config) -> GatedMLPSpec:
    return GatedMLPSpec(
        d_ff=c.whole("intermediate_size"),
        activation=c.choice(("hidden_act",), ACTIVATIONS, "silu"),
        bias=c.truth("mlp_bias", False),
    )


def _window(c: Config, default: int | None) -> int | None:
    """The sliding window of all layers; a switch beside it must not contradict it."""
    window = c.get("sliding_window", default)
    c.allow(*((True, None) if window is not None else (True, False, None)), keys="use_sliding_window")
    return window


def _optional(c: Config, key: str, default: float | None) -> float | None:
    value = c.get(key, default)
    return None if value is None else c.number(key, value)


def _windows(c: Config, slides: Callable[[int], bool], default: int | None) -> list[int | None]:
    """Each layer's window, from the file's list of kinds or the family's rule."""
    window, layers = c.get("sliding_window", default), c.whole("num_hidden_layers")
    kinds = c.get("layer_types", None)
    if kinds is None:
        kinds = ["sliding_attention" if slides(layer) else "full_attention" for layer in range(layers)]
    if len(kinds) != layers or not set(kinds) <= {"sliding_attention", "full_attention"}:
        expected = f"{layers} times sliding_attention or full_attention"
        raise UserError(f"layer_types in {c.where} can't be read", expected=expected)
    return [window if kind == "sliding_attention" else None for kind in kinds]


def _late_windows(c: Config) -> list[int | None]:
    """Qwen's rule: the layers from `max_window_layers` on slide, if any do."""
    first, used = c.get("max_window_layers", 28), c.truth("use_sliding_window", False)
    windows = _windows(c, lambda layer: layer >= first, 4096)
    return windows if used else [None] * len(windows)
