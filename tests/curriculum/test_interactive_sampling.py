"""Drawing a token on the page: probabilities equal the library's, and draws follow them."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from interactive_page import Opener

from underhood.curriculum.pages.interactive import next_token_scores
from underhood.infer.sample import SamplingSpec, distribution

TOP_K = [1, 2, 3, 5, 10, 20, 50, 100, None]
SETTINGS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.5},
    {"temperature": 1.5, "top_k": 10},
    {"top_p": 0.9},
    {"min_p": 0.1},
    {"temperature": 1.3, "top_k": 20, "top_p": 0.75, "min_p": 0.05},
    {"temperature": 0.0},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_probabilities_on_the_page_are_those_of_the_library(figure: Opener, settings: dict[str, Any]):
    content = next_token_scores()
    for prompt in (content["prompts"][0], content["prompts"][2]):
        on_page = settings | ({"top_k": TOP_K.index(settings["top_k"])} if "top_k" in settings else {})
        actual = figure("p2019_sampling").set(prompt=prompt["text"], **on_page)
        scores_V = torch.tensor(prompt["scores"], dtype=torch.float64)
        probabilities = distribution(scores_V, SamplingSpec(**settings))
        plain = distribution(scores_V, SamplingSpec(temperature=settings.get("temperature", 1.0)))
        kept = probabilities > 0
        assert actual["kept"] == int(kept.sum())
        assert actual["best"] == pytest.approx(float(probabilities.max()), rel=1e-9)
        entropy = -float((probabilities[kept] * probabilities[kept].log2()).sum())
        assert actual["entropy"] == pytest.approx(entropy, abs=1e-9)
        assert actual["cut"] == pytest.approx(float(plain[~kept].sum()), abs=1e-9)


def test_draws_are_counted_and_forgotten_when_the_distribution_changes(figure: Opener):
    actual = figure("p2019_sampling").press("Draw 20 tokens", times=2)
    assert actual["draws"] == 40
    assert actual.set(temperature=0.7)["draws"] == 0
    assert actual.press("Draw 20 tokens").press("Forget the draws")["draws"] == 0


def test_scores_are_of_a_trained_model():
    content = next_token_scores()
    vocabulary = len(content["tokens"])
    for prompt in content["prompts"]:
        probabilities = torch.tensor(prompt["scores"]).softmax(dim=-1)
        entropy = -float((probabilities * probabilities.log2()).sum())
        assert len(prompt["scores"]) == vocabulary
        assert entropy < 0.8 * math.log2(vocabulary)
