"""Opening published folders: every way in which they have been written, and `underhood.load`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hf_folders import configured, one_line
from hf_peers import relative, save_peer, tokens_of
from safetensors.torch import load_file, save_file

import underhood
from underhood.core.errors import UserError
from underhood.infer.fetch import fetch
from underhood.models.hub_weights import load_decoder
from underhood.models.huggingface import spec_from_config
from underhood.models.presets import CONFIGS


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

    requests: list[Any] = []

    def snapshot_download(repo: str, **more: Any) -> str:
        requests.append((repo, more))
        return str(single)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert underhood.load("hf:owner/name").spec == underhood.load(single).spec
    assert fetch(Path("hf:owner/name@v1.0")) == single
    assert [(repo, more["revision"]) for repo, more in requests] == [("owner/name", None), ("owner/name", "v1.0")]
    patterns = requests[0][1]["allow_patterns"]
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
