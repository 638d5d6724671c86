"""The open model families: what their ``config.json`` means as a spec, and what their weights are called.

A family is two things here, a function from the file's keys to a `DecoderSpec` and a table of names. Nothing else in
the house knows which family a model came from.

Sources: the configurations and weight files as published, and transformers' reference models (what the keys mean).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from underhood.core.errors import UserError, nearest
from underhood.models import hub_specs as specs
from underhood.models.config_keys import UnusedKey
from underhood.models.decoder import DecoderSpec
from underhood.models.hub_config import Config


@dataclass(frozen=True)
class Turned:
    """The name of a matrix that is stored as (in, out), the other way round than a linear layer's weight."""

    name: str


Names = dict[str, str | Turned]
"""Our module to theirs; ``*`` matches a number. Modules of ours that share one of theirs are stored as one tensor,
row below row, in the table's order."""


@dataclass(frozen=True)
class Family:
    """One family of checkpoints.

    Attributes:
        architecture: transformers' class.
        read: its configuration as a spec.
        names: its weights' names.
        prefixes: how the names of the table may begin in a file: the table's own way first.
        ignored: patterns of names in files that do not belong to the language model (old files carry masks).
    """

    architecture: str
    read: Callable[[Config], DecoderSpec]
    names: Names
    prefixes: tuple[str, ...] = ("model.", "")
    ignored: tuple[str, ...] = (r".*rotary_emb\.inv_freq",)


def spec_from_config(
    data: Mapping[str, Any], *, where: str = "config.json", context_length: int | None = None
) -> DecoderSpec:
    """The model that a Hugging Face configuration describes.

    Args:
        where: what errors call the file.
        context: another context than the file's. For LongRoPE it also decides which of its two lists of divisors is
            used; left out, it is that of the first training, for which the model is exact at every length.

    Raises:
        UserError: a family that is not known, a missing key, or one that changes the function in an unknown way.
    """
    return _read(data, where, context_length)[0]


def unused_config_keys(data: Mapping[str, Any], *, where: str = "config.json") -> list[UnusedKey]:
    """The keys of a configuration that decide nothing in its model, each with the reason.

    Raises:
        UserError: as `spec_from_config`.
    """
    return _read(data, where, None)[1].unused


def _read(data: Mapping[str, Any], where: str, context_length: int | None) -> tuple[DecoderSpec, Config]:
    family = family_of(data, where)
    config = Config(data, where, context_length)
    try:
        spec = family.read(config)
    except ValueError as error:  # a spec's own validation
        raise UserError(f"{where}: {error}") from error
    config.skip("model_type", "architectures")
    config.finish()
    return spec, config


def family_of(data: Mapping[str, Any], where: str = "config.json") -> Family:
    """The family that a configuration belongs to.

    Raises:
        UserError: it is not known; the known ones are listed.
    """
    return FAMILIES[family_name(data, where)]


def family_name(data: Mapping[str, Any], where: str = "config.json") -> str:
    """The ``model_type`` of a configuration; files of 2019 say it by their class only.

    Raises:
        UserError: it is not known; the known ones are listed.
    """
    name = data.get("model_type")
    if name is None and isinstance(classes := data.get("architectures"), list):
        by_class = {family.architecture: known for known, family in FAMILIES.items()}
        name = next((by_class[cls] for cls in classes if cls in by_class), None)
    if name not in FAMILIES:
        near = nearest(str(name), FAMILIES)
        fix = f"The nearest that can be read is {near}" if near else None
        raise UserError(
            f"{where} is of a family that can't be read", expected=" | ".join(FAMILIES), got=repr(name), fix=fix
        )
    return name


# What their weights are called.


def _layers(ours: str, theirs: str, names: Names) -> Names:
    return {
        ours + our: Turned(theirs + their.name) if isinstance(their, Turned) else theirs + their
        for our, their in names.items()
    }


_OUTSIDE: Names = {"embed": "model.embed_tokens", "norm": "model.norm", "unembed": "lm_head"}
_ATTENTION: Names = {
    "mixer.query": "self_attn.q_proj",
    "mixer.key": "self_attn.k_proj",
    "mixer.value": "self_attn.v_proj",
    "mixer.output": "self_attn.o_proj",
    "mixer.query_norm": "self_attn.q_norm",
    "mixer.key_norm": "self_attn.k_norm",
}
_GATED: Names = {f"feedforward.{name}": f"mlp.{name}_proj" for name in ("gate", "up", "down")}
_PRE_NORMS: Names = {"mixer_norm": "input_layernorm", "feedforward_norm": "post_attention_layernorm"}
_POST_NORMS: Names = {
    "mixer_post_norm": "post_attention_layernorm",
    "feedforward_post_norm": "post_feedforward_layernorm",
}

_LLAMA: Names = {**_OUTSIDE, **_layers("blocks.*.", "model.layers.*.", {**_PRE_NORMS, **_ATTENTION, **_GATED})}
_QWEN3_MOE: Names = {
    **_LLAMA,
    "blocks.*.feedforward.router": "model.layers.*.mlp.gate",
    **{
        f"blocks.*.feedforward.experts.*.{name}": f"model.layers.*.mlp.experts.*.{name}_proj"
        for name in ("gate", "up", "down")
    },
}
_QWEN2_MOE: Names = {
    **_QWEN3_MOE,
    "blocks.*.feedforward.shared_expert_gate": "model.layers.*.mlp.shared_expert_gate",
    **{
        f"blocks.*.feedforward.shared_expert.{name}": f"model.layers.*.mlp.shared_expert.{name}_proj"
        for name in ("gate", "up", "down")
    },
}
_MIXTRAL: Names = {
    **_LLAMA,
    "blocks.*.feedforward.router": "model.layers.*.block_sparse_moe.gate",
    **{
        f"blocks.*.feedforward.experts.*.{name}": f"model.layers.*.block_sparse_moe.experts.*.w{number}"
        for number, name in ((1, "gate"), (2, "down"), (3, "up"))
    },
}
_GEMMA: Names = {
    **_LLAMA,
    **_layers("blocks.*.", "model.layers.*.", {"feedforward_norm": "pre_feedforward_layernorm", **_POST_NORMS}),
}
_OLMO2: Names = {**_OUTSIDE, **_layers("blocks.*.", "model.layers.*.", {**_POST_NORMS, **_ATTENTION, **_GATED})}
_PHI3: Names = {
    **_LLAMA,
    **{f"blocks.*.mixer.{name}": "model.layers.*.self_attn.qkv_proj" for name in ("query", "key", "value")},
    **{f"blocks.*.feedforward.{name}": "model.layers.*.mlp.gate_up_proj" for name in ("gate", "up")},
}
_GPT2: Names = {
    "embed": "transformer.wte",
    "position_embed": "transformer.wpe",
    "norm": "transformer.ln_f",
    "unembed": "lm_head",
    **_layers(
        "blocks.*.",
        "transformer.h.*.",
        {
            "mixer_norm": "ln_1",
            "mixer.query": Turned("attn.c_attn"),
            "mixer.key": Turned("attn.c_attn"),
            "mixer.value": Turned("attn.c_attn"),
            "mixer.output": Turned("attn.c_proj"),
            "feedforward_norm": "ln_2",
            "feedforward.up": Turned("mlp.c_fc"),
            "feedforward.down": Turned("mlp.c_proj"),
        },
    ),
}

FAMILIES: dict[str, Family] = {
    "gpt2": Family("GPT2LMHeadModel", specs.gpt2, _GPT2, ("transformer.", ""), (r".*\.attn\.(masked_)?bias",)),
    "llama": Family("LlamaForCausalLM", specs.llama, _LLAMA),
    "mistral": Family("MistralForCausalLM", specs.mistral, _LLAMA),
    "mixtral": Family("MixtralForCausalLM", specs.mixtral, _MIXTRAL),
    "qwen2": Family("Qwen2ForCausalLM", specs.qwen2, _LLAMA),
    "qwen2_moe": Family("Qwen2MoeForCausalLM", specs.qwen2_moe, _QWEN2_MOE),
    "qwen3": Family("Qwen3ForCausalLM", specs.qwen3, _LLAMA),
    "qwen3_moe": Family("Qwen3MoeForCausalLM", specs.qwen3_moe, _QWEN3_MOE),
    "gemma2": Family("Gemma2ForCausalLM", specs.gemma2, _GEMMA),
    "gemma3_text": Family("Gemma3ForCausalLM", specs.gemma3, _GEMMA),
    "gemma3": Family(
        "Gemma3ForConditionalGeneration",
        specs.gemma3_with_images,
        _GEMMA,
        ("model.", "language_model.model.", "model.language_model."),
        (r".*rotary_emb\.inv_freq", r"(model\.)?(vision_tower|multi_modal_projector)\..*", r"(.*\.)?lm_head\.weight"),
    ),
    "phi3": Family("Phi3ForCausalLM", specs.phi3, _PHI3),
    "smollm3": Family("SmolLM3ForCausalLM", specs.smollm3, _LLAMA),
    "olmo2": Family("Olmo2ForCausalLM", specs.olmo2, _OLMO2),
}
"""The families that can be read, by the ``model_type`` of their configurations."""
