"""LoRA adapters as files and in use match peft on transformers' model with our weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small_lora import ATTENTION, model, stirred, tokens
from torch import nn

from underhood.align.adapter import load_adapter, names_of, save_adapter
from underhood.core.errors import UserError
from underhood.models.decoder import Decoder, qwen3_shaped
from underhood.models.hub_weights import load_decoder
from underhood.nn.lora import LoRASpec, fold
from underhood.train.optim import AdamWSpec


def their_name(name: str) -> str:
    _, layer, piece = name.split(".", 2) if name.startswith("blocks.") else ("", "", name)
    inside = {"query": "q", "key": "k", "value": "v", "output": "o", "gate": "gate", "up": "up", "down": "down"}
    if not layer:
        return "lm_head"
    kind = "self_attn" if piece.startswith("mixer") else "mlp"
    return f"model.layers.{layer}.{kind}.{inside[piece.rpartition('.')[2]]}_proj"


def theirs(ours: Decoder) -> Any:
    transformers = pytest.importorskip("transformers")
    config = transformers.Qwen3Config(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=16,
        rms_norm_eps=1e-6,
        rope_theta=10_000.0,
        tie_word_embeddings=False,
        attention_dropout=0.0,
    )
    other = transformers.Qwen3ForCausalLM(config)
    state = {}
    for name, tensor in ours.state_dict().items():
        module, _, leaf = name.rpartition(".")
        special = {"embed": "model.embed_tokens", "norm": "model.norm"}
        if module in special:
            named = special[module]
        elif module.endswith("_norm"):
            _, layer, rest = module.split(".", 2)
            end = {
                "mixer_norm": "input_layernorm",
                "feedforward_norm": "post_attention_layernorm",
                "mixer.query_norm": "self_attn.q_norm",
                "mixer.key_norm": "self_attn.k_norm",
            }[rest]
            named = f"model.layers.{layer}.{end}"
        else:
            named = their_name(module)
        state[f"{named}.{leaf}"] = tensor
    other.load_state_dict(state)
    return other


def test_lora_matches_peft_outputs_gradients_and_updated_weights(tmp_path: Path):
    peft = pytest.importorskip("peft")
    ours = model()
    base = theirs(ours)
    torch.testing.assert_close(base(tokens()).logits, ours(tokens()), rtol=1e-4, atol=1e-5)
    spec = LoRASpec(rank=4, alpha=10, targets=(*ATTENTION, "down"))
    spec.apply(ours)
    stirred(ours)
    save_adapter(ours, tmp_path / "adapter", base="somewhere")
    other = peft.PeftModel.from_pretrained(base, tmp_path / "adapter", is_trainable=True)
    ours.train()
    other.train()
    torch.testing.assert_close(other(tokens()).logits, ours(tokens()), rtol=1e-4, atol=1e-5)

    learning = {name: parameter for name, parameter in other.named_parameters() if parameter.requires_grad}
    mine = {name: parameter for name, parameter in ours.named_parameters() if parameter.requires_grad}
    assert len(learning) == len(mine) == 2 * 3 * 2

    def twin(name: str) -> nn.Parameter:
        layer, _, piece = name.rpartition(".")
        return learning[f"base_model.model.{their_name(layer)}.{piece}.default.weight"]

    optimizer = AdamWSpec(lr=1e-2, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01).build(ours)
    reference = torch.optim.AdamW(learning.values(), lr=1e-2, weight_decay=0.01)
    for step in range(5):
        batch = tokens(seed=10 + step)
        for logits in (ours(batch), other(batch).logits):
            F.cross_entropy(logits[:, :-1].flatten(0, 1), batch[:, 1:].flatten()).backward()
        for name, parameter in mine.items():
            torch.testing.assert_close(parameter.grad, twin(name).grad, rtol=1e-3, atol=1e-6)
        optimizer.step()
        reference.step()
        ours.zero_grad()
        reference.zero_grad()
    for name, parameter in mine.items():
        torch.testing.assert_close(parameter, twin(name), rtol=1e-3, atol=2e-5)

    # And back: what peft saves after training is our adapter too.
    other.save_pretrained(tmp_path / "back")
    again = model()
    assert load_adapter(again, tmp_path / "back").alpha == 10
    torch.testing.assert_close(again(tokens()), other(tokens()).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rslora", [False, True])
def test_saved_adapter_loads_in_peft_with_the_same_scale(tmp_path: Path, rslora: bool):
    peft = pytest.importorskip("peft")
    ours = model()
    base = theirs(ours)
    LoRASpec(rank=9, alpha=5, rslora=rslora).apply(ours)
    stirred(ours)
    save_adapter(ours, tmp_path)
    other = peft.PeftModel.from_pretrained(base, tmp_path)
    torch.testing.assert_close(other(tokens()).logits, ours(tokens()), rtol=1e-4, atol=1e-5)
    merged = other.merge_and_unload()
    fold(ours)
    folded = ours.get_parameter("blocks.1.feedforward.down.weight")
    torch.testing.assert_close(merged.model.layers[1].mlp.down_proj.weight, folded, rtol=1e-5, atol=1e-6)


def test_adapter_of_some_layers_names_them_in_full(tmp_path: Path):
    peft = pytest.importorskip("peft")
    ours = model()
    base = theirs(ours)
    LoRASpec(rank=2, targets=("blocks.1.mixer.query",)).apply(ours)
    stirred(ours)
    save_adapter(ours, tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["target_modules"] == [
        "model.layers.1.self_attn.q_proj"
    ]
    other = peft.PeftModel.from_pretrained(base, tmp_path)
    torch.testing.assert_close(other(tokens()).logits, ours(tokens()), rtol=1e-4, atol=1e-5)


def test_adapter_round_trip_is_bit_for_bit_and_refusals_are_clear(tmp_path: Path):
    ours, again = model(), model()
    LoRASpec(rank=3, targets=ATTENTION).apply(ours)
    stirred(ours)
    save_adapter(ours, tmp_path)
    load_adapter(again, tmp_path)
    assert torch.equal(again(tokens()), ours(tokens()))

    with pytest.raises(UserError, match="no adapter"):
        load_adapter(model(), tmp_path / "nowhere")
    wide = qwen3_shaped(vocab_size=50, context_length=16, d_model=64, layers=2, heads=4, kv_heads=2, head_dim=8).build()
    with pytest.raises(UserError, match=r"wrong shape"):
        load_adapter(wide, tmp_path)
    shallow = qwen3_shaped(
        vocab_size=50, context_length=16, d_model=32, layers=1, heads=4, kv_heads=2, head_dim=8
    ).build()
    with pytest.raises(UserError, match=r"another model.*layers\.1"):
        load_adapter(shallow, tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(config | {"use_dora": True}))
    with pytest.raises(UserError, match="use_dora"):
        load_adapter(model(), tmp_path)
    with pytest.raises(UserError, match="no LoRA layers"):
        save_adapter(model(), tmp_path)


def test_fused_layers_of_gpt2_take_companions_of_three(tmp_path: Path):
    """Their c_attn is our query, key and value: block by block the same function, and back again."""
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        vocab_size=50, n_positions=16, n_embd=32, n_layer=2, n_head=4, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0
    )
    base = transformers.GPT2LMHeadModel(config).eval()
    base.save_pretrained(tmp_path / "base")
    names = names_of(tmp_path / "base")
    ours = load_decoder(tmp_path / "base")
    torch.testing.assert_close(ours(tokens()), base(tokens()).logits, rtol=1e-4, atol=1e-5)
    LoRASpec(rank=3, alpha=5, targets=("query", "value", "down")).apply(ours)
    stirred(ours)
    save_adapter(ours, tmp_path / "adapter", names=names)
    other = peft.PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    assert not torch.allclose(other(tokens()).logits, load_decoder(tmp_path / "base")(tokens()), atol=1e-3)
    torch.testing.assert_close(other(tokens()).logits, ours(tokens()), rtol=1e-4, atol=1e-5)

    theirs_first = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "base")
    made = peft.get_peft_model(theirs_first, peft.LoraConfig(r=4, target_modules=["c_attn"], fan_in_fan_out=True))
    for name, parameter in made.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.1)
    made.eval().save_pretrained(tmp_path / "made")
    again = load_decoder(tmp_path / "base")
    load_adapter(again, tmp_path / "made", names=names)
    torch.testing.assert_close(made(tokens()).logits, again(tokens()), rtol=1e-4, atol=1e-5)
