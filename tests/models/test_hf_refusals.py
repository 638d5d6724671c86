"""Published folders that are broken, unknown or dangerous are refused, in one line each."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hf_folders import configured, one_line
from safetensors.torch import load_file, save_file

from underhood.core.errors import UserError
from underhood.models.hub_weights import load_decoder


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def tensors_changed(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")

    return apply


NORM = "model.layers.1.input_layernorm.weight"
UP = "model.layers.0.mlp.up_proj.weight"
BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "truncated": (lambda folder: truncate(folder / "model.safetensors"), r"not a readable safetensors file"),
    "no safetensors": (
        lambda folder: (folder / "model.safetensors").write_bytes(b"PK\x03\x04" * 9),
        r"not a readable safetensors file",
    ),
    "pickled": (
        lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
        r"pytorch_model\.bin is not a safetensors file.*never opened",
    ),
    "nothing": (lambda folder: (folder / "model.safetensors").unlink(), r"holds no weights"),
    "missing tensor": (tensors_changed(lambda t: t.pop(NORM)), rf"lacks the tensor '{NORM}' \(1 missing\)"),
    "extra tensor": (
        tensors_changed(lambda t: t.update({"model.extra.weight": torch.ones(2)})),
        r"no place for: 'model\.extra\.weight'",
    ),
    "wrong shape": (
        tensors_changed(lambda t: t.update({UP: t[UP][1:]})),
        rf"tensor '{UP}' has the wrong shape; expected \(48, 32\), got \(47, 32\)",
    ),
    "transposed": (tensors_changed(lambda t: t.update({UP: t[UP].T})), r"expected \(48, 32\), got \(32, 48\)"),
    "quantised": (tensors_changed(lambda t: t.update({UP: t[UP].to(torch.int8)})), r"quantised.*torch\.int8"),
    "no config": (lambda folder: (folder / "config.json").unlink(), r"config\.json"),
    "config is a list": (lambda folder: (folder / "config.json").write_text("[]"), r"expected a JSON object"),
    "config is not JSON": (lambda folder: (folder / "config.json").write_text("{"), r"is not JSON"),
    "unknown family": (lambda folder: configured(folder, model_type="qwen4"), r"family that can't be read.*'qwen4'"),
    "no family": (lambda folder: configured(folder, model_type=..., architectures=...), r"family that can't be read"),
    "unknown key": (lambda folder: configured(folder, logit_scale=0.5), r"does not know: 'logit_scale'"),
    "switch that is off": (lambda folder: configured(folder, use_rope=False), r"use_rope .* is not supported"),
    "quantised config": (
        lambda folder: configured(folder, quantization_config={"bits": 4}),
        r"quantization_config .* is not supported",
    ),
    "known key, other value": (
        lambda folder: configured(folder, use_bidirectional_attention=True),
        r"use_bidirectional_attention .* is not supported; expected False or None, got True",
    ),
    "missing key": (lambda folder: configured(folder, hidden_size=...), r"lacks the key 'hidden_size'"),
    "size of the wrong type": (lambda folder: configured(folder, hidden_size="32"), r"hidden_size .* out of range"),
    "heads that do not fit": (lambda folder: configured(folder, num_key_value_heads=3), r"multiple of kv_heads"),
    "unknown activation": (lambda folder: configured(folder, hidden_act="xielu"), r"hidden_act .*got 'xielu'"),
    "unknown rope": (
        lambda folder: configured(folder, rope_parameters={"rope_type": "spiral", "factor": 2.0}),
        r"rope_type .*got 'spiral'",
    ),
    "unknown rope key": (
        lambda folder: configured(folder, rope_parameters={"rope_type": "linear", "factor": 2.0, "twist": 1}),
        r"does not know: 'twist'",
    ),
    "unknown kind of layer": (lambda folder: configured(folder, layer_types=["chunked_attention"] * 2), r"layer_types"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_import_refuses_in_one_line(what: str, folder: Path) -> None:
    load_decoder(folder)
    spoil, message = BROKEN[what]
    spoil(folder)
    with pytest.raises(UserError, match=message) as error:
        load_decoder(folder)
    one_line(error)


SHARDS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a shard is missing": (
        lambda folder: sorted(folder.glob("model-*.safetensors"))[1].unlink(),
        r"model-00002-of-\d+\.safetensors is missing",
    ),
    "a shard is truncated": (
        lambda folder: truncate(sorted(folder.glob("model-*.safetensors"))[1]),
        r"not a readable safetensors file",
    ),
    "a place outside": (
        lambda folder: (folder / "model.safetensors.index.json").write_text(
            json.dumps({"weight_map": {"model.norm.weight": "../other.safetensors"}})
        ),
        r"not a safetensors file of this folder; got '\.\./other",
    ),
    "a tensor that is not there": (
        lambda folder: (folder / "model.safetensors.index.json").write_text(
            json.dumps({"weight_map": {"model.nrm.weight": sorted(folder.glob("model-*"))[0].name}})
        ),
        r"lacks the tensor 'model\.nrm\.weight'",
    ),
    "no table": (lambda folder: (folder / "model.safetensors.index.json").write_text("{}"), r"weight_map"),
}


@pytest.mark.parametrize("what", SHARDS)
def test_import_refuses_broken_shards_in_one_line(what: str, llama: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(llama, tmp_path / "model"))
    assert len(list(folder.glob("model-*.safetensors"))) > 3
    spoil, message = SHARDS[what]
    spoil(folder)
    with pytest.raises(UserError, match=message) as error:
        load_decoder(folder)
    one_line(error)


def test_import_never_runs_what_comes_with_a_model(folder: Path) -> None:
    """Neither remote code, though the configuration asks for it, nor a pickle beside the weights."""
    trap = folder / "ran"
    (folder / "modeling_trap.py").write_text(f"open({str(trap)!r}, 'w')")
    (folder / "pytorch_model.bin").write_bytes(b"cbuiltins\nopen\n(S'" + str(trap).encode() + b"'\nS'w'\ntR.")
    configured(folder, auto_map={"AutoModelForCausalLM": "modeling_trap.Trap"})
    load_decoder(folder)
    assert not trap.exists()
