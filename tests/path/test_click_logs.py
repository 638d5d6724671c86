"""Click logs: exact expectations against all lists and clicks gone through, and against a simulation."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from underhood.align.enumerable import EnumerableSpec, TablePolicy
from underhood.align.exact import expectation, rlhf_optimum, total_variation
from underhood.path.lib.click_logs import (
    EXAMINATION,
    ClickLog,
    dpo_on_pairs,
    estimated_propensities,
    expected_click_rate_N,
    expected_pair_weights_NN,
    pair_weights_NN,
    position_chances_NK,
    shuffled_clicks,
    visits,
    weighted_clicks,
)

TINY = EnumerableSpec(vocab_size=2, length=2)
BIAS = (1.0, 0.5, 0.2)


def random_policy(spec: EnumerableSpec, seed: int) -> tuple[TablePolicy, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logp_N, gold_N = torch.randn(2, spec.answers, generator=generator, dtype=torch.float64)
    return spec.from_log_probs(logp_N.log_softmax(dim=0)), gold_N.sigmoid()


def every_list(policy: TablePolicy, length: int) -> list[tuple[float, list[int]]]:
    """All lists with their probabilities, as `visits` orders them; equals stay in the order they were drawn in."""
    logp_N = policy.log_probs_N().detach()
    lists = []
    for drawn in itertools.product(range(len(logp_N)), repeat=length):
        chance = math.exp(sum(float(logp_N[y]) for y in drawn))
        lists.append((chance, sorted(drawn, key=lambda y: -float(logp_N[y]))))
    return lists


@pytest.mark.parametrize("propensities", [None, BIAS, (1.0, 0.9, 0.1)])
def test_expectations_match_all_lists_and_clicks_gone_through(propensities: tuple[float, ...] | None):
    policy, utility_N = random_policy(TINY, 0)
    logp_N, answers = policy.log_probs_N().detach(), TINY.answers
    pairs_NN, shown_N, clicked_N = (
        torch.zeros(answers, answers).double(),
        torch.zeros(4).double(),
        torch.zeros(4).double(),
    )
    for chance, order in every_list(policy, 3):
        for clicks in itertools.product([False, True], repeat=3):
            rates = [theta * float(utility_N[y]) for theta, y in zip(BIAS, order, strict=True)]
            p = chance * math.prod(rate if click else 1 - rate for rate, click in zip(rates, clicks, strict=True))
            log = ClickLog(torch.tensor([order]), torch.tensor([clicks]))
            weight_VK = weighted_clicks(log.clicked_VK, propensities)
            pairs_NN += p * pair_weights_NN(log, weight_VK, answers)
            shown_N.index_add_(0, log.answers_VK[0], torch.full((3,), p, dtype=torch.float64))
            clicked_N.index_add_(0, log.answers_VK[0], p * weight_VK[0])
    torch.testing.assert_close(expected_pair_weights_NN(logp_N, utility_N, propensities, BIAS), pairs_NN)
    rate_N = expected_click_rate_N(logp_N, utility_N, propensities, BIAS)
    torch.testing.assert_close(rate_N, clicked_N / shown_N)
    if propensities == BIAS:
        torch.testing.assert_close(rate_N, utility_N)
    else:
        assert float((rate_N - utility_N).abs().max()) > 0.1


def test_odds_of_weighted_pairs_are_those_of_the_utilities():
    policy, utility_N = random_policy(EnumerableSpec(vocab_size=3, length=2), 1)
    logp_N = policy.log_probs_N().detach()
    distinct_NN = ~torch.eye(9, dtype=torch.bool)
    odds_NN = utility_N[:, None] / utility_N
    for propensities, equal in ((EXAMINATION, True), (None, False)):
        weight_NN = expected_pair_weights_NN(logp_N, utility_N, propensities)
        difference = (weight_NN / weight_NN.T / odds_NN)[distinct_NN].log().abs().max()
        assert (float(difference) < 1e-10) == equal


def test_positions_are_certain_for_the_likeliest_and_add_up():
    policy, _ = random_policy(EnumerableSpec(vocab_size=3, length=2), 2)
    logp_N = policy.log_probs_N().detach()
    chance_NK = position_chances_NK(logp_N, 4, 3)
    torch.testing.assert_close(chance_NK.sum(dim=1), torch.ones(9).double())
    torch.testing.assert_close(logp_N.exp() @ chance_NK, torch.full((4,), 0.25).double())
    assert int((chance_NK @ torch.arange(4).double()).argmin()) == int(logp_N.argmax())


def test_logs_have_the_likeliest_first_and_clicks_as_often_as_the_model_says():
    policy, utility_N = random_policy(EnumerableSpec(vocab_size=3, length=2), 3)
    generator, logp_N = torch.Generator().manual_seed(0), policy.log_probs_N().detach()
    log = visits(policy, utility_N, 20_000, generator)
    assert bool((logp_N[log.answers_VK].diff(dim=1) <= 0).all())
    naive, weighted = (float(weighted_clicks(log.clicked_VK, theta).mean()) for theta in (None, EXAMINATION))
    assert naive == pytest.approx(float(expectation(logp_N, expected_click_rate_N(logp_N, utility_N, None))), abs=0.01)
    assert weighted == pytest.approx(float(expectation(logp_N, utility_N)), abs=0.02)


def test_random_order_shows_the_propensities_and_the_usual_order_does_not():
    """In the usual order likelier answers are above, and here they are the better ones."""
    policy, _ = random_policy(EnumerableSpec(vocab_size=3, length=2), 4)
    utility_N = policy.log_probs_N().detach().exp()
    misses = []
    for randomised in (True, False):
        log = visits(policy, utility_N, 20_000, torch.Generator().manual_seed(1), randomised=randomised)
        estimated = estimated_propensities(log)
        misses.append(max(abs(a - b) for a, b in zip(estimated, EXAMINATION, strict=True)))
    assert misses[0] < 0.03
    assert misses[1] > 0.1


def test_shuffled_clicks_keep_the_rate_of_each_position():
    policy, utility_N = random_policy(EnumerableSpec(vocab_size=3, length=2), 5)
    generator = torch.Generator().manual_seed(2)
    log = visits(policy, utility_N, 500, generator)
    other = shuffled_clicks(log, generator)
    assert other.clicked_VK.sum(dim=0).tolist() == log.clicked_VK.sum(dim=0).tolist()
    assert (other.clicked_VK != log.clicked_VK).any()


def test_dpo_on_weighted_clicks_ends_at_the_best_policy_for_log_utility_and_on_plain_clicks_elsewhere():
    policy, utility_N = random_policy(EnumerableSpec(vocab_size=4, length=2), 6)
    logp_N, beta = policy.log_probs_N().detach(), 0.5
    best_logp_N, _ = rlhf_optimum(logp_N, utility_N.log(), beta)
    distances = []
    for propensities in (EXAMINATION, None):
        weight_NN = expected_pair_weights_NN(logp_N, utility_N, propensities)
        end_N = dpo_on_pairs(policy, weight_NN, beta, evaluations=30)
        distances.append(float(total_variation(end_N, best_logp_N)))
    assert distances[0] < 1e-4
    assert distances[1] > 0.2
