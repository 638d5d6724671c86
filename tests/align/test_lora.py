"""LoRA by surgery: the same function, gradients and updates as peft's, merged and taken back exactly."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from underhood.align.adapter import load_adapter, names_of, save_adapter
from underhood.core.errors import UserError
from underhood.models.base import parameter_count
from underhood.models.decoder import Decoder, qwen3_shaped
from underhood.models.hub_weights import load_decoder
from underhood.nn.lora import LoRALinear, LoRASpec, fold, lora_layers, merge, unmerge
from underhood.nn.qlora_linear import QuantizedLinear, quantize_linears
from underhood.nn.softcap import apply_softcap
from underhood.nn.surgery import name_matches, replace_modules
from underhood.train.optim import AdamWSpec

ATTENTION = ("query", "value")


def model(seed: int = 0, *, tied: bool = False, logit_softcap: float | None = None) -> Decoder:
    spec = qwen3_shaped(
        vocab_size=50, context_length=16, d_model=32, layers=2, heads=4, kv_heads=2, head_dim=8, d_ff=64, tied=tied
    )
    built = replace(spec, logit_softcap=logit_softcap).initialize(seed=seed)
    generator = torch.Generator().manual_seed(seed + 1)
    for parameter in built.parameters():  # no matrix may be zero, or nothing could be told apart
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return built


def tokens(seed: int = 0, length: int = 12) -> Tensor:
    return torch.randint(50, (3, length), generator=torch.Generator().manual_seed(seed))


def stirred(adapted: nn.Module, seed: int = 3) -> None:
    """Companions that do something: B starts at zero."""
    generator = torch.Generator().manual_seed(seed)
    for _, layer in lora_layers(adapted):
        layer.lora_B.data.normal_(0, 0.1, generator=generator)


@pytest.mark.parametrize(
    ("name", "pattern", "fits"),
    [
        ("blocks.0.mixer.query", "query", True),
        ("blocks.0.mixer.query", "mixer.*", True),
        ("blocks.0.mixer.query", "blocks.0.*", True),
        ("blocks.0.mixer.query", "blocks.1.*", False),
        ("blocks.10.mixer.query", "blocks.1.*", False),
        ("blocks.0.mixer.query_norm", "query", False),
        ("blocks.3.mixer.query", r"re:blocks\.[0-3]\..*query", True),
        ("blocks.4.mixer.query", r"re:blocks\.[0-3]\..*query", False),
        ("blocks.3.mixer.query", "re:query", False),
    ],
)
def test_name_matches_globs_and_regular_expressions(name: str, pattern: str, fits: bool):
    assert name_matches(name, pattern) is fits


def test_replace_modules_names_what_it_replaced_and_suggests():
    built = model()
    names = replace_modules(built, "gate", lambda _, layer: nn.Sequential(layer), nn.Linear)
    assert names == ["blocks.0.feedforward.gate", "blocks.1.feedforward.gate"]
    with pytest.raises(UserError, match="Did you mean query"):
        replace_modules(built, "qury", lambda _, layer: layer, nn.Linear)


def test_lora_starts_as_the_model_it_adapts_and_trains_only_the_companions():
    built = model()
    before = built(tokens()).detach()
    names = LoRASpec(rank=4).apply(built)
    assert len(names) == 2 * 7
    torch.testing.assert_close(built(tokens()), before, rtol=1e-6, atol=1e-6)
    learning = {name for name, parameter in built.named_parameters() if parameter.requires_grad}
    assert learning == {f"{name}.lora_{part}" for name in names for part in "AB"}
    built(tokens()).sum().backward()
    assert all((parameter.grad is None) != parameter.requires_grad for parameter in built.parameters())


def test_lora_parameter_count_is_rank_times_inputs_and_outputs():
    built = model()
    before = parameter_count(built)
    LoRASpec(rank=4, targets=("query",)).apply(built)
    assert parameter_count(built) - before == 2 * 4 * (32 + 32)


@pytest.mark.parametrize("rslora", [False, True])
def test_lora_scale_follows_the_rank(rslora: bool):
    assert LoRASpec(rank=16, alpha=8, rslora=rslora).scale == (2.0 if rslora else 0.5)


def test_fused_lora_matches_ordinary_operations_in_float64():
    """The in-place forward and the hand-written backward against autograd on the formula, and finite differences."""
    generator = torch.Generator().manual_seed(0)
    base = nn.Linear(6, 5).double()
    layer = LoRALinear(base, LoRASpec(rank=2, alpha=3), generator).double()
    base.requires_grad_(False)
    layer.lora_B.data.normal_(generator=generator)
    x = torch.randn(2, 3, 6, dtype=torch.float64, generator=generator, requires_grad=True)

    def plain(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return F.linear(x, base.weight + layer.scale * b @ a, base.bias)

    torch.testing.assert_close(layer(x), plain(x, layer.lora_A, layer.lora_B))
    weights = torch.randn(2, 3, 5, dtype=torch.float64, generator=generator)
    ours = torch.autograd.grad((layer(x) * weights).sum(), [x, layer.lora_A, layer.lora_B])
    theirs = torch.autograd.grad(
        (plain(x, layer.lora_A, layer.lora_B) * weights).sum(), [x, layer.lora_A, layer.lora_B]
    )
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other)
    assert torch.autograd.gradcheck(layer, (x,))


def test_lora_dropout_touches_the_companion_only_and_only_in_training():
    built = model()
    LoRASpec(rank=4, dropout=0.5).apply(built)
    stirred(built)
    layer = next(layer for _, layer in lora_layers(built))
    x = torch.ones(4000, layer.in_features)
    built.eval()
    exact = layer(x)
    built.train()
    drawn = layer(x)
    assert not torch.equal(drawn, layer(x))
    torch.testing.assert_close(drawn.mean(0), exact.mean(0), rtol=0.2, atol=0.05)
    layer.lora_B.data.zero_()
    torch.testing.assert_close(layer(x), layer.base(x))


@pytest.mark.parametrize("bits", [None, 8, 4])
def test_merge_is_the_same_function_and_unmerge_restores_bit_for_bit(bits: Any):
    built = model()
    if bits:
        quantize_linears(built, bits, group=16)
    LoRASpec(rank=4).apply(built)
    stirred(built)
    before = {name: tensor.clone() for name, tensor in built.state_dict().items()}
    adapted = built(tokens()).detach()
    merge(built)
    merged = built(tokens()).detach()
    torch.testing.assert_close(merged, adapted, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        for _, layer in lora_layers(built):
            layer.lora_A.add_(1)  # merged, the companions are out of use
    assert torch.equal(built(tokens()), merged)
    with torch.no_grad():
        for name, layer in lora_layers(built):
            layer.lora_A.copy_(before[f"{name}.lora_A"])
    unmerge(built)
    after = built.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert torch.equal(built(tokens()), adapted)


def test_adding_and_subtracting_instead_does_not_restore_the_weights():
    """The ablation: why the base is kept while merged."""
    layer = next(module for module in model().modules() if isinstance(module, nn.Linear))
    difference = torch.randn(layer.weight.shape, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(layer.weight + difference - difference, layer.weight)


@pytest.mark.parametrize("bits", [None, 8])
def test_fold_leaves_a_plain_model_of_the_same_shape(bits: Any):
    built, fresh = model(), model(seed=5)
    if bits:
        quantize_linears(built, bits)
    LoRASpec(rank=4).apply(built)
    stirred(built)
    adapted = built(tokens()).detach()
    fold(built)
    assert not any(isinstance(module, (LoRALinear, QuantizedLinear)) for module in built.modules())
    fresh.load_state_dict(built.state_dict())
    torch.testing.assert_close(fresh(tokens()), adapted, rtol=1e-4, atol=1e-5)


def test_lora_refuses_shared_weights_and_a_second_time():
    built = model(tied=True)
    with pytest.raises(UserError, match=r"unembed shares its weight with embed"):
        LoRASpec(targets=("unembed",)).apply(built)
    assert all(parameter.requires_grad for parameter in built.parameters()), "a refusal leaves the model alone"
    LoRASpec().apply(built)
    with pytest.raises(UserError, match="already"):
        LoRASpec().apply(built)


@pytest.mark.parametrize("tied", [False, True])
def test_surgery_passes_a_capped_unembedding_by(tied: bool):
    """Gemma 2's caps its scores, which no companion and no quantised layer in its place would do."""
    built = model(tied=tied, logit_softcap=0.5)
    with torch.no_grad():
        for parameter in built.unembed.parameters():
            parameter.mul_(30)
    capped = built.unembed
    for change in (lambda: quantize_linears(built, 8, targets=("*",)), lambda: LoRASpec(targets=("*",)).apply(built)):
        changed = change()
        assert changed
        assert all(name.startswith("blocks.") for name in changed)
        assert built.unembed is capped
        with torch.no_grad():
            torch.testing.assert_close(
                built(tokens()), apply_softcap(built.hidden_states(tokens()) @ capped.weight.T, 0.5)
            )
            assert 0.4 < float(built(tokens()).abs().max()) <= 0.5
    fold(built)
    for refused in (
        lambda: LoRASpec(targets=("unembed",)).apply(built),
        lambda: quantize_linears(built, 4, targets=("unembed",)),
    ):
        with pytest.raises(UserError, match=r"no .*layer of the model is called 'unembed'"):
            refused()


# The oracle: peft on transformers' model with our weights.


def their_name(name: str) -> str:
    _, layer, part = name.split(".", 2) if name.startswith("blocks.") else ("", "", name)
    inside = {"query": "q", "key": "k", "value": "v", "output": "o", "gate": "gate", "up": "up", "down": "down"}
    if not layer:
        return "lm_head"
    kind = "self_attn" if part.startswith("mixer") else "mlp"
    return f"model.layers.{layer}.{kind}.{inside[part.rpartition('.')[2]]}_proj"


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
        layer, _, part = name.rpartition(".")
        return learning[f"base_model.model.{their_name(layer)}.{part}.default.weight"]

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
