"""Where each method ends on the enumerable policy, trained on its exact expected loss: at RLHF's optimum or elsewhere.

Training goes through the methods' own loss code. Each limit is compared with a closed form.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from underhood.align.dpo import DPOSpec
from underhood.align.enumerable import EnumerableSpec, TablePolicy
from underhood.align.exact import kl_divergence, rlhf_optimum, total_variation
from underhood.align.expected_updates import expected_ppo_gradient, state_values_NT
from underhood.align.kto import KTOSpec, kl_estimate, kto_loss
from underhood.align.orpo import log_odds
from underhood.align.population import PairPopulation, margin_loss
from underhood.align.ppo import PPOSpec
from underhood.align.simpo import SimPOSpec
from underhood.path.lib.exact_training import minimise
from underhood.path.lib.word_task import SPEC, WordTask, draw_task

BETA = 1.0
REACHED = 0.02
"""Total variation below which a policy counts as the optimum."""

BETAS = torch.logspace(-1.5, 1.5, 60).tolist()
LOGISTIC = margin_loss(DPOSpec(beta=1.0))
SMALL = draw_task(0, EnumerableSpec(vocab_size=8, length=3))


def distance(logp_N: Tensor, task: WordTask, beta: float = BETA) -> float:
    """Total variation from the optimum of RLHF with this β."""
    return float(total_variation(logp_N, rlhf_optimum(task.ref_logp_N, task.gold_N, beta)[0]))


def least_distance(logp_N: Tensor, task: WordTask) -> float:
    """From the nearest optimum of RLHF, whatever its β."""
    return min(distance(logp_N, task, beta) for beta in BETAS)


# DPO


def dpo(task: WordTask, *, reference: bool = True, beta: float = BETA) -> Tensor:
    """The policy at the end of DPO on all pairs of answers."""
    population = PairPopulation(task.ref_logp_N, task.gold_N)
    reference_N = task.ref_logp_N if reference else torch.zeros_like(task.ref_logp_N)
    return minimise(
        task.reference(), lambda logp_N: population.loss(beta * (logp_N - reference_N), LOGISTIC), evaluations=20
    )


def test_dpo_reaches_the_optimum_of_rlhf_and_without_its_reference_or_its_beta_does_not():
    assert distance(dpo(SMALL), SMALL) < REACHED
    assert distance(dpo(SMALL, beta=1.3 * BETA), SMALL) > 3 * REACHED
    assert distance(dpo(SMALL, reference=False), SMALL) > 0.3


@pytest.mark.slow
def test_dpo_reaches_the_optimum_over_32_768_answers():
    task = draw_task(1, SPEC)
    assert distance(dpo(task), task) < REACHED
    assert distance(dpo(task, reference=False), task) > 0.3


# PPO


def ppo(task: WordTask, spec: PPOSpec, *, rollouts: int = 40, lr: float = 0.1) -> Tensor:
    """The policy at the end of PPO: GAE with true values, four clipped updates on each rollout, Adam, annealed.

    A rollout here is every answer, with the probability that the sampling policy has for it.
    """
    policy, sampled = task.reference(), task.reference()
    ref_logp_NT = policy.token_log_probs_NT().detach()
    optimizer = torch.optim.Adam(policy.parameters(), lr=lr, eps=1e-12)
    for rollout in range(rollouts):
        optimizer.param_groups[0]["lr"] = lr * (1 - rollout / rollouts)
        sampled.load_state_dict(policy.state_dict())
        values_NT = state_values_NT(sampled, ref_logp_NT, task.gold_N, spec.beta)
        for _ in range(spec.epochs):
            ascend(
                policy,
                expected_ppo_gradient(policy, ref_logp_NT, task.gold_N, spec, values_NT=values_NT, sampled=sampled),
            )
            optimizer.step()
    return policy.log_probs_N().detach()


def ascend(policy: TablePolicy, gradient_P: Tensor) -> None:
    """Sets the gradients that an optimiser descends."""
    sizes = [logits_CV.numel() for logits_CV in policy.parameters()]
    for logits_CV, gradient_K in zip(policy.parameters(), gradient_P.split(sizes), strict=True):
        logits_CV.grad = -gradient_K.view_as(logits_CV)


PPO = PPOSpec(beta=BETA)


def test_ppo_reaches_the_optimum_of_rlhf():
    assert PPO.lam < 1
    assert distance(ppo(SMALL, PPO), SMALL) < REACHED


@pytest.mark.parametrize(
    ("changed", "further"),
    [
        pytest.param({"beta": 1.3 * BETA}, 3 * REACHED, id="another β"),
        pytest.param({"beta": 0.0}, 0.5, id="no KL in the reward"),
        pytest.param({"kl_estimator": "k3"}, 0.5, id="k3 in the reward"),
    ],
)
def test_ppo_with_another_kl_penalty_goes_elsewhere(changed: dict[str, object], further: float):
    spec = replace(PPO, **changed)  # pyright: ignore[reportArgumentType]
    assert distance(ppo(SMALL, spec), SMALL) > further


@pytest.mark.slow
def test_ppo_reaches_the_optimum_over_32_768_answers():
    task = draw_task(1, SPEC)
    assert distance(ppo(task, PPO), task) < REACHED
    assert distance(ppo(task, replace(PPO, beta=0.0), rollouts=20), task) > 0.5


# SimPO


def simpo(task: WordTask, start: TablePolicy, spec: SimPOSpec) -> Tensor:
    population, length = PairPopulation(task.ref_logp_N, task.gold_N), task.spec.length
    return minimise(start, lambda logp_N: population.loss(logp_N / length, margin_loss(spec)), evaluations=40)


def test_simpo_forgets_where_it_started_and_is_at_no_optimum_of_rlhf():
    """All answers have one length T here; without a margin its limit is ``exp(T r / β) / Z``."""
    spec = SimPOSpec(beta=2.0, gamma=0.0)
    limit_N = (SMALL.spec.length / spec.beta * SMALL.gold_N).log_softmax(dim=0)
    for start in (SMALL.reference(), SMALL.spec.build()):
        assert float(total_variation(simpo(SMALL, start, spec), limit_N)) < REACHED
    assert least_distance(limit_N, SMALL) > 0.2
    assert least_distance(simpo(SMALL, SMALL.reference(), SimPOSpec()), SMALL) > 0.2


# ORPO


def orpo(task: WordTask, *, odds_weight: float, sft_weight: float, evaluations: int = 40) -> Tensor:
    """The policy at the end of ORPO on all pairs; its two terms as `ORPOSpec` and `DPOLoss` add them."""
    population, length = PairPopulation(task.ref_logp_N, task.gold_N), task.spec.length
    chosen_N = 2 * population.weight_N * population.win_rate_N

    def loss(logp_N: Tensor) -> Tensor:
        per_token_N = logp_N / length
        odds = population.loss(log_odds(per_token_N), LOGISTIC)
        return odds_weight * odds - sft_weight * (chosen_N * per_token_N).sum()

    return minimise(task.reference(), loss, evaluations=evaluations)


def odds_limit_N(task: WordTask) -> Tensor:
    """``π(y) = σ(r(y) + c)ᵀ``: the policy whose log odds per token differ as the rewards do."""
    low, high = -50.0, 50.0
    for _ in range(100):
        middle = (low + high) / 2
        total = (task.spec.length * F.logsigmoid(task.gold_N + middle)).logsumexp(dim=0)
        low, high = (low, middle) if float(total) > 0 else (middle, high)
    return task.spec.length * F.logsigmoid(task.gold_N + low)


def test_odds_ratio_of_orpo_alone_has_a_limit_without_reference():
    limit_N, population = odds_limit_N(SMALL), PairPopulation(SMALL.ref_logp_N, SMALL.gold_N)
    score_N = log_odds(limit_N / SMALL.spec.length).requires_grad_()
    (gradient_N,) = torch.autograd.grad(population.loss(score_N, LOGISTIC), score_N)
    assert float(gradient_N.abs().sum()) < 1e-9
    trained_N = orpo(SMALL, odds_weight=1.0, sft_weight=0.0, evaluations=80)
    assert float(total_variation(trained_N, limit_N)) < REACHED
    assert least_distance(limit_N, SMALL) > 0.3


def test_orpo_at_its_default_weight_is_fine_tuning_on_the_chosen_answers():
    """λ = 0.1 moves it by less than `REACHED`; with λ = 10 the odds ratio decides."""
    population = PairPopulation(SMALL.ref_logp_N, SMALL.gold_N)
    chosen_N = (2 * population.weight_N * population.win_rate_N).log()
    distances = [
        float(total_variation(orpo(SMALL, odds_weight=weight, sft_weight=1.0), chosen_N)) for weight in (0.0, 0.1, 10.0)
    ]
    assert distances[0] < 1e-4
    assert distances[0] < distances[1] < REACHED
    assert distances[2] > 0.3


# KTO


def kto_limit_N(task: WordTask, good_N: Tensor, spec: KTOSpec, kl: Callable[[Tensor], Tensor]) -> Tensor:
    """The stationary policy, for good answers ``π ∝ π_ref (2d − 1) σ′(β (log π / π_ref − z₀))``; d is `good_N`.

    The expected loss of an answer is ``d − (2d − 1) σ(β (log π / π_ref − z₀))``: one that is bad more often than good
    is worth any distance, and gets no probability.
    """
    weight_N = (2 * good_N - 1).clamp(min=0)
    logp_N = (task.ref_logp_N + weight_N.log()).log_softmax(dim=0)
    for _ in range(200):
        surplus_N = spec.beta * (logp_N - task.ref_logp_N - kl(logp_N))
        slope_N = torch.where(weight_N > 0, F.logsigmoid(surplus_N) + F.logsigmoid(-surplus_N), 0.0)
        logp_N = (task.ref_logp_N + weight_N.log() + slope_N).log_softmax(dim=0)
    return logp_N


def kto(task: WordTask, good_N: Tensor, spec: KTOSpec, z0: Tensor) -> Tensor:
    p_N, all_good_N = task.ref_logp_N.exp(), torch.ones_like(good_N, dtype=torch.bool)

    def loss(logp_N: Tensor) -> Tensor:
        good_loss_N = kto_loss(logp_N, task.ref_logp_N, all_good_N, z0, spec)
        bad_loss_N = kto_loss(logp_N, task.ref_logp_N, ~all_good_N, z0, spec)
        return (p_N * (good_N * good_loss_N + (1 - good_N) * bad_loss_N)).sum()

    return minimise(task.reference(), loss, evaluations=200)


Z0: dict[str, Callable[[Tensor], Tensor]] = {
    "z₀ = 0": lambda logp_N: logp_N.new_zeros(()),
    "z₀ = KL": lambda logp_N: kl_divergence(logp_N, SMALL.ref_logp_N),
}


@pytest.mark.parametrize("name", Z0)
def test_kto_drops_every_answer_that_is_bad_more_often_than_good(name: str):
    """Good means chosen over a random answer. It follows the majority, and β does not hold it near the reference."""
    good_N, limits = PairPopulation(SMALL.ref_logp_N, SMALL.gold_N).win_rate_N, []
    for beta in (0.02, 0.1):
        spec = KTOSpec(beta=beta)
        limits.append(kto_limit_N(SMALL, good_N, spec, Z0[name]))
        trained_N = kto(SMALL, good_N, spec, Z0[name](limits[-1]))
        assert float(total_variation(trained_N, limits[-1])) < REACHED
        assert float(trained_N.exp()[good_N < 0.5].sum()) < 1e-3
        assert distance(trained_N, SMALL, beta) > 0.5
        assert least_distance(trained_N, SMALL) > 0.1
    assert float(total_variation(limits[0], limits[1])) < REACHED
    assert float(SMALL.ref_logp_N.exp()[good_N < 0.5].sum()) > 0.4


def test_reference_point_of_kto_is_estimated_as_0_from_answers_of_the_reference():
    """Over them the mean log-ratio is ``−KL(π_ref ‖ π)``, never above 0; over the policy's own it is the KL."""
    policy = SMALL.spec.from_log_probs(rlhf_optimum(SMALL.ref_logp_N, SMALL.gold_N, BETA)[0])
    logp_N, generator = policy.log_probs_N().detach(), torch.Generator().manual_seed(0)
    theirs_B, own_B = (each.sample(4000, generator) for each in (SMALL.reference(), policy))
    exact = float(kl_divergence(logp_N, SMALL.ref_logp_N))
    assert exact > 0.5
    assert float(kl_estimate(logp_N[theirs_B], SMALL.ref_logp_N[theirs_B])) == 0
    assert float(kl_estimate(logp_N[own_B], SMALL.ref_logp_N[own_B])) == pytest.approx(exact, abs=0.08)
