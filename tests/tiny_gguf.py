"""Tiny GGUF files for tests: a Llama of one layer around any vocabulary."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np

WIDTH, HIDDEN = 32, 32

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)


def write_tiny_llama(path: Path, tokenizer: Mapping[str, Any], rows: int, *, name: str = "tiny") -> Path:
    """A Llama with random weights and these tokenizer keys, e.g. ``{"ggml.model": "gpt2", "ggml.tokens": […]}``."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(name)
    writer.add_context_length(512)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_rope_dimension_count(WIDTH // 2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(rows)
    add = {str: writer.add_string, bool: writer.add_bool, int: writer.add_uint32, list: writer.add_array}
    for key, value in tokenizer.items():
        add[type(value)](f"tokenizer.{key}", value)
    random = np.random.default_rng(0)
    shapes = {"token_embd": (rows, WIDTH), "output_norm": (WIDTH,), "output": (rows, WIDTH)}
    block = {"attn_norm": (WIDTH,), "ffn_norm": (WIDTH,), "attn_q": (WIDTH, WIDTH), "attn_output": (WIDTH, WIDTH)}
    block |= {"attn_k": (WIDTH // 2, WIDTH), "attn_v": (WIDTH // 2, WIDTH)}
    block |= {"ffn_gate": (HIDDEN, WIDTH), "ffn_up": (HIDDEN, WIDTH), "ffn_down": (WIDTH, HIDDEN)}
    shapes |= {f"blk.0.{tensor}": shape for tensor, shape in block.items()}
    for tensor, shape in shapes.items():
        writer.add_tensor(f"{tensor}.weight", random.standard_normal(shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def metadata_of(path: Path) -> dict[str, Any]:
    """The keys of a GGUF file with plain Python values, by the gguf package."""
    return {key: field.contents() for key, field in gguf.GGUFReader(path).fields.items()}
