"""Opening published folders: what is read, what is refused, in one line each; memory; and the way back."""

from __future__ import annotations

import io
import json
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hf_peers import PEERS, make_peer, relative, save_peer, tokens_of
from safetensors.torch import load_file, save_file

import underhood
from underhood.cli.main import main
from underhood.core.errors import UserError
from underhood.infer.fetch import fetch
from underhood.infer.generate import generate
from underhood.models.decoder import Decoder, DecoderSpec, initialize, qwen3_shaped
from underhood.models.hub_export import KEYS, canonical, to_huggingface
from underhood.models.hub_weights import layout, load_decoder
from underhood.models.huggingface import FAMILIES, family_of, spec_from_config
from underhood.models.presets import CONFIGS, preset
from underhood.nn.attention import AttentionSpec
from underhood.nn.block import BlockSpec
from underhood.nn.feedforward import GatedSpec
from underhood.text.bpe import train_bpe


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    save_peer("llama2", folder)
    return folder


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("qwen")
    save_peer("qwen3", folder)
    return folder


@pytest.fixture
def folder(single: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(single, tmp_path / "model"))


def configured(folder: Path, **change: Any) -> Path:
    file = folder / "config.json"
    data = json.loads(file.read_text()) | change
    file.write_text(json.dumps({key: value for key, value in data.items() if value is not ...}))
    return folder


def one_line(error: pytest.ExceptionInfo[UserError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


# Old and new ways to write the same configuration.


@torch.no_grad()
def test_import_reads_rope_settings_of_old_and_new_files_alike(tmp_path: Path) -> None:
    save_peer("llama3", tmp_path)
    new = spec_from_config(json.loads((tmp_path / "config.json").read_text()))
    given = json.loads((tmp_path / "config.json").read_text())["rope_parameters"]
    scaling = {key: value for key, value in given.items() if key != "rope_theta"}
    old = configured(tmp_path, rope_parameters=..., rope_theta=given["rope_theta"], rope_scaling=scaling)
    assert spec_from_config(json.loads((old / "config.json").read_text())) == new
    older = {("type" if key == "rope_type" else key): value for key, value in scaling.items()}
    configured(tmp_path, rope_scaling=older)
    assert spec_from_config(json.loads((tmp_path / "config.json").read_text())) == new
    assert new.blocks[0].mixer.rotary.scaling is not None  # type: ignore[attr-defined]


def test_import_reads_gemma3_positions_of_old_and_new_files_alike() -> None:
    base = CONFIGS["gemma-3-1b"]
    nested = {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    }
    old = {"rope_theta": 1e6, "rope_local_base_freq": 1e4, "rope_scaling": {"rope_type": "linear", "factor": 8.0}}
    assert spec_from_config(base | {"rope_parameters": nested}) == spec_from_config(base | old)


@torch.no_grad()
def test_import_takes_names_without_their_prefix_and_old_buffers(tmp_path: Path) -> None:
    """As the first GPT-2 files are: saved without the head, with the causal masks."""
    peer = save_peer("gpt2", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    bare = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    bare |= {"h.0.attn.bias": torch.ones(1, 1, 8, 8), "h.1.attn.masked_bias": torch.tensor(-1e4)}
    save_file(bare, tmp_path / "model.safetensors")
    tokens = tokens_of(1, 12)
    assert relative(load_decoder(tmp_path)(tokens), peer(tokens).logits) < 1e-5


@torch.no_grad()
@pytest.mark.parametrize("prefix", ["language_model.model.", "model.language_model."])
def test_import_reads_the_language_model_of_gemma3_with_images(prefix: str, tmp_path: Path) -> None:
    peer = save_peer("gemma3", tmp_path)
    text = json.loads((tmp_path / "config.json").read_text())
    whole = {"model_type": "gemma3", "text_config": text, "vision_config": {"hidden_size": 8}, "image_token_index": 99}
    (tmp_path / "config.json").write_text(json.dumps(whole))
    tensors = load_file(tmp_path / "model.safetensors")
    renamed = {prefix + name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    save_file(renamed | {"vision_tower.patch.weight": torch.ones(2, 2)}, tmp_path / "model.safetensors")
    tokens = tokens_of(1, 20)
    assert relative(load_decoder(tmp_path)(tokens), peer(tokens).logits) < 1e-5
    (tmp_path / "config.json").write_text(json.dumps(whole | {"text_config": text | {"logit_scale": 2}}))
    with pytest.raises(UserError, match="does not know: 'logit_scale'"):
        load_decoder(tmp_path)


@torch.no_grad()
def test_import_accepts_a_tied_unembedding_written_twice(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}, folder / "model.safetensors")
    model = load_decoder(folder)
    assert model.unembed.weight is model.embed.weight
    save_file(tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"] + 1}, folder / "model.safetensors")
    with pytest.raises(UserError, match="tied") as error:
        load_decoder(folder)
    one_line(error)


@torch.no_grad()
def test_import_keeps_or_changes_the_type(folder: Path) -> None:
    whole = load_decoder(folder)
    half = load_decoder(folder, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}
    assert torch.equal(half.embed.weight, whole.embed.weight.bfloat16())
    save_file(
        {name: tensor.bfloat16() for name, tensor in load_file(folder / "model.safetensors").items()},
        folder / "model.safetensors",
    )
    assert load_decoder(folder, dtype=None).embed.weight.dtype == torch.bfloat16
    assert load_decoder(folder).embed.weight.dtype == torch.float32
    assert not any(parameter.requires_grad for parameter in whole.parameters())
    assert not whole.training


def test_import_reports_progress(llama: Path) -> None:
    seen: list[tuple[int, int]] = []
    model = load_decoder(llama, progress=lambda done, total: seen.append((done, total)))
    total = sum(parameter.numel() * 4 for parameter in model.parameters())
    assert len(seen) > 10
    assert seen[-1] == (total, total)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})


# What is refused.


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
    "truncated": (lambda folder: truncate(folder / "model.safetensors"), r"no readable safetensors file"),
    "no safetensors": (
        lambda folder: (folder / "model.safetensors").write_bytes(b"PK\x03\x04" * 9),
        r"no readable safetensors file",
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
    "config is no JSON": (lambda folder: (folder / "config.json").write_text("{"), r"is not JSON"),
    "unknown family": (lambda folder: configured(folder, model_type="qwen4"), r"family that can't be read.*'qwen4'"),
    "no family": (lambda folder: configured(folder, model_type=...), r"family that can't be read"),
    "unknown key": (lambda folder: configured(folder, logit_scale=0.5), r"does not know: 'logit_scale'"),
    "unknown key that is false": (lambda folder: configured(folder, use_rope=False), r"does not know: 'use_rope'"),
    "quantised config": (
        lambda folder: configured(folder, quantization_config={"bits": 4}),
        r"does not know: 'quantization_config'",
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
        lambda folder: configured(folder, rope_parameters={"rope_type": "dynamic", "factor": 2.0}),
        r"rope_type .*got 'dynamic'",
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
        r"no readable safetensors file",
    ),
    "a place outside": (
        lambda folder: (folder / "model.safetensors.index.json").write_text(
            json.dumps({"weight_map": {"model.norm.weight": "../other.safetensors"}})
        ),
        r"no safetensors file of this folder; got '\.\./other",
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


# Memory.

MEASURE = """
import sys, threading, time
from pathlib import Path
import torch
from underhood.models import hub_weights
from underhood.models.hub_weights import load_decoder

def used():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

def share_of_weights(folder):
    before, peak, on = used(), [0], [True]
    def watch():
        while on[0]:
            peak[0] = max(peak[0], used())
            time.sleep(0.002)
    thread = threading.Thread(target=watch)
    thread.start()
    model = load_decoder(folder)
    on[0] = False
    thread.join()
    return (max(peak[0], used()) - before) / sum(p.numel() * p.element_size() for p in model.parameters())

load_decoder(Path(sys.argv[2]))  # what every load needs once
print(share_of_weights(Path(sys.argv[1])))
hub_weights.AT_ONCE = 2**40
print(share_of_weights(Path(sys.argv[1])))
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_import_needs_little_more_memory_than_the_weights(single: Path, tmp_path: Path) -> None:
    """One file of 260 MB; all that the process holds counts, mapped pages too. Mapped whole, it would be twice that."""
    spec = qwen3_shaped(vocab_size=1024, context=64, width=1024, layers=5, heads=8, hidden=2816)
    with torch.device("meta"):
        shapes = {name: tuple(tensor.shape) for name, tensor in stored_tensors(spec.build()).items()}
    write_zeros(tmp_path / "model.safetensors", shapes)
    (tmp_path / "config.json").write_text(json.dumps(to_huggingface(spec)))
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path), str(single)], capture_output=True, text=True, check=True
    )
    ours, whole = map(float, done.stdout.split())
    assert 0.9 <= ours < 1.2
    assert whole > 1.8


def write_zeros(file: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """A safetensors file of zeros, as a hole on the disk: large, and made at once."""
    header, offset = {}, 0
    for name, shape in shapes.items():
        size = 4 * int(torch.Size(shape).numel())
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        out.truncate(8 + len(text) + offset)


# `underhood.load`, and hf:OWNER/NAME.


@torch.no_grad()
def test_load_opens_a_published_folder(single: Path) -> None:
    loaded = underhood.load(single)
    tokens = tokens_of(2, 9)
    assert torch.equal(loaded(tokens), loaded.model(tokens))
    assert torch.equal(loaded(tokens[0].tolist()), loaded.model(tokens[:1]))
    assert not loaded.chats
    with pytest.raises(UserError, match=r"no tokenizer to read or write text with.*Put its tokenizer files") as error:
        loaded.generate("Hello")
    one_line(error)
    with pytest.raises(UserError, match="has no stages"):
        underhood.load(single, stage="sft")


def test_load_fetches_from_the_hub(single: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked: list[Any] = []

    def snapshot_download(repo: str, **more: Any) -> str:
        asked.append((repo, more))
        return str(single)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert underhood.load("hf:owner/name").spec == underhood.load(single).spec
    assert fetch(Path("hf:owner/name@v1.0")) == single
    assert [(repo, more["revision"]) for repo, more in asked] == [("owner/name", None), ("owner/name", "v1.0")]
    patterns = asked[0][1]["allow_patterns"]
    assert not any(pattern.endswith((".py", ".bin", ".pt", "*")) for pattern in patterns)
    with pytest.raises(UserError, match="names no model"):
        fetch("hf:not a name")


def test_fetch_explains_a_hub_out_of_reach_and_no_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    raised: Exception = ConnectionError("no route")

    def snapshot_download(repo: str, **more: Any) -> str:
        raise raised

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(UserError, match="can't reach the Hugging Face Hub for hf:owner/name") as error:
        fetch("hf:owner/name")
    one_line(error)
    raised = ZeroDivisionError("ours")
    with pytest.raises(ZeroDivisionError):
        fetch("hf:owner/name")


@pytest.fixture
def spoken(tmp_path: Path) -> Path:
    """A published folder with a tokenizer."""
    folder = tmp_path / "named"
    folder.mkdir()
    tokenizer = train_bpe(["The list is a mutable sequence. A list holds items."], vocab_size=290)
    tokenizer.save(folder / "tokenizer.json")
    spec = qwen3_shaped(vocab_size=tokenizer.vocab_size, context=64, width=32, layers=2, heads=4, hidden=40)
    write_folder(initialized(spec), folder)
    return folder


@torch.no_grad()
def initialized(spec: DecoderSpec) -> Decoder:
    model = initialize(spec.build(), seed=1).eval()
    generator = torch.Generator().manual_seed(2)
    for parameter in model.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model


def stored_tensors(model: Decoder) -> dict[str, torch.Tensor]:
    """The weights as the model's own family stores them."""
    parameters = dict(model.named_parameters())
    return {one.name: one.joined(parameters) for one in layout(model, family_of(to_huggingface(model.spec)))}


def write_folder(model: Decoder, folder: Path) -> None:
    save_file({name: tensor.clone() for name, tensor in stored_tensors(model).items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(to_huggingface(model.spec)))


def test_import_command_makes_a_run_that_verbs_open(spoken: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "runs" / "mine"
    assert main(["import", str(spoken), "--out", str(out), "--check"]) == 0
    assert "family     qwen3" in capsys.readouterr().out
    assert not out.exists()
    assert main(["import", str(spoken), "--out", str(out)]) == 0
    assert f"run        {out}" in capsys.readouterr().out
    loaded, direct = underhood.load(out), underhood.load(spoken)
    tokens = tokens_of(1, 12)
    assert torch.equal(loaded(tokens), direct(tokens))
    assert main(["import", str(spoken), "--out", str(out)]) == 2
    assert "is there already" in capsys.readouterr().err
    words = ["The list", "--max-tokens", "6", "--temperature", "0"]
    assert main(["generate", str(spoken), *words]) == 0
    first = capsys.readouterr().out
    assert main(["generate", str(out), *words]) == 0
    assert capsys.readouterr().out == first
    assert first.strip()
    assert sorted(path.name for path in out.parent.iterdir()) == ["mine"]


@torch.no_grad()
def test_import_command_keeps_a_model_without_a_tokenizer(single: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "run"
    assert main(["import", str(single), "--out", str(out)]) == 0
    assert "tokenizer  cannot read" in capsys.readouterr().out
    loaded, tokens = underhood.load(out), tokens_of(1, 9)
    assert torch.equal(loaded(tokens), underhood.load(single)(tokens))
    with pytest.raises(UserError, match="no tokenizer to read or write text with"):
        loaded.generate("Hello")


def test_import_command_shows_a_bar_where_someone_watches(
    spoken: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    from rich.console import Console

    from underhood.cli import opening

    watched = Console(file=io.StringIO(), force_terminal=True, width=80)
    monkeypatch.setattr(opening, "console", lambda stream: watched)
    assert main(["import", str(spoken), "--check"]) == 0
    shown = watched.file.getvalue()  # type: ignore[attr-defined]
    size = sum(p.numel() * p.element_size() for p in load_decoder(spoken).parameters()) / 1000
    assert f"{size:.1f}/{size:.1f} kB" in shown
    monkeypatch.undo()
    assert main(["import", str(spoken), "--check"]) == 0
    assert capsys.readouterr().err == ""


def test_import_command_says_what_is_wrong(tmp_path: Path, capsys) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    assert main(["import", str(tmp_path), "--check"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1


# The way back.


@torch.no_grad()
def test_export_of_our_own_shape_gives_equal_logits_in_transformers(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    spec = qwen3_shaped(vocab_size=96, context=64, width=32, layers=3, heads=4, kv_heads=2, hidden=40, tied=True)
    model = initialized(spec)
    write_folder(model, tmp_path)
    peer = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(peer).__name__ == "Qwen3ForCausalLM"
    tokens = tokens_of(2, 30) % 96
    assert relative(model(tokens), peer(tokens).logits) < 1e-5
    theirs = peer.generate(tokens[:1, :5], max_new_tokens=32, do_sample=False)[0, 5:].tolist()
    [ours] = generate(model, tokens[:1, :5].tolist(), max_new_tokens=32)
    assert ours.ids == theirs
    assert canonical(load_decoder(tmp_path).spec) == canonical(spec)


@torch.no_grad()
@pytest.mark.parametrize("name", [name for name in PEERS if name != "phi3_long"])
def test_export_gives_back_the_tensors_that_were_read(name: str, tmp_path: Path) -> None:
    peer = save_peer(name, tmp_path)
    model = load_decoder(tmp_path)
    config = to_huggingface(model.spec)
    assert canonical(spec_from_config(config)) == canonical(model.spec)
    stored: dict[str, torch.Tensor] = {}
    for file in tmp_path.glob("*.safetensors"):
        stored |= load_file(file)
    back = stored_tensors(model)
    if FAMILIES[config["model_type"]] is FAMILIES[peer.config.model_type]:
        assert back.keys() == stored.keys()
        assert all(torch.equal(back[name], stored[name]) for name in stored)


@pytest.mark.parametrize("name", CONFIGS)
def test_export_knows_every_preset(name: str) -> None:
    spec = preset(name)
    config = to_huggingface(spec)
    assert canonical(spec_from_config(config)) == canonical(spec)


def test_export_refuses_what_no_family_computes() -> None:
    spec = qwen3_shaped(vocab_size=96, context=64, width=32, layers=2, heads=4, hidden=40)
    block = spec.blocks[0]
    for strange in (
        replace(spec, logit_cap=5.0),
        replace(spec, embed_scale=2.0),
        replace(spec, blocks=(block, replace(block, feedforward=GatedSpec(hidden=48)))),
        replace(spec, blocks=(BlockSpec(mixer=AttentionSpec(heads=4, rotary=None), feedforward=block.feedforward),)),
    ):
        with pytest.raises(UserError, match="no form in transformers"):
            to_huggingface(strange)
    assert to_huggingface(spec)["architectures"] == ["Qwen3ForCausalLM"]


def test_families_are_all_covered() -> None:
    assert set(KEYS) == set(FAMILIES) - {"gemma3"}  # the one with images, of which only the text is read
    made = {make_peer(name).config.model_type for name in PEERS}
    assert made == set(KEYS)
