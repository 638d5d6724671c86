"""A folder that transformers, vLLM and whatever else speaks Hugging Face's format opens by itself.

A model that was made here is a Qwen3 and gets files of its own. One that came from such a folder goes back with the
configuration and the tokenizer files it came with, and its weights as they are now.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file
from torch import Tensor

from underhood.core.errors import UserError
from underhood.infer.importing import BESIDE
from underhood.infer.load import IMPORTED, TALK, Loaded
from underhood.models.decoder import Decoder, DecoderSpec
from underhood.models.hub_weights import layout, read_config
from underhood.models.huggingface import FAMILIES, Family, family_of, spec_from_config
from underhood.models.qwen3 import qwen3_parts
from underhood.text.bpe import BytePairTokenizer
from underhood.text.chat import CHATML
from underhood.text.files import read_json

FloatType = Literal["float32", "float16", "bfloat16"]

SHARD_BYTES = 2_000_000_000
"""Weights above this are cut into several files."""


def write_folder(folder: Path, loaded: Loaded, dtype: FloatType, *, shard_bytes: int = SHARD_BYTES) -> None:
    """Fills an empty folder with everything that opens the model; the card is not part of it.

    Raises:
        UserError: the model or its tokenizer has no form there.
    """
    origin = origin_of(loaded)
    if origin is None:
        family, config = FAMILIES["qwen3"], to_huggingface(loaded.spec) | special_ids(loaded)
        _write_voice(folder, loaded)
    else:
        family, config = family_of(origin), {key: value for key, value in origin.items() if key != "dtype"}
        if spec_from_config(origin, context=loaded.spec.context) != loaded.spec:
            raise UserError(f"the model in {loaded.run} is no longer what its configuration says, so it has no form")
        for name in BESIDE:
            if (loaded.run / name).exists():
                shutil.copyfile(loaded.run / name, folder / name)
    _write_json(folder / "config.json", config | {"torch_dtype": dtype})
    write_weights(folder, loaded.model, family, dtype, shard_bytes=shard_bytes)


def origin_of(loaded: Loaded) -> dict[str, Any] | None:
    """The configuration that a published model came with; None for a model that was made here."""
    if (loaded.run / IMPORTED).exists():
        return read_json(loaded.run / IMPORTED)["config"]
    return read_config(loaded.path) if (loaded.path / "config.json").exists() else None


def to_huggingface(spec: DecoderSpec) -> dict[str, Any]:
    """The architecture's part of ``config.json`` for a model that was made here.

    Raises:
        UserError: transformers has no class for such a model.
    """
    parts = qwen3_parts(spec)
    if parts is None:
        raise UserError("this model has no form in transformers", expected="the Qwen3 shape that underhood build makes")
    return {
        "architectures": [FAMILIES["qwen3"].architecture],
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


def write_weights(folder: Path, model: Decoder, family: Family, dtype: FloatType, *, shard_bytes: int) -> None:
    """``model.safetensors``, or several files and their index where the weights exceed `shard_bytes`.

    Only one file's tensors are copied at a time.
    """
    kind: torch.dtype = getattr(torch, dtype)
    parameters = dict(model.named_parameters())
    stored = {one.name: one for one in layout(model, family)}
    sizes = {name: torch.empty(one.shape(parameters), dtype=kind, device="meta") for name, one in stored.items()}
    split = split_torch_state_dict_into_shards(sizes, max_shard_size=shard_bytes)
    for file, names in split.filename_to_tensors.items():
        shard = {name: _on_disk(stored[name].joined(parameters), kind) for name in names}
        save_file(shard, folder / file, metadata={"format": "pt"})
    if split.is_sharded:
        size = sum(one.nbytes for one in sizes.values())
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


def _write_voice(folder: Path, loaded: Loaded) -> None:
    tokenizer = loaded.tokenizer
    if not isinstance(tokenizer, BytePairTokenizer):
        got = type(tokenizer).__name__
        raise UserError("this tokenizer has no Hugging Face form", expected="a byte-level BPE", got=got)
    tokenizer.save(folder / "tokenizer.json")
    _write_json(folder / "tokenizer_config.json", tokenizer_config(loaded))
    _write_json(folder / "generation_config.json", generation_config(loaded))


def _on_disk(tensor: Tensor, kind: torch.dtype) -> Tensor:
    return tensor.detach().to("cpu", kind).contiguous()


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
