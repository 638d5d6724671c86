"""Published models have their published sizes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from underhood.core.config import from_json, to_json
from underhood.core.errors import UserError
from underhood.models.decoder import DecoderSpec
from underhood.models.presets import CONFIGS, count_parameters, preset

PUBLISHED = {
    "gpt2": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
    "llama-2-7b": 6_738_415_616,
    "llama-2-13b": 13_015_864_320,
    "llama-2-70b": 68_976_648_192,
    "llama-3-8b": 8_030_261_248,
    "llama-3.1-8b": 8_030_261_248,
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.2-3b": 3_212_749_824,
    "smollm-135m": 134_515_008,
    "mistral-7b-v0.1": 7_241_732_096,
    "mixtral-8x7b": 46_702_792_704,
    "qwen2.5-0.5b": 494_032_768,
    "qwen2.5-7b": 7_615_616_512,
    "qwen3-0.6b": 596_049_920,
    "gemma-2-2b": 2_614_341_888,
    "gemma-3-1b": 999_885_952,
    "phi-3-mini-4k": 3_821_079_552,
    "olmo-2-7b": 7_298_617_344,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_preset_has_the_published_size(name: str) -> None:
    assert count_parameters(preset(name))[0] == PUBLISHED[name]


def test_preset_mixture_uses_the_published_share() -> None:
    assert count_parameters(preset("mixtral-8x7b"))[1] == 12_879_925_248
    # 128 experts in each of 48 equal layers: two of them tell the size of all.
    first, two = (count_parameters(replace(preset("qwen3-30b-a3b"), layers=layers)) for layers in (1, 2))
    assert tuple(a + 47 * (b - a) for a, b in zip(first, two, strict=True)) == (30_532_122_624, 3_353_032_704)


def of_transformers(config: dict[str, Any]) -> int:
    from transformers import AutoConfig, AutoModelForCausalLM

    keys = {key: value for key, value in config.items() if key != "model_type"}
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(config["model_type"], **keys))
    return sum(parameter.numel() for parameter in model.parameters())


# One of each family; the biggest ones too, for nothing is allocated.
@pytest.mark.parametrize(
    "name", [name for name in PUBLISHED if not name.startswith(("gpt2-", "llama-2-1", "llama-3.1"))]
)
def test_preset_size_matches_transformers(name: str) -> None:
    assert of_transformers(CONFIGS[name]) == PUBLISHED[name]


@pytest.mark.parametrize("name", CONFIGS)
def test_preset_round_trips_through_json(name: str) -> None:
    assert from_json(DecoderSpec, to_json(preset(name))) == preset(name)


def test_preset_unknown_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"Did you mean mixtral-8x7b\?"):
        preset("mixtral-8x7")
