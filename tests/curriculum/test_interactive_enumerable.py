"""The page with all answers of a tiny policy: its numbers are those of `align.exact`, its training that of the sums."""

from __future__ import annotations

import pytest
import torch
from interactive_page import InteractiveFigure, Opener
from torch import Tensor

from underhood.align.exact import best_of_n, entropy, expectation, kl_divergence, rlhf_optimum, total_variation
from underhood.curriculum.pages.interactive import every_answer

STEM = "p2022_overoptimisation"
BETAS = [5, 3, 2, 1.5, 1, 0.7, 0.5, 0.35, 0.25, 0.2, 0.15, 0.1, 0.07, 0.05]
K1, K3, K1_LOSS, K2_LOSS, K3_LOSS = (
    "k1 in the reward",
    "k3 in the reward",
    "k1 as a loss",
    "k2 as a loss",
    "k3 as a loss",
)


def tables() -> tuple[Tensor, Tensor, Tensor]:
    content = every_answer()
    ref_N, gold_N, proxy_N = (torch.tensor(content[name], dtype=torch.float64) for name in ("ref", "gold", "proxy"))
    return ref_N.log(), gold_N, proxy_N


def check(actual: InteractiveFigure, logp_N: Tensor) -> None:
    ref_logp_N, gold_N, proxy_N = tables()
    assert actual["gold"] == pytest.approx(float(expectation(logp_N, gold_N)), abs=1e-6)
    assert actual["proxy"] == pytest.approx(float(expectation(logp_N, proxy_N)), abs=1e-6)
    assert actual["kl"] == pytest.approx(float(kl_divergence(logp_N, ref_logp_N)), abs=1e-6)
    assert actual["entropy"] == pytest.approx(float(entropy(logp_N)), abs=1e-6)
    assert actual["answer"] == int(logp_N.argmax())


@pytest.mark.parametrize("beta", [2, 0.5, 0.07])
def test_best_policy_is_the_closed_form(figure: Opener, beta: float):
    actual = figure(STEM).set(beta=BETAS.index(beta), shown="best policy at this β")
    ref_logp_N, _, proxy_N = tables()
    check(actual, rlhf_optimum(ref_logp_N, proxy_N, beta)[0])
    assert actual["distance"] == 0


@pytest.mark.parametrize("power", [0, 3, 10])
def test_best_of_n_is_the_closed_form(figure: Opener, power: int):
    actual = figure(STEM).set(n=power, shown="best of n")
    ref_logp_N, _, proxy_N = tables()
    check(actual, best_of_n(ref_logp_N, proxy_N, 2**power))


@pytest.mark.parametrize("term", [K1, K3, K1_LOSS, K2_LOSS, K3_LOSS])
def test_training_follows_the_expected_gradient(figure: Opener, term: str):
    """Each step by autograd through the sampled loss; divided by the probabilities that is the natural gradient."""
    beta, steps = 1.0, 40
    ref_logp_N, _, proxy_N = tables()
    logits_N = ref_logp_N.clone()
    for _ in range(steps):
        logits_N.requires_grad_()
        logp_N = logits_N.log_softmax(dim=0)
        log_ratio_N, p_N = logp_N - ref_logp_N, logp_N.detach().exp()
        k3_N = torch.expm1(-log_ratio_N) + log_ratio_N
        in_reward = {K1: log_ratio_N, K3: k3_N}.get(term, torch.zeros_like(logp_N)).detach()
        as_loss = {K1_LOSS: log_ratio_N, K2_LOSS: log_ratio_N**2 / 2, K3_LOSS: k3_N}.get(term, torch.zeros_like(logp_N))
        gain = (p_N * ((proxy_N - beta * in_reward) * logp_N - beta * as_loss)).sum()
        (gradient_N,) = torch.autograd.grad(gain, logits_N)
        logits_N = logits_N.detach() + (0.2 * gradient_N / p_N).clamp(-1, 1)
    actual = figure(STEM).set(beta=BETAS.index(beta), steps=steps, term=term, shown="trained")
    check(actual, logits_N.log_softmax(dim=0))
    best_logp_N, _ = rlhf_optimum(ref_logp_N, proxy_N, beta)
    distance = float(total_variation(logits_N.log_softmax(dim=0), best_logp_N))
    assert actual["distance"] == pytest.approx(distance, abs=1e-6)
    assert (distance < 0.001) == (term in (K1, K2_LOSS))


def test_true_reward_rises_then_falls_while_the_fitted_one_rises(figure: Opener):
    actual = figure(STEM).set(shown="best policy at this β")
    gold, proxy = [], []
    for position in range(len(BETAS)):
        actual.set(beta=position)
        gold.append(actual["gold"])
        proxy.append(actual["proxy"])
    assert proxy == sorted(proxy)
    assert max(gold) > gold[0] + 0.5
    assert max(gold) > gold[-1] + 0.3
