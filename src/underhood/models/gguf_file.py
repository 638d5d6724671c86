"""GGUF: one file with weights, vocabulary and settings, which llama.cpp and what is built on it read.

The format is llama.cpp's; the ``gguf`` package writes its bytes. What is decided here is what goes in: which of
llama.cpp's architectures this model is (``qwen3``, the shape that `underhood build` makes, or ``llama``, that of Llama,
Mistral and SmolLM2), the names of the tensors, how each is stored, and how the tokenizer cuts text. llama.cpp rotates
Qwen3's queries and keys in half-split pairs, as we do. In a ``llama`` it rotates neighbours, so their rows are put into
that order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType
from torch import Tensor

from underhood.core.checkpoint import module_tensors
from underhood.core.errors import UserError
from underhood.models.decoder import Decoder
from underhood.models.gguf_names import gguf_name, half_split_order
from underhood.models.hub_export import config_of
from underhood.models.hub_weights import Progress

GGUFType = Literal["f32", "f16", "bf16", "q8_0"]

_STORED = {
    "f32": (GGMLQuantizationType.F32, LlamaFileType.ALL_F32),
    "f16": (GGMLQuantizationType.F16, LlamaFileType.MOSTLY_F16),
    "bf16": (GGMLQuantizationType.BF16, LlamaFileType.MOSTLY_BF16),
    "q8_0": (GGMLQuantizationType.Q8_0, LlamaFileType.MOSTLY_Q8_0),
}

ARCHITECTURES = ("qwen3", "llama")
"""llama.cpp's architectures that can be written; their names are those of Hugging Face's families, too."""

ROTATES_NEIGHBOURS = ("llama",)

_KEYS = (
    "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads head_dim "
    "max_position_embeddings rms_norm_eps rope_theta tie_word_embeddings"
)
"""What llama.cpp asks about them: a model that needs more than these numbers is another one."""


@dataclass(frozen=True, kw_only=True)
class Naming:
    """What a GGUF file says about itself beside the model.

    Attributes:
        name: the model's name.
        description: a sentence for people.
        chat_template: Jinja text, or None for a model that does not chat.
        bos_id, eos_id, pad_id: tokens that open, end and fill a text, or None.
        turn_id: token that ends an answer; None for a model that does not chat.
        opens: whether llama.cpp puts `bos_id` before each text by itself.
    """

    name: str
    description: str = ""
    chat_template: str | None = None
    bos_id: int | None = None
    eos_id: int | None = None
    pad_id: int | None = None
    turn_id: int | None = None
    opens: bool = False


def write_gguf(
    path: Path,
    model: Decoder,
    vocabulary: Mapping[str, Any],
    naming: Naming,
    stored: GGUFType,
    progress: Progress | None = None,
) -> None:
    """Writes the model as one GGUF file. Norms stay float32, as llama.cpp keeps them; matrices take `stored`.

    A matrix whose row length is not a multiple of 32 has no q8_0 form and becomes f16, as llama.cpp's own tools do.
    `progress` is told after each tensor. `vocabulary` is what `text.gguf_keys` makes of a tokenizer.

    Raises:
        UserError: llama.cpp has no architecture of this kind.
    """
    architecture, config = gguf_architecture(model)
    kind, file_type = _STORED[stored]
    writer = GGUFWriter(path, architecture)
    writer.add_name(naming.name)
    if naming.description:
        writer.add_description(naming.description)
    writer.add_context_length(model.spec.context_length)
    writer.add_embedding_length(model.spec.d_model)
    writer.add_block_count(model.spec.layers)
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(model.spec.vocab_size)
    writer.add_file_type(file_type)
    if stored == "q8_0":
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _add_tokenizer(writer, vocabulary, naming)
    tensors = module_tensors(model)
    heads = {"query": config["num_attention_heads"], "key": config["num_key_value_heads"]}
    for name, tensor in tensors.items():
        how = _kind(tensor, kind)
        block, size = gguf.GGML_QUANT_SIZES[how]
        as_float = np.dtype(np.float32)  # `how` overrules it; other types mean that shapes are counted in bytes
        writer.add_tensor_info(gguf_name(name), tensor.shape, as_float, tensor.numel() // block * size, raw_dtype=how)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        done, total = 0, sum(tensor.nbytes for tensor in tensors.values())
        for name, tensor in tensors.items():  # one at a time: a large model is never in memory twice
            if progress is not None:
                progress(done, total)
            # NumPy has no bfloat16, so a half-precision model takes the way over float32.
            array = tensor.detach().to("cpu", torch.float32).numpy()
            projection = name.split(".")[-2]
            if architecture in ROTATES_NEIGHBOURS and projection in heads and ".mixer." in name:
                array = array[np.argsort(half_split_order(heads[projection], len(array)))]
            writer.write_tensor_data(gguf.quantize(array, _kind(tensor, kind)))
            done += tensor.nbytes
        if progress is not None:
            progress(done, total)
    finally:
        writer.close()


def gguf_architecture(model: Decoder) -> tuple[str, dict[str, Any]]:
    """llama.cpp's architecture for a model, and its numbers under Hugging Face's names.

    Raises:
        UserError: there is none.
    """
    for architecture in ARCHITECTURES:
        config = config_of(model.spec, architecture, _KEYS)
        if config is not None:
            return architecture, config
    raise UserError(
        "this model has no GGUF form",
        expected="the Qwen3 shape that underhood build makes, or the shape of a Llama, Mistral or SmolLM2",
        fix="Export it with --format hf",
    )


def _kind(tensor: Tensor, wanted: GGMLQuantizationType) -> GGMLQuantizationType:
    """How a tensor is stored."""
    if tensor.ndim == 1:
        return GGMLQuantizationType.F32
    return GGMLQuantizationType.F16 if tensor.shape[-1] % gguf.GGML_QUANT_SIZES[wanted][0] else wanted


def _add_tokenizer(writer: GGUFWriter, keys: Mapping[str, Any], naming: Naming) -> None:
    """The vocabulary and the ids of its special tokens."""
    writer.add_tokenizer_model(keys["model"])
    writer.add_tokenizer_pre(keys["pre"])
    writer.add_token_list(keys["tokens"])
    writer.add_token_types(keys["token_type"])
    if "scores" in keys:
        writer.add_token_scores(keys["scores"])
        writer.add_add_space_prefix(keys["add_space_prefix"])
    else:
        writer.add_token_merges(keys["merges"])
    for add, id in (
        (writer.add_bos_token_id, naming.bos_id),
        (writer.add_eos_token_id, naming.eos_id),
        (writer.add_pad_token_id, naming.pad_id),
        (writer.add_eot_token_id, naming.turn_id),
    ):
        if id is not None:
            add(id)
    writer.add_add_bos_token(naming.opens)
    if naming.chat_template is not None:
        writer.add_chat_template(naming.chat_template)
