"""Published configurations are read: every key judged, the published size, and the same function as in transformers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import published_configs
import pytest
import torch

from needs import shared_data
from underhood.core.errors import UserError
from underhood.models.config_keys import ignoring_config_keys
from underhood.models.decoder import DecoderSpec
from underhood.models.hub_weights import load_decoder
from underhood.models.huggingface import family_name, spec_from_config, unused_config_keys
from underhood.models.presets import count_parameters

PROMISED = {"gpt2", "llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen3_moe", "gemma2", "gemma3_text", "gemma3"} | {
    "phi3",
    "olmo2",
}


def count(spec: DecoderSpec) -> int:
    """The parameters; of many equal layers two tell the size of all."""
    if len(spec.blocks) > 1:
        return count_parameters(spec)[0]
    first, two = (count_parameters(replace(spec, layers=layers))[0] for layers in (1, 2))
    return first + (spec.layers - 1) * (two - first)


def test_table_holds_many_models_of_every_promised_family() -> None:
    families = [family_name(published_configs.config(name)) for name in published_configs.NAMES]
    assert len(families) >= 60
    assert set(families) >= PROMISED


@pytest.mark.parametrize("name", published_configs.NAMES)
def test_published_config_is_read_and_has_the_published_size(name: str) -> None:
    data = published_configs.config(name)
    spec = spec_from_config(data, where=name)
    assert not {key.why for key in unused_config_keys(data)} & {"unknown", "unsupported", "ignored"}
    expected = published_configs.parameters(name)
    if expected is not None:
        assert count(spec) == expected


def peer(data: dict[str, Any], folder: Path) -> torch.nn.Module:
    """transformers' model of these keys with lively random weights, saved with exactly these keys."""
    from transformers import AutoConfig, AutoModelForCausalLM

    keys = {key: value for key, value in data.items() if key != "model_type"}
    torch.manual_seed(0)
    if keys.get("rope_scaling", {}) and keys["rope_scaling"].get("type") == "su":  # LongRoPE's name until July 2024
        keys["rope_scaling"] = keys["rope_scaling"] | {"type": "longrope"}
        keys["rope_scaling"]["original_max_position_embeddings"] = keys["original_max_position_embeddings"]
    config = AutoConfig.for_model(family_name(data), **keys)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
    model.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(data))
    return model


@torch.no_grad()
def assert_same_function(data: dict[str, Any], folder: Path) -> None:
    theirs = peer(data, folder)
    ours = load_decoder(folder)
    tokens = torch.arange(3, 40)[None]
    expected = theirs(tokens).logits
    assert expected.std() > 0.05, "the model is too dull to tell anything"
    torch.testing.assert_close(ours(tokens), expected, atol=1e-4, rtol=1e-4)


# Llama's many files differ in names, dates and sizes; one of each set of keys shows what the keys mean.
DISTINCT = {
    (family_name(data), *sorted(data), str(data.get("rope_scaling"))): name
    for name in published_configs.NAMES
    for data in [published_configs.config(name)]
}


@pytest.mark.parametrize("name", DISTINCT.values())
def test_published_keys_mean_what_transformers_reads(name: str, tmp_path: Path) -> None:
    assert_same_function(published_configs.tiny_config(name), tmp_path)


FAULTS = [f"llama_{kind}" for kind in ("both", "dynamic", "flash", "maxseq", "plain", "quantnull", "ropenull")] + [
    *("distil", "gpt2_plain", "phi3_plain", "phi4mini_mod", "qwen25_mrope", "qwen2_plain"),
]


@pytest.mark.parametrize("name", FAULTS)
def test_configs_that_users_reported_mean_what_transformers_reads(name: str, tmp_path: Path) -> None:
    data = json.loads(shared_data("faults", f"config_{name}.json").read_text()) | {"initializer_range": 0.3}
    assert_same_function(data, tmp_path)


LLAMA = published_configs.config("meta-llama/Meta-Llama-3-8B")
QWEN3 = published_configs.config("Qwen/Qwen3-0.6B")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"_anything": {"deep": 1}}, "private"),
        ({"use_mrope": False}, "empty"),
        ({"mystery": None}, "empty"),
        ({"mystery": []}, "empty"),
        ({"mystery": {}}, "empty"),
        ({"mystery": ""}, "empty"),
        ({"predict_special_tokens": True}, "harmless"),
        ({"full_attn_mod": 1}, "harmless"),
        ({"is_causal": True}, "harmless"),
    ],
)
def test_unread_key_passes_with_its_reason(change: dict[str, Any], why: str) -> None:
    [key] = change
    assert {unused.key: unused.why for unused in unused_config_keys(LLAMA | change)}[key] == why


@pytest.mark.parametrize(
    ("data", "change", "message"),
    [
        (LLAMA, {"mystery": 0}, "does not know: 'mystery'"),  # zero may be a size or a scale
        (
            LLAMA,
            {"mystery": True, "other": "x"},
            "does not know: 'mystery', 'other'.*--ignore-config-keys mystery other",
        ),
        (LLAMA, {"scale_attn_weights": False}, "scale_attn_weights .*expected True, got False"),
        (LLAMA, {"use_rope": False}, "use_rope .*expected True, got False"),
        (LLAMA, {"full_attn_mod": 2}, "full_attn_mod .*not supported"),
        (LLAMA, {"quantization_config": {"bits": 4}}, "quantization_config .*not supported"),
        (QWEN3, {"use_qk_norm": False}, "use_qk_norm .*expected True or None, got False"),
        (LLAMA, {"rope_scaling": {"rope_type": "linear", "factor": 2.0, "twist": True}}, "does not know: 'twist'"),
        (
            published_configs.config("mistralai/Mistral-7B-v0.1"),
            {"use_sliding_window": False},
            "use_sliding_window .*expected True or None, got False",
        ),
    ],
)
def test_unread_key_that_may_matter_is_refused(data: dict[str, Any], change: dict[str, Any], message: str) -> None:
    spec_from_config(data)
    with pytest.raises(UserError, match=message):
        spec_from_config(data | change)


def test_ignored_keys_pass_only_inside_and_only_where_they_are_unknown() -> None:
    strange = LLAMA | {"mystery": 3, "rope_scaling": {"rope_type": "linear", "factor": 2.0, "twist": 1}}
    with ignoring_config_keys(["mystery", "twist"]):
        assert spec_from_config(strange).blocks[0] != spec_from_config(LLAMA).blocks[0]  # the scaling is still read
        ignored = [unused.key for unused in unused_config_keys(strange) if unused.why == "ignored"]
        assert sorted(ignored) == ["mystery", "rope_scaling.twist"]
    with pytest.raises(UserError, match="does not know: 'twist'"):
        spec_from_config(strange)
    with ignoring_config_keys(["rope_theta"]), pytest.raises(UserError, match="'rope_theta' decides what the model"):
        spec_from_config(LLAMA)
    with ignoring_config_keys(["is_causal"]), pytest.raises(UserError, match=r"is_causal .* is not supported"):
        spec_from_config(LLAMA | {"is_causal": False})


def test_false_and_null_of_keys_that_are_read_still_decide() -> None:
    tied = published_configs.config("Qwen/Qwen3-0.6B")
    assert spec_from_config(tied).tied
    assert not spec_from_config(tied | {"tie_word_embeddings": False}).tied
    gemma = published_configs.config("google/gemma-2-2b-it")
    assert spec_from_config(gemma).logit_softcap == 30.0
    assert spec_from_config(gemma | {"final_logit_softcapping": None}).logit_softcap is None


def test_context_of_the_first_llamas_is_where_their_files_have_it() -> None:
    contexts = {
        name: spec_from_config(published_configs.config(name)).context_length for name in published_configs.NAMES
    }
    assert contexts["huggyllama/llama-65b"] == contexts["huggyllama/llama-7b"] == 2048
    assert contexts["lmsys/vicuna-7b-v1.5-16k"] == 16384
    assert contexts["meta-llama/Llama-2-7b-hf"] == 4096


def test_dynamic_scaling_is_exact_within_the_context_and_refused_beyond() -> None:
    data = LLAMA | {"rope_scaling": {"type": "dynamic", "factor": 2.0}}
    assert spec_from_config(data) == spec_from_config(LLAMA)
    with pytest.raises(UserError, match="expected a context up to 8,192, got 16384"):
        spec_from_config(data, context_length=16384)
