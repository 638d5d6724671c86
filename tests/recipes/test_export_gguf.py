"""What `underhood export --format gguf` writes, read back by the gguf package and by transformers.

That llama.cpp itself opens the file and writes the same tokens is tested in `test_export_llama_cpp`.
"""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from export_run import TEXT, export_run

from text.published_templates import STYLES
from underhood.core.checkpoint import module_tensors
from underhood.infer.load import load
from underhood.models.gguf_names import gguf_name
from underhood.models.hub_weights import layout
from underhood.models.huggingface import FAMILIES
from underhood.recipes.export.export import export
from underhood.text.chat import CHATML
from underhood.text.vocabulary import spell


def read(path: Path) -> tuple[dict[str, object], dict[str, gguf.ReaderTensor]]:
    reader = gguf.GGUFReader(path)
    return {key: field.contents() for key, field in reader.fields.items()}, {
        tensor.name: tensor for tensor in reader.tensors
    }


@pytest.mark.parametrize("tied", [False, True])
def test_tensor_names_match_the_gguf_package_for_qwen3(tmp_path: Path, tied: bool):
    """The package knows both Hugging Face's names and llama.cpp's; ours must match its names for our export."""
    model = load(export_run(tmp_path / "run", tied=tied)).model
    table = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN3, model.spec.layers)
    ours = {name: gguf_name(name) for name in module_tensors(model)}
    names = {name: stored.name for stored in layout(model, FAMILIES["qwen3"]) for name in stored.parts}
    theirs = {name: table.get_name(names[name], try_suffixes=(".weight",)) for name in ours}
    assert ours == theirs
    assert ("output.weight" in theirs.values()) is not tied


def test_f32_file_holds_every_weight_bit_for_bit(tmp_path: Path):
    run = export_run(tmp_path / "run")
    _, tensors = read(export(run, "gguf", dtype="f32").path)
    wanted = {gguf_name(name): tensor for name, tensor in module_tensors(load(run).model).items()}
    assert tensors.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert tensors[name].tensor_type == gguf.GGMLQuantizationType.F32
        assert list(reversed(tensors[name].shape.tolist())) == list(tensor.shape)
        np.testing.assert_array_equal(tensors[name].data, tensor.numpy())


@pytest.mark.parametrize(("dtype", "kind"), [("f16", torch.float16), ("bf16", torch.bfloat16)])
def test_half_precision_rounds_matrices_once_and_keeps_norms(tmp_path: Path, dtype: str, kind: torch.dtype):
    run = export_run(tmp_path / "run")
    facts, tensors = read(export(run, "gguf", dtype=dtype).path)
    for name, tensor in module_tensors(load(run).model).items():
        held = tensors[gguf_name(name)]
        if tensor.ndim == 1:
            np.testing.assert_array_equal(held.data, tensor.numpy())
        else:
            actual = torch.from_numpy(np.array(held.data)).view(kind).reshape(tensor.shape)
            assert torch.equal(actual, tensor.to(kind))
    assert facts["general.file_type"] == {"f16": 1, "bf16": 32}[dtype]


def test_q8_0_file_rounds_blocks_of_32_matches_the_definition(tmp_path: Path):
    """Each 32 values of a row: a half-precision scale, the largest magnitude / 127, and 32 signed bytes."""
    run = export_run(tmp_path / "run")
    facts, tensors = read(export(run, "gguf", dtype="q8_0").path)
    for name, tensor in module_tensors(load(run).model).items():
        held = tensors[gguf_name(name)]
        if tensor.ndim == 1:
            assert held.tensor_type == gguf.GGMLQuantizationType.F32
            continue
        assert held.tensor_type == gguf.GGMLQuantizationType.Q8_0
        blocks = tensor.numpy().reshape(-1, 32)
        scale = np.abs(blocks).max(axis=1, keepdims=True) / np.float32(127)
        raw = np.ascontiguousarray(held.data).reshape(-1, 34)
        np.testing.assert_array_equal(raw[:, :2].copy().view(np.float16), scale.astype(np.float16))
        bytes_ = raw[:, 2:].copy().view(np.int8).astype(np.float32)
        assert np.abs(bytes_ * scale - blocks).max() <= scale.max() / 2 * 1.001
        assert (np.abs(bytes_ * scale - blocks) <= scale / 2 * 1.001).all()
    assert facts["general.quantization_version"] == gguf.GGML_QUANT_VERSION
    assert facts["general.file_type"] == 7


def test_q8_0_falls_back_to_f16_where_rows_are_no_multiple_of_32(tmp_path: Path):
    run = export_run(tmp_path / "run", width=48)
    _, tensors = read(export(run, "gguf", dtype="q8_0").path)
    assert tensors["token_embd.weight"].tensor_type == gguf.GGMLQuantizationType.F16  # rows of 48
    assert tensors["blk.0.ffn_down.weight"].tensor_type == gguf.GGMLQuantizationType.Q8_0  # rows of 96


def test_file_says_what_the_model_is(tmp_path: Path):
    run = export_run(tmp_path / "run")
    facts, _ = read(export(run, "gguf").path)
    spec = load(run).spec
    wanted = {
        "general.architecture": "qwen3",
        "general.name": "run-sft",
        "qwen3.context_length": 160,
        "qwen3.embedding_length": 64,
        "qwen3.block_count": 3,
        "qwen3.feed_forward_length": 96,
        "qwen3.attention.head_count": 4,
        "qwen3.attention.head_count_kv": 2,
        "qwen3.attention.key_length": 32,
        "qwen3.attention.value_length": 32,
        "qwen3.rope.freq_base": 3000.0,
        "qwen3.attention.layer_norm_rms_epsilon": pytest.approx(1e-4),
        "qwen3.vocab_size": spec.vocab_size,
    }
    assert {key: facts[key] for key in wanted} == wanted


@pytest.mark.parametrize(("pattern", "pre"), [("qwen2", "qwen2"), ("llama3", "llama-bpe"), ("gpt2", "gpt-2")])
def test_file_holds_the_tokenizer(tmp_path: Path, pattern: str, pre: str):
    run = export_run(tmp_path / "run", pattern=pattern)
    facts, _ = read(export(run, "gguf").path)
    tokenizer = load(run).tokenizer
    vocabulary = tokenizer.vocabulary  # type: ignore[attr-defined]
    normal = {id: spell(token) for token, id in vocabulary.ids.items()}
    special = {id: name for name, id in tokenizer.special.items()}
    assert facts["tokenizer.ggml.model"] == "gpt2"
    assert facts["tokenizer.ggml.pre"] == pre
    assert dict(enumerate(facts["tokenizer.ggml.tokens"])) == normal | special  # type: ignore[arg-type]
    assert [id for id, kind in enumerate(facts["tokenizer.ggml.token_type"]) if kind == 3] == sorted(special)  # type: ignore[arg-type]
    assert facts["tokenizer.ggml.merges"] == [f"{spell(left)} {spell(right)}" for left, right in vocabulary.merges]
    ids = {key: facts[f"tokenizer.ggml.{key}_token_id"] for key in ("bos", "eos", "eot", "padding")}
    text, turn = tokenizer.special["<|endoftext|>"], tokenizer.special["<|im_end|>"]
    assert ids == {"bos": text, "eos": turn, "eot": turn, "padding": text}
    assert facts["tokenizer.ggml.add_bos_token"] is False
    assert facts["tokenizer.chat_template"] == CHATML.jinja


def test_base_file_has_no_chat_template_and_ends_with_its_document(tmp_path: Path):
    run = export_run(tmp_path / "run")
    facts, _ = read(export(run, "gguf", stage="base").path)
    assert "tokenizer.chat_template" not in facts
    assert "tokenizer.ggml.eot_token_id" not in facts
    assert facts["tokenizer.ggml.eos_token_id"] == load(run).tokenizer.special["<|endoftext|>"]


def test_file_of_a_published_model_has_its_own_template_and_ends(tmp_path: Path):
    folder = export(export_run(tmp_path / "run")).path
    says = json.loads((folder / "tokenizer_config.json").read_text())
    says |= {"chat_template": STYLES["qwen3"].source, "bos_token": None, "eos_token": "<|im_end|>", "pad_token": None}
    (folder / "tokenizer_config.json").write_text(json.dumps(says))
    facts, _ = read(export(folder, "gguf").path)
    special = load(folder).tokenizer.special
    assert facts["tokenizer.chat_template"] == STYLES["qwen3"].source != CHATML.jinja
    assert facts["tokenizer.ggml.eos_token_id"] == facts["tokenizer.ggml.eot_token_id"] == special["<|im_end|>"]
    assert not {"tokenizer.ggml.bos_token_id", "tokenizer.ggml.padding_token_id"} & facts.keys()


def test_transformers_reads_the_file_as_our_model(tmp_path: Path):
    """transformers has a reader of its own for GGUF: an independent word on names, numbers, layout and vocabulary.

    It takes the width of Qwen3's heads to be 128 whatever the file says, so that is what they are here.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    run = export_run(tmp_path / "run", head_dim=128)
    made = export(run, "gguf", dtype="f32")
    loaded = load(run)
    theirs = AutoModelForCausalLM.from_pretrained(made.path.parent, gguf_file=made.path.name).eval()
    tokens_BT = torch.randint(loaded.spec.vocab_size, (2, 90), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        ours_BTV, theirs_BTV = loaded.model(tokens_BT), theirs(tokens_BT).logits
    assert float((ours_BTV - theirs_BTV).abs().max() / ours_BTV.abs().max()) < 1e-5
    tokenizer = AutoTokenizer.from_pretrained(made.path.parent, gguf_file=made.path.name)
    for text in TEXT:
        assert tokenizer.encode(text) == loaded.tokenizer.encode(text)
