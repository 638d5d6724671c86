"""GGUF files read as the gguf package reads them, and damaged ones refused in a sentence."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFReader, GGUFWriter

from underhood.core.errors import UserError
from underhood.models.gguf_reader import dequantizes, read_gguf
from underhood.models.gguf_tensor import CHUNK_VALUES, GGUFTensor

UNREADABLE = {"Q8_1", "Q8_K", "I8", "I16", "I32", "I64", "F64", "Q1_0"}
"""Types that gguf 0.19 does not dequantise: intermediate results, whole numbers and doubles."""


def write(path: Path, fill: Callable[[GGUFWriter], None], **options: Any) -> Path:
    writer = GGUFWriter(path, "llama", **options)
    fill(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def metadata_and_tensors(writer: GGUFWriter) -> None:
    writer.add_name("ein Größenwahn")
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_add_bos_token(True)
    writer.add_token_list(["a", "Ġb", "日本"])
    writer.add_token_scores([-1.5, 0.0, 2.25])
    writer.add_token_types([1, 3, 6])
    writer.add_uint64("llama.big", 2**40)
    writer.add_int8("llama.small", -3)
    writer.add_array("llama.flags", [True, False])
    noise = np.random.default_rng(0).normal(size=(6, 64)).astype(np.float32)
    writer.add_tensor("first", noise)
    writer.add_tensor("second", noise[:3].astype(np.float16))
    q4 = gguf.quantize(noise, GGMLQuantizationType.Q4_0)
    writer.add_tensor("third", q4, raw_dtype=GGMLQuantizationType.Q4_0)
    writer.add_tensor("experts", noise.reshape(2, 3, 64))
    writer.add_tensor("vector", noise[0])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "small.gguf", metadata_and_tensors)


def test_metadata_and_tensors_match_the_gguf_package(file: Path) -> None:
    ours, theirs = read_gguf(file), GGUFReader(file)
    expected = {name: field.contents() for name, field in theirs.fields.items() if not name.startswith("GGUF.")}
    assert list(ours.metadata) == list(expected)
    for key, value in expected.items():
        assert ours.metadata[key] == (pytest.approx(value) if isinstance(value, float) else value), key
    assert ours.metadata["llama.attention.layer_norm_rms_epsilon"] == 1e-5  # not 9.99999974e-06
    assert [tensor.name for tensor in theirs.tensors] == list(ours.tensors)
    for tensor in theirs.tensors:
        values = gguf.dequantize(tensor.data, tensor.tensor_type)
        assert np.array_equal(ours.tensors[tensor.name].dequantize().numpy(), values)
    assert ours.architecture == "llama"
    assert ours.parameters()["big"] == 2**40


@pytest.mark.parametrize("kind", GGMLQuantizationType, ids=lambda kind: kind.name)
def test_every_type_is_dequantised_as_by_the_gguf_package_or_refused_by_name(
    kind: GGMLQuantizationType, tmp_path: Path
) -> None:
    block, size = GGML_QUANT_SIZES[kind]
    rows, columns = 70, 4 * block  # more rows than are dequantised together
    raw = np.random.default_rng(1).integers(0, 256, (rows, 4 * size), dtype=np.uint8)
    raw[:, 1::2] &= 0x3B  # keeps 16-bit scales finite
    entry = _file_with(tmp_path, kind, (rows, columns), raw)
    if kind.name in UNREADABLE:
        with pytest.raises(UserError, match=rf"'weight' is of the type {kind.name}, which can't be read"):
            read_gguf(entry)
        assert not dequantizes(kind)
        return
    tensor = read_gguf(entry).tensors["weight"]
    if kind == GGMLQuantizationType.BF16:
        expected = torch.from_numpy(raw.copy()).view(torch.bfloat16).float().numpy()
    else:
        with np.errstate(all="ignore"):
            expected = gguf.dequantize(raw, kind)
    values = tensor.dequantize().numpy()
    assert values.shape == (rows, columns)
    assert np.array_equal(values, expected.reshape(rows, columns), equal_nan=True)
    order = np.random.default_rng(2).permutation(rows)
    assert np.array_equal(tensor.rows(order).dequantize().numpy(), values[order], equal_nan=True)
    assert np.array_equal(tensor.rows(slice(3, 9)).dequantize().numpy(), values[3:9], equal_nan=True)


def _file_with(folder: Path, kind: GGMLQuantizationType, shape: tuple[int, int], raw: np.ndarray) -> Path:
    def fill(writer: GGUFWriter) -> None:
        writer.add_tensor_info("weight", shape, np.dtype(np.float32), raw.nbytes, raw_dtype=kind)

    path = folder / "typed.gguf"
    writer = GGUFWriter(path, "llama")
    fill(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.write_tensor_data(raw)
    writer.close()
    return path


def test_tensor_larger_than_a_chunk_is_dequantised_whole_and_shifted() -> None:
    rows = CHUNK_VALUES // 64 + 3
    values = np.random.default_rng(3).normal(size=(rows, 64)).astype(np.float32)
    blocks = gguf.quantize(values, GGMLQuantizationType.Q8_0)
    tensor = GGUFTensor("big", GGMLQuantizationType.Q8_0, (rows, 64), blocks, shift=-1.0)
    assert len(list(tensor.chunks())) == 2
    assert np.array_equal(tensor.dequantize().numpy(), gguf.dequantize(blocks, GGMLQuantizationType.Q8_0) - 1)


def test_split_file_equals_the_whole_from_any_of_its_files(file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "split"
    folder.mkdir()
    write(folder / "small.gguf", metadata_and_tensors, split_max_tensors=2)
    shards = sorted(folder.glob("*.gguf"))
    assert [shard.name for shard in shards] == [f"small-0000{n}-of-00003.gguf" for n in (1, 2, 3)]
    whole = read_gguf(file)
    for shard in shards:
        joined = read_gguf(shard)
        assert joined.path == shards[0]
        assert list(joined.tensors) == list(whole.tensors)
        assert {k: v for k, v in joined.metadata.items() if not k.startswith("split.")} == whole.metadata
        for name, tensor in whole.tensors.items():
            assert torch.equal(joined.tensors[name].dequantize(), tensor.dequantize())
    moved = shards[1].rename(tmp_path / "elsewhere.gguf")
    with pytest.raises(UserError, match=r"small-00002-of-00003\.gguf is missing\. small-00003-of-00003\.gguf is one f"):
        read_gguf(shards[2])
    with pytest.raises(UserError, match=r"elsewhere\.gguf is one file of 3"):
        read_gguf(moved)


def test_file_cut_anywhere_is_refused_in_a_sentence(file: Path, tmp_path: Path) -> None:
    data = file.read_bytes()
    short = tmp_path / "short.gguf"
    for length in [*range(0, 900, 7), len(data) - 4000, len(data) - 65, len(data) - 33]:
        short.write_bytes(data[:length])
        with pytest.raises(UserError) as error:
            read_gguf(short)
        assert "\n" not in str(error.value)
        assert "short.gguf" in str(error.value)


def test_damaged_header_is_refused_or_read_but_never_fails_otherwise(file: Path, tmp_path: Path) -> None:
    data = bytearray(file.read_bytes())
    rng = np.random.default_rng(4)
    spoilt = tmp_path / "spoilt.gguf"
    messages = []
    for _ in range(400):
        copy = bytearray(data)
        for at in rng.integers(0, 900, rng.integers(1, 4)):
            copy[at] = rng.integers(0, 256)
        spoilt.write_bytes(copy)
        try:
            read_gguf(spoilt)
        except UserError as error:
            messages.append(str(error))
    assert len(messages) > 100
    assert not any("\n" in message for message in messages)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ((0, b"GGML"), "is not a GGUF file"),
        ((4, struct.pack("<I", 1)), "expected version 2 or 3, got version 1"),
        ((4, struct.pack(">I", 3)), "expected version 2 or 3, got a big-endian file"),
    ],
)
def test_other_kinds_of_file_are_refused(file: Path, change: tuple[int, bytes], message: str) -> None:
    data = bytearray(file.read_bytes())
    at, value = change
    data[at : at + len(value)] = value
    file.write_bytes(data)
    with pytest.raises(UserError, match=message):
        read_gguf(file)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*nothing\.gguf: No such file"):
        read_gguf(tmp_path / "nothing.gguf")
