"""The enumerable policy against counting, and its exact quantities against closed forms and brute force."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from underhood.align.enumerable import EnumerableSpec
from underhood.align.exact import (
    best_of_n,
    best_of_n_kl_bound,
    entropy,
    expectation,
    kl_divergence,
    rlhf_objective,
    rlhf_optimum,
    total_variation,
)

SMALL = EnumerableSpec(vocab_size=3, length=3)


def random_N(count: int, seed: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_answers_are_all_token_sequences_in_order():
    assert SMALL.tokens_NT().tolist() == [list(answer) for answer in itertools.product(range(3), repeat=3)]
    assert EnumerableSpec().answers == 32_768


def test_spec_needs_two_tokens_and_a_position():
    for wrong in ({"vocab_size": 1}, {"length": 0}):
        with pytest.raises(ValueError, match="at least"):
            EnumerableSpec(**wrong)


def test_table_can_have_any_distribution():
    logp_N = random_N(EnumerableSpec().answers, 0, 2.0).log_softmax(dim=0)
    policy = EnumerableSpec().from_log_probs(logp_N)
    torch.testing.assert_close(policy.log_probs_N(), logp_N)
    torch.testing.assert_close(policy.token_log_probs_NT().sum(dim=1), logp_N)


def test_logits_of_the_model_are_the_same_policy():
    policy = SMALL.from_log_probs(random_N(27, 1).log_softmax(dim=0))
    tokens_NT = SMALL.tokens_NT()
    inputs_NT = torch.cat([torch.full((27, 1), 2), tokens_NT[:, :-1]], dim=1)
    logp_NT = policy(inputs_NT).log_softmax(dim=-1).gather(2, tokens_NT[..., None])[..., 0]
    torch.testing.assert_close(logp_NT, policy.token_log_probs_NT())
    with pytest.raises(ValueError, match="at most 3 tokens"):
        policy(torch.zeros(1, 4, dtype=torch.int64))
    with pytest.raises(ValueError, match="padding"):
        policy(inputs_NT, positions=inputs_NT)


def test_contexts_are_what_the_logits_are_indexed_by():
    policy = SMALL.from_log_probs(random_N(27, 2).log_softmax(dim=0))
    tokens_NT, contexts_NT = SMALL.tokens_NT(), SMALL.contexts_NT()
    for t, logits_CV in enumerate(policy.logits):
        logp_N = logits_CV.log_softmax(dim=1)[contexts_NT[:, t], tokens_NT[:, t]]
        torch.testing.assert_close(logp_N, policy.token_log_probs_NT()[:, t])


def test_log_probs_of_some_answers_are_those_of_the_table():
    policy = SMALL.from_log_probs(random_N(27, 2).log_softmax(dim=0))
    answers_B = torch.tensor([26, 0, 7, 7])
    torch.testing.assert_close(policy.sampled_log_probs_BT(answers_B), policy.token_log_probs_NT()[answers_B])
    dropped_BT = policy.sampled_log_probs_BT(answers_B, dropout=0.5)
    assert (dropped_BT - policy.token_log_probs_NT()[answers_B]).abs().max() > 0.01


def test_samples_come_as_often_as_the_table_says():
    from scipy.stats import chisquare

    policy = SMALL.from_log_probs(random_N(27, 3).log_softmax(dim=0))
    draws_B = policy.sample(20_000, torch.Generator().manual_seed(0))
    counts_N = draws_B.bincount(minlength=27).double()
    assert chisquare(counts_N.numpy(), (20_000 * policy.log_probs_N().exp()).detach().numpy()).pvalue > 1e-3


def test_exact_gradient_matches_finite_differences():
    policy = SMALL.from_log_probs(random_N(27, 4).log_softmax(dim=0))
    ref_logp_N, reward_N = random_N(27, 5).log_softmax(dim=0), random_N(27, 6)

    def objective() -> Tensor:
        return rlhf_objective(policy.log_probs_N(), ref_logp_N, reward_N, 0.3)

    objective().backward()
    h = 1e-6
    with torch.no_grad():
        for logits_CV in policy.logits:
            assert logits_CV.grad is not None
            for index in range(logits_CV.numel()):
                values = []
                for sign in (1, -1):
                    logits_CV.view(-1)[index] += sign * h
                    values.append(float(objective()))
                    logits_CV.view(-1)[index] -= sign * h
                slope = (values[0] - values[1]) / (2 * h)
                assert float(logits_CV.grad.view(-1)[index]) == pytest.approx(slope, abs=1e-8)


@pytest.mark.parametrize("beta", [0.05, 0.5, 3.0])
def test_no_policy_beats_the_closed_form_optimum(beta: float):
    ref_logp_N, reward_N = random_N(27, 7).log_softmax(dim=0), random_N(27, 8)
    best_logp_N, value = rlhf_optimum(ref_logp_N, reward_N, beta)
    assert float(rlhf_objective(best_logp_N, ref_logp_N, reward_N, beta)) == pytest.approx(value, abs=1e-12)
    for seed in range(20):  # what any other policy misses is exactly β KL(π ‖ π*)
        logp_N = (0.5 * best_logp_N + random_N(27, seed)).log_softmax(dim=0)
        gap = value - float(rlhf_objective(logp_N, ref_logp_N, reward_N, beta))
        assert gap == pytest.approx(beta * float(kl_divergence(logp_N, best_logp_N)), abs=1e-12)
        assert gap > 0


def test_optimum_needs_a_positive_beta():
    with pytest.raises(ValueError, match="beta"):
        rlhf_optimum(torch.zeros(2), torch.zeros(2), 0.0)


def test_quantities_match_scipy():
    from scipy import stats

    p_N, q_N = random_N(50, 9).softmax(dim=0), random_N(50, 10).softmax(dim=0)
    assert float(kl_divergence(p_N.log(), q_N.log())) == pytest.approx(stats.entropy(p_N.numpy(), q_N.numpy()))
    assert float(entropy(p_N.log())) == pytest.approx(stats.entropy(p_N.numpy()))
    larger = p_N > q_N  # the event in whose probability they differ most
    assert float(total_variation(p_N.log(), q_N.log())) == pytest.approx(float((p_N - q_N)[larger].sum()))
    certain_N = torch.tensor([0.0, -math.inf])
    assert float(kl_divergence(certain_N, torch.tensor([0.5, 0.5]).log())) == pytest.approx(math.log(2))


@pytest.mark.parametrize("n", [1, 2, 3])
def test_best_of_n_matches_all_draws_of_n_answers(n: int):
    logp_N = random_N(6, 11).log_softmax(dim=0)
    score_N = torch.tensor([0.0, 1.0, 1.0, -2.0, 1.0, 3.0], dtype=torch.float64)  # with ties
    expected_N = torch.zeros(6, dtype=torch.float64)
    for draws in itertools.product(range(6), repeat=n):
        best = max(float(score_N[draw]) for draw in draws)
        winners = [draw for draw in draws if float(score_N[draw]) == best]
        for winner in winners:
            expected_N[winner] += float(logp_N[list(draws)].sum().exp()) / len(winners)
    torch.testing.assert_close(best_of_n(logp_N, score_N, n).exp(), expected_N)


def test_best_of_n_needs_an_answer():
    with pytest.raises(ValueError, match="at least 1"):
        best_of_n(torch.zeros(1), torch.zeros(1), 0)


@pytest.mark.parametrize("n", [2, 16, 1024])
def test_kl_of_best_of_n_is_below_the_bound_and_nears_it_as_answers_get_rarer(n: int):
    gaps = []
    for answers in (64, 1024, 16_384):
        logp_N = torch.full((answers,), -math.log(answers), dtype=torch.float64)
        kl = float(kl_divergence(best_of_n(logp_N, torch.arange(answers).double(), n), logp_N))
        gaps.append(best_of_n_kl_bound(n) - kl)
    assert gaps[0] > gaps[1] > gaps[2] > 0
    assert gaps[2] < 1e-6 * n**2


def test_kl_of_best_of_n_is_far_below_the_bound_with_ties():
    """Two scores: no n makes the KL larger than the surprise of the better one."""
    logp_N = torch.full((4,), 0.25, dtype=torch.float64).log()
    score_N = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=torch.float64)
    kl = float(kl_divergence(best_of_n(logp_N, score_N, 10_000), logp_N))
    assert kl == pytest.approx(math.log(4))
    assert best_of_n_kl_bound(10_000) > 8


def test_expected_score_of_best_of_n_is_the_order_statistic():
    """Of n draws from the numbers 1 to M with equal chance: ``Σ k ((k/M)ⁿ − ((k−1)/M)ⁿ)``."""
    answers, n = 100, 7
    logp_N = torch.full((answers,), -math.log(answers), dtype=torch.float64)
    score_N = torch.arange(1, answers + 1).double()
    expected = sum(k * ((k / answers) ** n - ((k - 1) / answers) ** n) for k in range(1, answers + 1))
    assert float(expectation(best_of_n(logp_N, score_N, n), score_N)) == pytest.approx(expected)
    assert float(expectation(best_of_n(logp_N, score_N, 1), score_N)) == pytest.approx(50.5)
