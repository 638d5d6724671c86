"""A folder that peft saved opens as the model that it makes of its base."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import peft
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, Phi3Config, Phi3ForCausalLM

from published import make_published
from text.published_templates import tokenizer_of
from underhood import load
from underhood.cli.main import main
from underhood.core.errors import UserError
from underhood.infer.model_table import FOLDER_VARIABLE

SIZES = {"vocab_size": 300, "initializer_range": 0.25, "pad_token_id": 0}


def llama(folder: Path) -> Any:
    return make_published(folder, "llama3")


def gpt2(folder: Path) -> Any:
    model = GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=2, n_positions=64, bos_token_id=1, **SIZES)).eval()
    model.save_pretrained(folder)
    return model


def phi3(folder: Path) -> Any:
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = Phi3ForCausalLM(Phi3Config(num_key_value_heads=2, max_position_embeddings=64, **sizes, **SIZES)).eval()
    model.save_pretrained(folder)
    return model


def lively(model: Any) -> Any:
    """Both matrices of every layer are random, so that the adapter changes what the model computes."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model.eval()


def save(base: Any, folder: Path, base_name: str, **config: Any) -> Any:
    made = lively(peft.get_peft_model(base, peft.LoraConfig(base_model_name_or_path=base_name, **config)))
    made.peft_config["default"].base_model_name_or_path = base_name
    made.save_pretrained(folder)
    return made


@torch.no_grad()
def logits_of(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    return model(tokens).logits


ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
KINDS: dict[str, tuple[Callable[[Path], Any], dict[str, Any]]] = {
    "all layers": (llama, {"r": 4, "lora_alpha": 6, "target_modules": ALL}),
    "rank-stabilised": (llama, {"r": 9, "lora_alpha": 5, "use_rslora": True, "target_modules": ["q_proj", "up_proj"]}),
    "patterns": (
        llama,
        {
            "r": 4,
            "target_modules": ALL,
            "rank_pattern": {"down_proj": 2, r"layers\.1\.self_attn\.q_proj": 7},
            "alpha_pattern": {"o_proj": 3, r"layers\.0\.mlp\.up_proj": 11},
        },
    ),
    "one layer only": (llama, {"r": 3, "target_modules": ["v_proj"], "layers_to_transform": [1]}),
    "unembedding": (llama, {"r": 3, "target_modules": ["lm_head", "q_proj"]}),
    "GPT-2's joined and turned": (
        gpt2,
        {"r": 4, "target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True},
    ),
    "Phi-3's joined": (phi3, {"r": 4, "target_modules": ["qkv_proj", "gate_up_proj", "o_proj"]}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_adapter_folder_opens_as_the_merged_model_matches_peft(kind: str, tmp_path: Path) -> None:
    make, config = KINDS[kind]
    base = make(tmp_path / "base")
    tokens = torch.arange(3, 40)[None]
    plain = logits_of(base, tokens)
    theirs = save(base, tmp_path / "adapter", str(tmp_path / "base"), **config)
    expected = logits_of(theirs.double(), tokens)  # in float64 the rounding of either side does not matter
    assert (expected - plain).abs().max() > 0.1
    ours = load(tmp_path / "adapter", dtype=torch.float64)
    torch.testing.assert_close(ours(tokens), expected, atol=1e-5, rtol=1e-5)


def test_adapter_takes_its_own_tokenizer_and_template_where_it_has_them(tmp_path: Path) -> None:
    base = llama(tmp_path / "base")
    save(base, tmp_path / "adapter", str(tmp_path / "base"), target_modules=["q_proj"])
    assert load(tmp_path / "adapter").template == load(tmp_path / "base").template
    tokenizer_of("llama3").save(str(tmp_path / "adapter" / "tokenizer.json"))
    assert load(tmp_path / "adapter").template is None  # as its files say


def test_base_is_looked_for_beside_the_adapter_by_name_and_in_the_hub_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hub, models = tmp_path / "hub", tmp_path / "models"
    monkeypatch.setenv(FOLDER_VARIABLE, str(models))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(hub))
    base = llama(tmp_path / "base")
    expected = logits_of(save(base, tmp_path / "adapter", "../base", target_modules=["q_proj"]), torch.arange(9)[None])
    config = tmp_path / "adapter" / "adapter_config.json"

    def opens_with(name: str) -> None:
        config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": name}))
        ours = load(tmp_path / "adapter")(torch.arange(9)[None])
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)

    opens_with("../base")
    with pytest.raises(UserError, match=r"adapter for toys/llama, which is not on .*underhood import hf:toys/llama"):
        opens_with("toys/llama")
    capsys.readouterr()
    assert main(["generate", str(tmp_path / "adapter"), "Once"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    with pytest.raises(UserError, match=r"adapter for /gone/base, which is not on this machine\. Put its folder there"):
        opens_with("/gone/base")
    shutil.copytree(tmp_path / "base", models / "toy")
    opens_with("toy")
    repo = hub / "models--toys--llama"
    shutil.copytree(tmp_path / "base", repo / "snapshots" / "abc")
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("abc")
    opens_with("toys/llama")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"peft_type": "IA3"}, r"not a LoRA adapter; got 'IA3'"),
        ({"use_dora": True}, "asks for use_dora"),
        ({"modules_to_save": ["lm_head"]}, "asks for modules_to_save"),
        ({"trainable_token_indices": [3]}, "asks for trainable_token_indices"),
        ({"alora_invocation_tokens": [1, 2]}, "asks for alora_invocation_tokens"),
        ({"bias": "all"}, "trains biases"),
        ({"init_lora_weights": "pissa"}, "starts from changed base weights.*'pissa'"),
        ({"r": 5}, r"wrong shape; expected \(5, 32\), got \(8, 32\)"),
        ({"base_model_name_or_path": None}, "does not name the adapter's base"),
    ],
)
def test_adapter_that_is_no_plain_sum_is_refused_by_name(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    base = llama(tmp_path / "base")
    save(base, tmp_path / "adapter", str(tmp_path / "base"), target_modules=["q_proj"])
    load(tmp_path / "adapter")
    config = tmp_path / "adapter" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    with pytest.raises(UserError, match=message):
        load(tmp_path / "adapter")


def test_adapter_of_another_model_and_embeddings_are_refused_by_layer(tmp_path: Path) -> None:
    save(
        gpt2(tmp_path / "gpt2"), tmp_path / "a", str(tmp_path / "gpt2"), target_modules=["c_attn"], fan_in_fan_out=True
    )
    config = tmp_path / "a" / "adapter_config.json"
    llama(tmp_path / "llama")
    config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": str(tmp_path / "llama")}))
    with pytest.raises(UserError, match=r"belongs to another model than .*no layer transformer\.h\.0\.attn\.c_attn"):
        load(tmp_path / "a")
    save(llama(tmp_path / "b"), tmp_path / "c", str(tmp_path / "b"), target_modules=["embed_tokens"])
    with pytest.raises(UserError, match=r"adapts an embedding.*model\.embed_tokens"):
        load(tmp_path / "c")
    (tmp_path / "c" / "adapter_model.safetensors").rename(tmp_path / "c" / "adapter_model.bin")
    with pytest.raises(UserError, match="pickled and never opened"):
        load(tmp_path / "c")


def test_import_says_that_an_adapter_is_no_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(llama(tmp_path / "base"), tmp_path / "adapter", str(tmp_path / "base"), target_modules=["q_proj"])
    assert main(["import", str(tmp_path / "adapter"), "--check"]) == 2
    assert "is a LoRA adapter for" in capsys.readouterr().err
