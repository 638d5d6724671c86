"""DPO by enumeration: the optimum it reaches, reward against divergence, and what becomes of the chosen answers."""

from __future__ import annotations

from collections.abc import Callable
from statistics import mean

import torch
import torch.nn.functional as F
from torch import Tensor

from underhood.align.dpo import DPOSpec
from underhood.align.enumerable import EnumerableSpec
from underhood.align.exact import (
    best_of_n,
    rlhf_objective,
    rlhf_optimum,
    total_variation,
)
from underhood.align.population import PairPopulation, margin_loss
from underhood.core.figures import Series
from underhood.core.trial import Trial
from underhood.path.lib.exact_training import minimise
from underhood.path.lib.reward_frontier import RewardCurve, RewardFrontier
from underhood.path.lib.word_task import SPEC, WordTask, draw_task

SHORT = EnumerableSpec(vocab_size=8, length=4)
BETA_OPTIMUM, BETA_FRONTIER, BETA_PAIRS = 1.0, 0.3, 0.1
UNLIKELIHOOD = 0.5
PAIRS = 2000
UPDATES = 100
LR = 0.05
COUNTS = (1, 2, 4, 8, 16, 32, 64)
LOGISTIC = margin_loss(DPOSpec(beta=1.0))
Loss = Callable[[Tensor], Tensor]


def run(trial: Trial) -> None:
    curves: list[dict[str, RewardCurve]] = []
    for seed in trial.each_seed():
        if trial.wants("optimum"):
            trial.measure("optimum", distance(draw_task(seed, trial.by_scale(smoke=SHORT, report=SPEC)), trial))
        if trial.is_ablation and not trial.wants("chosen"):
            continue
        task = draw_task(seed, SHORT)
        frontier = RewardFrontier(task)
        few = few_pairs(trial, task, frontier, seed)
        if trial.is_ablation:
            continue
        methods = exact_methods(task, frontier) | {f"DPO, {PAIRS:,} pairs": few}
        judge(trial, methods)
        population = PairPopulation(task.ref_logp_N, task.gold_N)
        best_logp_N, _ = rlhf_optimum(task.ref_logp_N, task.gold_N, BETA_PAIRS)
        chosen_N = 2 * population.weight_N * population.win_rate_N
        trial.measure("chosen_optimum", float((chosen_N * (best_logp_N - task.ref_logp_N)).sum()))
        curves.append(methods)
    if curves:
        show(trial, curves)


def distance(task: WordTask, trial: Trial) -> float:
    """Total variation between the policy that DPO ends at, trained on all pairs of answers, and RLHF's optimum."""
    reference_N = torch.zeros_like(task.ref_logp_N) if trial.ablated("reference") else task.ref_logp_N
    population = PairPopulation(task.ref_logp_N, task.gold_N)

    def loss(logp_N: Tensor) -> Tensor:
        return population.loss(BETA_OPTIMUM * (logp_N - reference_N), LOGISTIC)

    logp_N = minimise(task.reference(), loss, evaluations=20)
    best_logp_N, _ = rlhf_optimum(task.ref_logp_N, task.gold_N, BETA_OPTIMUM)
    return float(total_variation(logp_N, best_logp_N))


def exact_methods(task: WordTask, frontier: RewardFrontier) -> dict[str, RewardCurve]:
    """Training on expected losses: no sampling noise, what differs is the methods' doing."""
    ref_logp_N, population = task.ref_logp_N, PairPopulation(task.ref_logp_N, task.gold_N)
    chosen_N = 2 * population.weight_N * population.win_rate_N
    rejected_N = 2 * population.weight_N - chosen_N
    losses: dict[str, Loss] = {
        "DPO": lambda logp_N: population.loss(BETA_FRONTIER * (logp_N - ref_logp_N), LOGISTIC),
        "policy gradient": lambda logp_N: -rlhf_objective(logp_N, ref_logp_N, task.gold_N, BETA_FRONTIER),
        "preferred fine-tuning": lambda logp_N: -(chosen_N * logp_N).sum(),
        "unlikelihood": lambda logp_N: -((chosen_N - UNLIKELIHOOD * rejected_N) * logp_N).sum(),
    }
    curves = {name: train(task, loss, frontier)[0] for name, loss in losses.items()}
    curves["best-of-n"] = RewardCurve()
    for n in COUNTS:
        frontier.add(curves["best-of-n"], best_of_n(ref_logp_N, task.gold_N, n))
    return curves


def train(task: WordTask, loss: Loss, frontier: RewardFrontier) -> tuple[RewardCurve, Tensor]:
    """Adam from the reference, seen after every fifth update; the curve, and the log-probabilities at the end."""
    policy, curve = task.reference(), RewardCurve()
    optimizer = torch.optim.Adam(policy.parameters(), lr=LR)
    for update in range(UPDATES):
        optimizer.zero_grad()
        logp_N = policy.log_probs_N()
        if update % 5 == 0:
            frontier.add(curve, logp_N.detach())
        loss(logp_N).backward()
        optimizer.step()
    logp_N = policy.log_probs_N().detach()
    frontier.add(curve, logp_N)
    return curve, logp_N


def few_pairs(trial: Trial, task: WordTask, frontier: RewardFrontier, seed: int) -> RewardCurve:
    """DPO on sampled pairs, as anywhere; how the log-probabilities of their answers have changed."""
    generator, reference = torch.Generator().manual_seed(seed), task.reference()
    first_M, second_M = reference.sample(PAIRS, generator), reference.sample(PAIRS, generator)
    uniform_M = torch.rand(PAIRS, generator=generator, dtype=torch.float64)
    first_wins_M = uniform_M < torch.sigmoid(task.gold_N[first_M] - task.gold_N[second_M])
    chosen_M, rejected_M = torch.where(first_wins_M, first_M, second_M), torch.where(first_wins_M, second_M, first_M)
    sft_weight = 1.0 if trial.ablated("alone") else 0.0

    def loss(logp_N: Tensor) -> Tensor:
        ratio_N = logp_N - task.ref_logp_N
        pair_loss = -F.logsigmoid(BETA_PAIRS * (ratio_N[chosen_M] - ratio_N[rejected_M])).mean()
        return pair_loss - sft_weight * logp_N[chosen_M].mean() / task.spec.length

    curve, logp_N = train(task, loss, frontier)
    ratio_N = logp_N - task.ref_logp_N
    trial.measure("chosen", float(ratio_N[chosen_M].mean()))
    trial.measure("margin", float((ratio_N[chosen_M] - ratio_N[rejected_M]).mean()))
    return curve


def judge(trial: Trial, methods: dict[str, RewardCurve]) -> None:
    dpo, preferred = methods["DPO"], methods["preferred fine-tuning"]
    excess = [g - b for curve in methods.values() for g, b in zip(curve.gain, curve.best, strict=True)]
    trial.measure("above", max(excess))
    trial.measure("dpo_end", dpo.share(-1))
    trial.measure("dpo_way", min(dpo.share(i) for i in range(1, len(dpo.kl))))
    trial.measure("preferred", preferred.share(-1))
    trial.measure("preferred_gain", preferred.gain[-1] / dpo.gain[-1])


def show(trial: Trial, curves: list[dict[str, RewardCurve]]) -> None:
    first = curves[0]
    most = max(max(curve.kl) for curve in first.values())
    furthest = max(first.values(), key=lambda curve: max(curve.kl))
    order = sorted(range(len(furthest.kl)), key=lambda i: furthest.kl[i])
    kl, best = (tuple(values[i] for i in order) for values in (furthest.kl, furthest.best))
    series = [Series("best possible", kl, best)]
    trial.plot(
        title="Reward against divergence: nothing is above the best possible (first seed)",
        x="KL divergence from the reference, nats",
        y="gain of reward",
        series=[*series, *(Series(name, tuple(c.kl), tuple(c.gain)) for name, c in first.items())],
        note=f"Each line is one training from left to right, or n from 1 to {COUNTS[-1]}, up to {most:.1f} nats.",
    )
    rows: list[tuple[str, ...]] = []
    for name in first:
        ends = [(each[name].kl[-1], each[name].gain[-1], each[name].share(-1)) for each in curves]
        rows.append((name, *(f"{mean(values):.2f}" for values in zip(*ends, strict=True))))
    head = ("method", "KL at the end", "gain", "share of the best gain at that KL")
    trial.table(title="Where each method ends (mean over seeds)", head=head, rows=rows)
