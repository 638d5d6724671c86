"""The feedback flywheel on the word task: what clicks say of answers, and a policy that learns from its own users."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from underhood.align.enumerable import EnumerableSpec
from underhood.align.exact import entropy, expectation, rlhf_optimum, total_variation
from underhood.core.trial import Trial
from underhood.path.lib.click_logs import (
    EXAMINATION,
    dpo_on_pairs,
    estimated_propensities,
    expected_click_rate_N,
    expected_pair_weights_NN,
    pair_weights_NN,
    shuffled_clicks,
    visits,
    weighted_clicks,
)
from underhood.path.lib.seed_series import over_seeds
from underhood.path.lib.win_rates import bootstrap
from underhood.path.lib.word_task import WordTask, draw_task

SPEC = EnumerableSpec(vocab_size=8, length=3)
BETA_LIMIT, BETA_ROUND = 0.5, 1.0
RANDOMISED = 2000
"""Visits with lists in random order, from which the propensities are estimated."""

VISITS = 2000
"""Of each round of the flywheel."""

ROUNDS = 6  # with fewer, plain clicks may still do as well
EVERYWHERE = (1.0,) * len(EXAMINATION)
ARMS = ("weighted clicks", "plain clicks", "shuffled clicks", "nobody skips")


@dataclass
class Rounds:
    """Mean gold reward, utility, and entropy in nats of the policy before the first round and after each; all exact."""

    gold: list[float] = field(default_factory=list)
    utility: list[float] = field(default_factory=list)
    entropy: list[float] = field(default_factory=list)

    def add(self, task: WordTask, logp_N: Tensor) -> None:
        self.gold.append(float(expectation(logp_N, task.gold_N)))
        self.utility.append(float(expectation(logp_N, task.gold_N.sigmoid())))
        self.entropy.append(float(entropy(logp_N)))


def run(trial: Trial) -> None:
    runs: list[dict[str, Rounds]] = []
    for seed in trial.each_seed():
        task = draw_task(seed, SPEC)
        expected_clicks(trial, task)
        if trial.wants("propensities", "log", "log_naive"):
            measured_clicks(trial, task, seed)
        if trial.wants("limit", "naive_limit"):
            for key, theta in (("limit", propensities(trial)), ("naive_limit", None)):
                trial.measure(key, distance(trial, task, theta))
        if trial.wants("flywheel", "each_round", "over_naive", "variety", "as_seen"):
            arms = ARMS if not trial.is_ablation else ARMS[:2]
            runs.append({arm: flywheel(trial, task, arm, seed) for arm in trial.each(arms, "feedback")})
            judge(trial, runs[-1])
    if runs and not trial.is_ablation:
        show(trial, runs)


def examination(trial: Trial) -> tuple[float, ...]:
    return EVERYWHERE if trial.ablated("position") else EXAMINATION


def propensities(trial: Trial) -> tuple[float, ...]:
    return EVERYWHERE if trial.ablated("weights") else examination(trial)


def expected_clicks(trial: Trial, task: WordTask) -> None:
    """Over all lists and clicks: the mean of weighted clicks on every answer, and the order that plain ones suggest."""
    utility_N, p_N = task.gold_N.sigmoid(), task.ref_logp_N.exp()
    weighted_N, plain_N = (
        expected_click_rate_N(task.ref_logp_N, utility_N, theta, examination(trial))
        for theta in (propensities(trial), None)
    )
    trial.measure("unbiased", float((weighted_N - utility_N).abs().max()))
    differs_NN = (utility_N[:, None] - utility_N).abs() > 1e-9
    wrong_NN = (plain_N[:, None] - plain_N) * (utility_N[:, None] - utility_N) < 0
    pairs_NN = p_N[:, None] * p_N * differs_NN
    trial.measure("misordered", float((pairs_NN * wrong_NN).sum() / pairs_NN.sum()))


def measured_clicks(trial: Trial, task: WordTask, seed: int) -> None:
    """The utility of what was shown, from a log of the usual lists; propensities from lists in random order."""
    generator, policy, utility_N = torch.Generator().manual_seed(seed), task.reference(), task.gold_N.sigmoid()
    theta = estimated_propensities(visits(policy, utility_N, RANDOMISED, generator, randomised=True))
    trial.measure("propensities", max(abs(a - b) for a, b in zip(theta, EXAMINATION, strict=True)))
    log = visits(policy, utility_N, trial.by_scale(smoke=2000, report=10_000), generator)
    truth = float(expectation(task.ref_logp_N, utility_N))
    rows: list[tuple[str, ...]] = [("truth, all answers summed", f"{truth:.3f}", "", "")]
    for key, name, weights in (("log", "weighted clicks", theta), ("log_naive", "plain clicks", None)):
        each_V = weighted_clicks(log.clicked_VK, weights).mean(dim=1)
        trial.measure(key, float(each_V.mean()) / truth - 1)
        rows.append((name, *(f"{value:.3f}" for value in (float(each_V.mean()), *bootstrap([each_V], seed)))))
    if seed == trial.seeds[0]:
        trial.table(
            title="Mean utility of the answers shown, from one log (first seed)",
            head=("estimate", "mean", "from", "to"),
            rows=rows,
            note=f"{len(log):,} visits; 95 % bootstrap over visits, which leaves out the error of the propensities.",
        )


def distance(trial: Trial, task: WordTask, theta: tuple[float, ...] | None) -> float:
    """From RLHF's optimum for the reward log u: where DPO ends on the clicks of endlessly many visits."""
    weight_NN = expected_pair_weights_NN(task.ref_logp_N, task.gold_N.sigmoid(), theta, examination(trial))
    logp_N = dpo_on_pairs(task.reference(), weight_NN, BETA_LIMIT, evaluations=20)
    best_logp_N, _ = rlhf_optimum(task.ref_logp_N, task.gold_N.sigmoid().log(), BETA_LIMIT)
    return float(total_variation(logp_N, best_logp_N))


def flywheel(trial: Trial, task: WordTask, arm: str, seed: int) -> Rounds:
    """Rounds of lists from the policy of the last round, its users' clicks, and DPO on them."""
    generator, utility_N, curve = torch.Generator().manual_seed(seed), task.gold_N.sigmoid(), Rounds()
    theta_K = EVERYWHERE if arm == "nobody skips" else examination(trial)
    randomised = visits(task.reference(), utility_N, RANDOMISED, generator, examination=theta_K, randomised=True)
    weights = None if arm == "plain clicks" or trial.ablated("weights") else estimated_propensities(randomised)
    policy = task.reference()
    curve.add(task, task.ref_logp_N)
    for number in range(ROUNDS):
        trial.progress(number / ROUNDS)
        log = visits(policy, utility_N, VISITS, generator, examination=theta_K)
        if arm == "shuffled clicks" or trial.ablated("feedback"):
            log = shuffled_clicks(log, generator)
        pairs_NN = pair_weights_NN(log, weighted_clicks(log.clicked_VK, weights), SPEC.answers)
        policy = SPEC.from_log_probs(dpo_on_pairs(policy, pairs_NN, BETA_ROUND, evaluations=10))
        curve.add(task, policy.log_probs_N().detach())
    return curve


def judge(trial: Trial, arms: dict[str, Rounds]) -> None:
    weighted, plain = arms["weighted clicks"], arms["plain clicks"]
    gain = weighted.gold[-1] - weighted.gold[0]
    trial.measure("flywheel", gain)
    trial.measure("each_round", float(torch.tensor(weighted.gold).diff().min()))
    trial.measure("over_naive", weighted.gold[-1] - plain.gold[-1])
    trial.measure("variety", weighted.entropy[-1] - plain.entropy[-1])
    if not trial.is_ablation:
        trial.measure("as_seen", gain / (arms["nobody skips"].gold[-1] - weighted.gold[0]))


def show(trial: Trial, runs: list[dict[str, Rounds]]) -> None:
    for title, attribute, y in (
        ("The flywheel: gold reward after each round", "gold", "gold reward"),
        ("What plain clicks cost: the variety of answers", "entropy", "entropy, nats"),
    ):
        series = [over_seeds(arm, torch.tensor([getattr(each[arm], attribute) for each in runs]).T) for arm in ARMS]
        trial.plot(title=title, x="round", y=y, series=series, note="Mean and range over seeds.")
