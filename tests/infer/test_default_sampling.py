"""Default sampling: what the files name wins, then the model's size; options win over both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from underhood.cli.sampling_options import SamplingOptions
from underhood.core.errors import UserError
from underhood.infer.default_sampling import DRAWN, GREEDY_ANSWERS_BELOW, default_sampling, named_sampling
from underhood.infer.sample import GREEDY, SamplingSpec


def folder(tmp_path: Path, config: Any) -> Path:
    (tmp_path / "generation_config.json").write_text(json.dumps(config), encoding="utf-8")
    return tmp_path


def test_answers_of_small_models_are_greedy_and_continued_text_is_drawn():
    assert default_sampling(135_000_000, answers=True) == GREEDY
    assert default_sampling(GREEDY_ANSWERS_BELOW, answers=True) == DRAWN
    assert default_sampling(135_000_000, answers=False) == DRAWN


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"eos_token_id": [2, 0]}, {}),
        ({"do_sample": False, "temperature": 0.6}, {"temperature": 0.0}),
        ({"do_sample": True}, {"temperature": 1.0}),
        (  # Qwen2.5-0.5B-Instruct
            {"do_sample": True, "repetition_penalty": 1.1, "temperature": 0.7, "top_p": 0.8, "top_k": 20},
            {"repetition_penalty": 1.1, "temperature": 0.7, "top_p": 0.8, "top_k": 20},
        ),
        ({"do_sample": True, "temperature": 0.6, "top_p": 0.9, "top_k": 0}, {"temperature": 0.6, "top_p": 0.9}),
        ({"repetition_penalty": 1.2}, {"repetition_penalty": 1.2}),
    ],
)
def test_named_sampling_is_that_of_generation_config(tmp_path: Path, config: dict[str, Any], expected: dict[str, Any]):
    assert named_sampling(folder(tmp_path, config)) == expected


def test_what_the_files_name_wins_over_the_size(tmp_path: Path):
    named = named_sampling(folder(tmp_path, {"do_sample": True, "temperature": 0.6, "top_p": 0.9}))
    assert default_sampling(10_000, answers=True, named=named) == SamplingSpec(temperature=0.6, top_p=0.9)
    greedy = named_sampling(folder(tmp_path, {"do_sample": False}))
    assert default_sampling(10**10, answers=True, named=greedy) == GREEDY


def test_a_penalty_alone_leaves_the_temperature_to_the_size():
    spec = default_sampling(10_000, answers=True, named={"repetition_penalty": 1.2})
    assert spec == SamplingSpec(temperature=0.0, repetition_penalty=1.2)


@pytest.mark.parametrize("text", ["[1]", "{", '{"temperature": "hot"}', '{"top_p": 7}', '{"temperature": true}'])
def test_a_damaged_generation_config_is_named(tmp_path: Path, text: str):
    (tmp_path / "generation_config.json").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"generation_config\.json"):
        named_sampling(tmp_path)


def test_options_win_over_the_default_whatever_it_is():
    named = SamplingSpec(temperature=0.6, top_p=0.9, top_k=20)
    assert SamplingOptions().sampling(named) == named
    assert SamplingOptions(temperature=0.0).sampling(named).greedy
    assert SamplingOptions(top_k=0, seed=3).sampling(named) == SamplingSpec(temperature=0.6, top_p=0.9, seed=3)
    assert SamplingOptions(temperature=1.0).sampling(GREEDY) == SamplingSpec(temperature=1.0, min_p=0.05)
    assert SamplingOptions(seed=1).sampling(GREEDY).greedy
    with pytest.raises(UserError, match="temperature is out of range"):
        SamplingOptions(temperature=-1.0).sampling(GREEDY)
