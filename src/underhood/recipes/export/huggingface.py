"""A folder that transformers, vLLM and whatever else speaks Hugging Face's format opens by itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file
from torch import Tensor

from underhood.core.checkpoint import module_tensors
from underhood.core.errors import UserError
from underhood.infer.load import TALK, Loaded
from underhood.models.decoder import Decoder, DecoderSpec
from underhood.models.qwen3 import qwen3_parts
from underhood.text.bpe import BytePairTokenizer
from underhood.text.chat import CHATML

FloatType = Literal["float32", "float16", "bfloat16"]

SHARD_BYTES = 2_000_000_000
"""Weights above this are cut into several files."""

_BLOCK = {
    "mixer_norm": "input_layernorm",
    "mixer.query": "self_attn.q_proj",
    "mixer.key": "self_attn.k_proj",
    "mixer.value": "self_attn.v_proj",
    "mixer.output": "self_attn.o_proj",
    "mixer.query_norm": "self_attn.q_norm",
    "mixer.key_norm": "self_attn.k_norm",
    "feedforward_norm": "post_attention_layernorm",
    "feedforward.gate": "mlp.gate_proj",
    "feedforward.up": "mlp.up_proj",
    "feedforward.down": "mlp.down_proj",
}
_OUTSIDE = {"embed": "model.embed_tokens", "norm": "model.norm", "unembed": "lm_head"}


def to_huggingface(spec: DecoderSpec) -> dict[str, Any]:
    """The architecture's part of ``config.json``.

    Raises:
        UserError: transformers has no class for such a model.
    """
    parts = qwen3_parts(spec)
    if parts is None:
        raise UserError("this model has no form in transformers", expected="the Qwen3 shape that underhood build makes")
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "vocab_size": spec.vocab_size,
        "hidden_size": spec.width,
        "intermediate_size": parts.hidden,
        "num_hidden_layers": spec.layers,
        "num_attention_heads": parts.heads,
        "num_key_value_heads": parts.kv_heads,
        "head_dim": parts.head_width,
        "hidden_act": "silu",
        "max_position_embeddings": spec.context,
        "rms_norm_eps": parts.eps,
        "rope_theta": parts.theta,
        "tie_word_embeddings": spec.tied,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "use_sliding_window": False,
    }


def export_tensors(model: Decoder) -> dict[str, Tensor]:
    """The model's weights under the names that transformers has for them; tied ones once."""
    return {_name(name): tensor for name, tensor in module_tensors(model).items()}


def _name(name: str) -> str:
    stem, _, kind = name.rpartition(".")
    if stem in _OUTSIDE:
        return f"{_OUTSIDE[stem]}.{kind}"
    _, layer, rest = stem.split(".", 2)
    return f"model.layers.{layer}.{_BLOCK[rest]}.{kind}"


def write_folder(folder: Path, loaded: Loaded, dtype: FloatType, *, shard_bytes: int = SHARD_BYTES) -> None:
    """Fills an empty folder with everything that opens the model; the card is not part of it.

    Raises:
        UserError: the model or its tokenizer has no form there.
    """
    tokenizer = loaded.tokenizer
    if not isinstance(tokenizer, BytePairTokenizer):
        raise UserError(
            "this tokenizer has no Hugging Face form", expected="a byte-level BPE", got=type(tokenizer).__name__
        )
    ids = special_ids(loaded)
    config = to_huggingface(loaded.spec) | {"torch_dtype": dtype} | ids
    _write_json(folder / "config.json", config)
    _write_json(folder / "generation_config.json", generation_config(loaded))
    tokenizer.save(folder / "tokenizer.json")
    _write_json(folder / "tokenizer_config.json", tokenizer_config(loaded))
    write_weights(folder, export_tensors(loaded.model), dtype, shard_bytes=shard_bytes)


def write_weights(folder: Path, tensors: Mapping[str, Tensor], dtype: FloatType, *, shard_bytes: int) -> None:
    """``model.safetensors``, or several files and their index where the weights exceed `shard_bytes`."""
    kind: torch.dtype = getattr(torch, dtype)
    held = next(iter(tensors.values())).dtype.itemsize  # the split counts what is held, files hold `kind`
    split = split_torch_state_dict_into_shards(dict(tensors), max_shard_size=shard_bytes * held // kind.itemsize)
    for file, names in split.filename_to_tensors.items():
        shard = {name: tensors[name].detach().to("cpu", kind).contiguous() for name in names}
        save_file(shard, folder / file, metadata={"format": "pt"})
    if split.is_sharded:
        size = sum(tensor.numel() for tensor in tensors.values()) * kind.itemsize
        index = {"metadata": {"total_size": size}, "weight_map": split.tensor_to_filename}
        _write_json(folder / "model.safetensors.index.json", index)


def special_ids(loaded: Loaded) -> dict[str, int | None]:
    """Ids of the tokens that begin, end and pad: an answer ends with its turn, a text with its document."""
    special = loaded.tokenizer.special
    text, turn = special.get(CHATML.end_of_text), special.get(CHATML.end)
    end = turn if loaded.chats and turn is not None else text
    return {"bos_token_id": text, "eos_token_id": end, "pad_token_id": text}


def tokenizer_config(loaded: Loaded) -> dict[str, Any]:
    """What ``tokenizer.json`` leaves open: which special token is which, and how a conversation is written."""
    ids, names = special_ids(loaded), {id: name for name, id in loaded.tokenizer.special.items()}
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": loaded.spec.context,
        "clean_up_tokenization_spaces": False,
    }
    for key in ("bos", "eos", "pad"):
        id = ids[f"{key}_token_id"]
        config[f"{key}_token"] = None if id is None else names[id]
    if loaded.chats:
        config["chat_template"] = CHATML.jinja
    return config


def generation_config(loaded: Loaded) -> dict[str, Any]:
    """How text is drawn where nothing else is said: as Underhood itself draws it, up to any token that ends a text."""
    ids: dict[str, Any] = {key: id for key, id in special_ids(loaded).items() if id is not None}
    stops = {"eos_token_id": loaded.stop_ids} if loaded.stop_ids else {}
    return ids | stops | {"do_sample": True, "temperature": TALK.temperature, "min_p": TALK.min_p}


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
