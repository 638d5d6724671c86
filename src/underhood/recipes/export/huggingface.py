"""A folder that transformers, vLLM and whatever else speaks Hugging Face's format opens by itself.

A model that was made here gets files of its own, as one of the family that computes the same (Qwen3, if `build` made
it). One that came from such a folder goes back with the configuration and the tokenizer files it came with, and its
weights as they are now.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file
from torch import Tensor

from underhood.core.errors import UserError
from underhood.infer.default_sampling import FIELDS
from underhood.infer.load import IMPORTED, LoadedModel
from underhood.infer.sample import PURE_SAMPLING
from underhood.infer.tokenizer_files import TOKENIZER_GGUF, MissingTokenizer, copy_tokenizer_files
from underhood.models.decoder import Decoder
from underhood.models.gguf_reader import is_gguf
from underhood.models.hub_export import to_huggingface
from underhood.models.hub_weights import Progress, layout
from underhood.models.huggingface import Family, family_of, spec_from_config
from underhood.models.published import is_published, published_config
from underhood.text.bpe import BytePairTokenizer
from underhood.text.chat import CHATML
from underhood.text.files import read_json
from underhood.text.huggingface import HuggingFaceTokenizer
from underhood.text.sentencepiece import SentencePieceTokenizer
from underhood.text.sentencepiece_json import sentencepiece_json

FloatType = Literal["float32", "float16", "bfloat16"]

SHARD_BYTES = 2_000_000_000
"""Weights above this are cut into several files."""


def write_folder(
    folder: Path,
    loaded: LoadedModel,
    dtype: FloatType,
    *,
    shard_bytes: int = SHARD_BYTES,
    progress: Progress | None = None,
) -> None:
    """Fills an empty folder with everything that opens the model; the card is not part of it.

    Raises:
        UserError: the model or its tokenizer has no form there.
    """
    origin, config = origin_of(loaded), config_for(loaded)
    if origin is None or is_gguf(loaded.run) or (loaded.run / TOKENIZER_GGUF).exists():
        config |= special_ids(loaded)
        _write_voice(folder, loaded)
    else:
        copy_tokenizer_files(loaded.run, folder)
    _write_json(folder / "config.json", config | {"torch_dtype": dtype})
    write_weights(folder, loaded.decoder, family_of(config), dtype, shard_bytes=shard_bytes, progress=progress)


def config_for(loaded: LoadedModel) -> dict[str, Any]:
    """What ``config.json`` says about the architecture: the one that the model came with, or the family that has the
    function of a model made here.

    Raises:
        UserError: no family has it, or surgery has made another model of a published one.
    """
    origin = origin_of(loaded)
    if origin is None:
        return to_huggingface(loaded.decoder.spec)
    if spec_from_config(origin, context_length=loaded.spec.context_length) != loaded.spec:
        raise UserError(f"the model in {loaded.run} is no longer what its configuration says, so it has no form")
    return {key: value for key, value in origin.items() if key != "dtype"}


def origin_of(loaded: LoadedModel) -> dict[str, Any] | None:
    """The configuration that a published model came with; None for a model that was made here."""
    if (loaded.run / IMPORTED).exists():
        return read_json(loaded.run / IMPORTED)["config"]
    return published_config(loaded.path) if is_published(loaded.path) else None


def write_weights(
    folder: Path,
    model: Decoder,
    family: Family,
    dtype: FloatType,
    *,
    shard_bytes: int,
    progress: Progress | None = None,
) -> None:
    """``model.safetensors``, or several files and their index where the weights exceed `shard_bytes`.

    Only one file's tensors are copied at a time. `progress` is told the bytes before and after each file.
    """
    kind: torch.dtype = getattr(torch, dtype)
    parameters = dict(model.named_parameters())
    stored = {entry.name: entry for entry in layout(model, family)}
    sizes = {name: torch.empty(entry.shape(parameters), dtype=kind, device="meta") for name, entry in stored.items()}
    split = split_torch_state_dict_into_shards(sizes, max_shard_size=shard_bytes)
    total, done = sum(entry.nbytes for entry in sizes.values()), 0
    for file, names in split.filename_to_tensors.items():
        if progress is not None:
            progress(done, total)
        shard = {name: _on_disk(stored[name].joined(parameters), kind) for name in names}
        save_file(shard, folder / file, metadata={"format": "pt"})
        done += sum(sizes[name].nbytes for name in names)
    if progress is not None:
        progress(done, total)
    if split.is_sharded:
        index = {"metadata": {"total_size": total}, "weight_map": split.tensor_to_filename}
        _write_json(folder / "model.safetensors.index.json", index)


def special_ids(loaded: LoadedModel) -> dict[str, int | None]:
    """Ids of the tokens that begin, end and pad: an answer ends with its turn, a text with its document.

    Those of a published model are what its own files say.
    """
    if loaded.roles is not None:
        ends = loaded.stop_ids if loaded.template is None else loaded.template.stop_ids(loaded.tokenizer)
        return {
            "bos_token_id": loaded.roles.bos_id,
            "eos_token_id": ends[0] if ends else None,
            "pad_token_id": loaded.roles.pad_id,
        }
    special = loaded.tokenizer.special
    text, turn = special.get(CHATML.end_of_text), special.get(CHATML.end)
    end = turn if loaded.chats and turn is not None else text
    return {"bos_token_id": text, "eos_token_id": end, "pad_token_id": text}


def tokenizer_config(loaded: LoadedModel) -> dict[str, Any]:
    """What ``tokenizer.json`` leaves open: which special token is which, and how a conversation is written."""
    ids, names = special_ids(loaded), {id: name for name, id in loaded.tokenizer.special.items()}
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": loaded.spec.context_length,
        "clean_up_tokenization_spaces": False,
    }
    for key in ("bos", "eos", "pad"):
        id = ids[f"{key}_token_id"]
        config[f"{key}_token"] = None if id is None else names[id]
    if loaded.template is not None:
        config["chat_template"] = loaded.template.jinja
    return config


def generation_config(loaded: LoadedModel) -> dict[str, Any]:
    """How text is drawn where nothing else is said: as Underhood itself draws it, up to any token that ends a text."""
    ids: dict[str, Any] = {key: id for key, id in special_ids(loaded).items() if id is not None}
    stops = {"eos_token_id": loaded.stop_ids} if loaded.stop_ids else {}
    sampling = loaded.default_sampling(answers=True)
    if sampling.greedy:
        return ids | stops | {"do_sample": False}
    named = {name: value for name in FIELDS if (value := getattr(sampling, name)) != getattr(PURE_SAMPLING, name)}
    return ids | stops | {"do_sample": True} | named


def _write_voice(folder: Path, loaded: LoadedModel) -> None:
    tokenizer = loaded.tokenizer
    if isinstance(tokenizer, MissingTokenizer):
        raise tokenizer.error
    if isinstance(tokenizer, SentencePieceTokenizer):
        _write_json(folder / "tokenizer.json", sentencepiece_json(tokenizer))
    elif isinstance(tokenizer, (BytePairTokenizer, HuggingFaceTokenizer)):
        tokenizer.save(folder / "tokenizer.json")
    else:
        got = type(tokenizer).__name__
        raise UserError("this tokenizer has no Hugging Face form", expected="BPE", got=got)
    _write_json(folder / "tokenizer_config.json", tokenizer_config(loaded))
    _write_json(folder / "generation_config.json", generation_config(loaded))


def _on_disk(tensor: Tensor, kind: torch.dtype) -> Tensor:
    return tensor.detach().to("cpu", kind).contiguous()


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
