"""GGUF files of every architecture compute what the transformers models compute that they were made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter, quantize
from gguf_peers import GGUF_PEERS, PERMUTED, add_metadata, permute, write_gguf_peer
from hf_peers import LLAMA3, make_model, relative, tokens_of

from underhood.core.errors import UserError
from underhood.models import gguf_names, gguf_weights
from underhood.models.gguf_config import ARCHITECTURES
from underhood.models.gguf_reader import GGUFFile, read_gguf
from underhood.models.gguf_tensor import GGUFTensor
from underhood.models.gguf_weights import exact_dtype, gguf_parameters, load_gguf
from underhood.nn.rope_scaling import Llama3Scaling, LongRopeScaling

TOLERANCE = 1e-4
UNREAD_BY_TRANSFORMERS = {"mistral", "mixtral", "olmo2", "smollm3"}
"""Models that transformers 5.23 does not read from GGUF; the model that was written is their only oracle."""


@dataclass
class Pair:
    path: Path
    peer: Any

    @property
    def file(self) -> GGUFFile:
        return read_gguf(self.path)


_MADE: dict[str, Pair] = {}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Pair]:
    def get(name: str) -> Pair:
        if name not in _MADE:
            peer = make_model(GGUF_PEERS[name])
            _MADE[name] = Pair(write_gguf_peer(peer, tmp_path_factory.mktemp(name) / "model.gguf"), peer)
        return _MADE[name]

    _MADE.clear()
    return get


@torch.no_grad()
@pytest.mark.parametrize("name", GGUF_PEERS)
def test_logits_match_the_model_that_was_written(name: str, pairs: Callable[[str], Pair]) -> None:
    pair = pairs(name)
    tokens = tokens_of(2, 60)
    expected = pair.peer(tokens, use_cache=False).logits
    assert relative(load_gguf(pair.file)(tokens), expected) < TOLERANCE
    assert expected.std() > 0.1  # an oracle that says nothing would agree with everything


@torch.no_grad()
@pytest.mark.parametrize("name", [name for name in GGUF_PEERS if name not in UNREAD_BY_TRANSFORMERS])
def test_logits_match_transformers_reader(name: str, pairs: Callable[[str], Pair]) -> None:
    import transformers

    pair = pairs(name)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        pair.path.parent, gguf_file=pair.path.name, config=pair.peer.config, attn_implementation="eager"
    ).eval()
    tokens = tokens_of(2, 60, seed=5)
    assert relative(load_gguf(pair.file)(tokens), theirs(tokens, use_cache=False).logits) < TOLERANCE


def test_every_architecture_has_a_peer(pairs: Callable[[str], Pair]) -> None:
    assert {pairs(name).file.architecture for name in GGUF_PEERS} == set(ARCHITECTURES)


@torch.no_grad()
@pytest.mark.parametrize("name", ["llama2", "mixtral", "smollm3", "gemma2", "gemma3"])
def test_ablation_without_the_change_of_values_or_rows_logits_differ(
    name: str, pairs: Callable[[str], Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = pairs(name)
    architecture = pair.file.architecture
    changed = ARCHITECTURES[architecture]
    assert changed.interleaved == (architecture in PERMUTED)
    plain = replace(changed, interleaved=False, norm_shift=0.0)
    assert plain != changed
    monkeypatch.setattr(gguf_weights, "architecture_of", lambda file: plain)
    tokens = tokens_of(2, 60)
    assert relative(load_gguf(pair.file)(tokens), pair.peer(tokens, use_cache=False).logits) > 100 * TOLERANCE


def test_half_split_order_undoes_the_converters_permutation() -> None:
    rows = np.arange(4 * 6 * 3).reshape(24, 3)
    assert np.array_equal(permute(rows, 4)[gguf_names.half_split_order(4, 24)], rows)


@torch.no_grad()
def test_blocks_of_each_parameter_dequantise_to_the_loaded_weights(tmp_path: Path) -> None:
    """Permuting and slicing whole rows keeps quantised blocks: what a packed weight layer takes over bit by bit."""
    # Rows of 36 and 48 values have no blocks of 32, so this model is wider.
    peer = make_model(replace(GGUF_PEERS["smollm"], keys={"hidden_size": 64, "intermediate_size": 96}))
    path = _requantised(write_gguf_peer(peer, tmp_path / "wide.gguf"), tmp_path / "q4.gguf", peer)
    file = read_gguf(path)
    model = load_gguf(file)
    stored = gguf_parameters(file, model)
    quantised = {name for name, tensor in stored.items() if tensor.type == GGMLQuantizationType.Q4_0}
    assert {name.split(".")[-2] for name in quantised} >= {"query", "key", "value", "output", "gate", "up", "down"}
    for name, parameter in model.named_parameters():
        tensor = stored[name]
        assert tensor.shape == tuple(parameter.shape)
        assert torch.equal(tensor.dequantize(), parameter), name


def _requantised(path: Path, out: Path, peer: Any) -> Path:
    """The same file with its matrices in Q4_0."""
    writer = GGUFWriter(out, "llama")
    add_metadata(writer, peer.config)
    for tensor in GGUFReader(path).tensors:
        if len(tensor.shape) == 1:
            writer.add_tensor(tensor.name, np.array(tensor.data))
        else:
            blocks = quantize(np.array(tensor.data), GGMLQuantizationType.Q4_0)
            writer.add_tensor(tensor.name, blocks, raw_dtype=GGMLQuantizationType.Q4_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out


def test_llama_3_scaling_is_recognised_and_other_divisors_are_kept(
    pairs: Callable[[str], Pair], tmp_path: Path
) -> None:
    published = LLAMA3 | {"original_max_position_embeddings": 8192}
    peer = make_model(replace(GGUF_PEERS["llama3"], keys={"rope_parameters": published, "head_dim": 64}))
    rotary = gguf_weights.gguf_spec(read_gguf(write_gguf_peer(peer, tmp_path / "m.gguf"))).block(0).mixer.rotary
    assert rotary.scaling == Llama3Scaling(factor=8.0, low_turns=1.0, high_turns=4.0, original_context=8192)
    other = gguf_weights.gguf_spec(pairs("llama3").file).block(0).mixer.rotary
    assert isinstance(other.scaling, LongRopeScaling)


@torch.no_grad()
def test_split_file_computes_what_the_whole_does(pairs: Callable[[str], Pair], tmp_path: Path) -> None:
    pair = pairs("qwen2")
    write_gguf_peer(pair.peer, tmp_path / "model.gguf", split_max_tensors=7)
    shards = sorted(tmp_path.glob("*.gguf"))
    assert len(shards) > 2
    tokens = tokens_of(1, 30)
    assert torch.equal(load_gguf(read_gguf(shards[-1]))(tokens), load_gguf(pair.file)(tokens))


def test_exact_dtype_holds_every_value(pairs: Callable[[str], Pair]) -> None:
    file = pairs("qwen2").file
    assert exact_dtype(file) == torch.float32

    def as_type(kind: GGMLQuantizationType) -> GGUFFile:
        tensors = {
            name: replace(tensor, type=kind) if len(tensor.shape) > 1 else tensor
            for name, tensor in file.tensors.items()
        }
        return replace(file, tensors=tensors)

    assert exact_dtype(as_type(GGMLQuantizationType.F16)) == torch.float16
    assert exact_dtype(as_type(GGMLQuantizationType.BF16)) == torch.bfloat16
    assert exact_dtype(as_type(GGMLQuantizationType.Q8_0)) == torch.float32


def _changed(file: GGUFFile, **metadata: Any) -> GGUFFile:
    keys = {key.replace("__", "."): value for key, value in metadata.items()}
    merged = {key: value for key, value in (dict(file.metadata) | keys).items() if value is not ...}
    return replace(file, metadata=merged)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"general__architecture": "mamba"}, r"architecture that can't be read; expected llama \| .*, got 'mamba'"),
        ({"general__architecture": ...}, r"does not say which architecture it holds"),
        ({"llama__block_count": ...}, r"\(architecture llama\) lacks the key 'block_count'"),
        ({"llama__block_count": "two"}, r"block_count in .* is out of range; .* got 'two'"),
        ({"llama__attention__head_count": [4, 2]}, r"attention\.head_count in .* differs from layer to layer"),
        ({"llama__residual_scale": 2.0}, r"a key that underhood does not know: 'residual_scale'"),
        ({"llama__rope__scaling__type": "dynamic"}, r"rope\.scaling\.type in .* is not known; .* got 'dynamic'"),
        ({"llama__attention__value_length": 4}, r"attention\.value_length in .* is not supported; expected 8, got 4"),
        ({"llama__attention__causal": False}, r"attention\.causal in .* is not supported"),
        ({"llama__block_count": 3}, r"lacks the tensor 'blk\.2\.attn_norm\.weight'"),
        ({"llama__block_count": 1}, r"holds a tensor the model has no place for: 'blk\.1\."),
        ({"llama__feed_forward_length": 50}, r"tensor 'blk\.0\.ffn_gate\.weight' has the wrong shape; expected \(50, "),
        ({"llama__expert_count": 8}, r"lacks the tensor 'blk\.0\.ffn_down\.0\.weight'"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(
    change: dict[str, Any], message: str, pairs: Callable[[str], Pair]
) -> None:
    with pytest.raises(UserError, match=message) as error:
        load_gguf(_changed(pairs("llama2").file, **change))
    assert "\n" not in str(error.value)


def test_quantised_vector_that_has_to_be_permuted_is_refused(pairs: Callable[[str], Pair]) -> None:
    file = pairs("llama_biased").file
    bias = file.tensors["blk.0.attn_q.bias"]
    blocks = np.zeros((1, len(bias.blocks)), dtype=np.uint8)
    quantised = GGUFTensor(bias.name, GGMLQuantizationType.Q8_0, bias.shape, blocks)
    with pytest.raises(UserError, match=r"the vector 'blk\.0\.attn_q\.bias' is quantised"):
        load_gguf(replace(file, tensors={**file.tensors, bias.name: quantised}))


@torch.no_grad()
def test_smollm2_matches_transformers_reader(smollm2_gguf: Path) -> None:
    import transformers

    theirs = transformers.AutoModelForCausalLM.from_pretrained(smollm2_gguf.parent, gguf_file=smollm2_gguf.name)
    ours = load_gguf(read_gguf(smollm2_gguf))
    for name, stored in gguf_parameters(read_gguf(smollm2_gguf), ours).items():
        assert torch.equal(stored.dequantize(), ours.get_parameter(name))
    tokens = torch.randint(0, 49_152, (2, 48), generator=torch.Generator().manual_seed(1))
    assert relative(ours(tokens), theirs(tokens).logits) < TOLERANCE
