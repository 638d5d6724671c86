"""Sampling that a GGUF file names in its keys, as llama.cpp writes them."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

from underhood.infer.default_sampling import named_sampling


def write_gguf(path: Path, **keys: float) -> Path:
    writer = gguf.GGUFWriter(path, "llama")
    for name, value in keys.items():
        key = f"general.sampling.{name}"
        if isinstance(value, int):
            writer.add_int32(key, value)
        else:
            writer.add_float32(key, value)
    writer.add_tensor("token_embd.weight", np.zeros((4, 4), np.float32))
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        step()
    writer.close()
    return path


def test_named_sampling_of_a_gguf_file_is_that_of_its_keys(tmp_path: Path):
    file = write_gguf(tmp_path / "named.gguf", temp=0.5, top_k=40, min_p=0.25, penalty_repeat=1.5)
    assert named_sampling(file) == {"temperature": 0.5, "top_k": 40, "min_p": 0.25, "repetition_penalty": 1.5}


def test_named_sampling_of_a_gguf_file_without_keys_is_nothing(tmp_path: Path):
    assert named_sampling(write_gguf(tmp_path / "plain.gguf")) == {}
