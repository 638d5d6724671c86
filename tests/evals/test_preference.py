"""Rewards and margins against their definition on plain logits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_models import Bigram

from underhood.evals.preference import PairLogProbs, PreferenceItem, compare_with_reference, score_pairs

V = 19


def items(count: int = 30) -> list[PreferenceItem]:
    rng = np.random.default_rng(0)
    cut = lambda: tuple(rng.integers(0, V, rng.integers(1, 9)).tolist())  # noqa: E731
    return [PreferenceItem(cut(), cut(), cut()) for _ in range(count)]


def log_prob(model: Bigram, prompt, answer) -> float:
    with torch.no_grad():
        logs = model.eval()(torch.tensor([[*prompt, *answer[:-1]]])).double().log_softmax(-1)[0]
    return sum(float(logs[len(prompt) - 1 + i, token]) for i, token in enumerate(answer))


def test_reward_margin_matches_its_definition():
    policy, reference = Bigram(V, seed=1), Bigram(V, seed=2)
    report = compare_with_reference(score_pairs(policy, items()), score_pairs(reference, items()), beta=0.3)
    reward = lambda item, y: 0.3 * (log_prob(policy, item.prompt, y) - log_prob(reference, item.prompt, y))  # noqa: E731
    expected = [reward(item, item.chosen) - reward(item, item.rejected) for item in items()]
    np.testing.assert_allclose(report.margins_N, expected, atol=1e-5)
    assert report.margin().value == pytest.approx(np.mean(expected), abs=1e-5)
    raw = np.array([log_prob(policy, i.prompt, i.chosen) - log_prob(policy, i.prompt, i.rejected) for i in items()])
    assert report.likelihood_accuracy().value == pytest.approx(np.mean(raw > 0))


def test_policy_equal_to_its_reference_has_no_margin_and_half_the_accuracy():
    scores = score_pairs(Bigram(V, seed=1), items())
    again = score_pairs(Bigram(V, seed=1), items(), batch_tokens=40)  # batches of another shape, the same numbers
    report = compare_with_reference(again, scores, beta=0.1)
    assert report.margin().value == pytest.approx(0, abs=1e-5)


def test_likelihood_per_token_undoes_the_advantage_of_short_answers():
    scores = PairLogProbs(np.array([-10.0]), np.array([-6.0]), np.array([10]), np.array([2]))
    report = compare_with_reference(scores, None, beta=0.1)
    assert report.likelihood_accuracy().value == 0
    assert report.likelihood_accuracy(per_token=True).value == 1
    with pytest.raises(ValueError, match="needs a reference"):
        report.margin()


def test_preference_refuses_no_pairs_and_other_pairs():
    with pytest.raises(ValueError, match="no pairs"):
        score_pairs(Bigram(V), [])
    item, two = score_pairs(Bigram(V), items(3)), score_pairs(Bigram(V), items(4))
    with pytest.raises(ValueError, match="4 pairs of the policy, 3"):
        compare_with_reference(two, item, beta=0.1)
