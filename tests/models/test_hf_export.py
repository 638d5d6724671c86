"""The way back: a model of ours in the configuration and under the names of a published family."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hf_folders import initialized, stored_tensors, write_folder
from hf_peers import PEERS, make_peer, relative, save_peer, tokens_of
from safetensors.torch import load_file

from underhood.core.errors import UserError
from underhood.infer.generate import generate
from underhood.models.decoder import qwen3_shaped
from underhood.models.hub_export import KEYS, canonical, to_huggingface
from underhood.models.hub_weights import load_decoder
from underhood.models.huggingface import FAMILIES, spec_from_config
from underhood.models.presets import CONFIGS, preset
from underhood.nn.attention import AttentionSpec
from underhood.nn.feedforward import GatedMLPSpec
from underhood.nn.norm import RMSNormSpec


@torch.no_grad()
def test_export_of_our_own_shape_gives_equal_logits_in_transformers(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    spec = qwen3_shaped(vocab_size=96, context_length=64, d_model=32, layers=3, heads=4, kv_heads=2, d_ff=40, tied=True)
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
    spec = qwen3_shaped(vocab_size=96, context_length=64, d_model=32, layers=2, heads=4, d_ff=40)
    block = spec.blocks[0]
    no_positions = AttentionSpec(heads=4, rotary=None)  # SmolLM3's, in every layer
    for strange in (
        replace(spec, logit_softcap=5.0),
        replace(spec, embed_scale=2.0),
        replace(spec, blocks=(block, replace(block, feedforward=GatedMLPSpec(d_ff=48)))),
        replace(spec, blocks=(replace(block, mixer=replace(no_positions, qk_norm=RMSNormSpec())),)),
    ):
        with pytest.raises(UserError, match="no form in transformers"):
            to_huggingface(strange)
    assert to_huggingface(spec)["architectures"] == ["Qwen3ForCausalLM"]
    assert to_huggingface(replace(spec, blocks=(replace(block, mixer=no_positions),)))["model_type"] == "smollm3"


def test_families_are_all_covered() -> None:
    assert set(KEYS) == set(FAMILIES) - {"gemma3"}  # the one with images, of which only the text is read
    made = {make_peer(name).config.model_type for name in PEERS}
    assert made == set(KEYS)
