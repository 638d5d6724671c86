"""Best-of-n by enumeration: its divergence and the bound, and true against fitted reward as n grows."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.stats import chisquare
from torch import Tensor

from underhood.align.exact import (
    best_of_n,
    best_of_n_kl_bound,
    expectation,
    kl_divergence,
    rlhf_optimum,
)
from underhood.core.figures import Series
from underhood.core.trial import Trial
from underhood.path.lib.word_task import SPEC, WORDS, WordTask, draw_task

COUNTS = tuple(2**power for power in range(17))
DRAWS = 4000


def run(trial: Trial) -> None:
    if trial.wants("equality", "ties"):
        limits(trial)
    curves: list[tuple[list[float], list[float], list[float]]] = []
    for seed in trial.each_seed():
        task = draw_task(seed)
        score_N = task.gold_N if trial.ablated("proxy") else task.proxy_N
        if trial.ablated("chosen"):
            policies = [task.ref_logp_N for _ in COUNTS]
        else:
            policies = [best_of_n(task.ref_logp_N, score_N, n) for n in COUNTS]
        gold = [float(expectation(logp_N, task.gold_N)) for logp_N in policies]
        proxy = [float(expectation(logp_N, task.proxy_N)) for logp_N in policies]
        kl = [float(kl_divergence(logp_N, task.ref_logp_N)) for logp_N in policies]
        trial.measure("rises", max(gold) - gold[0])
        trial.measure("falls", max(gold) - gold[-1])
        if trial.is_ablation:
            continue
        trial.measure("bound", max(value - best_of_n_kl_bound(n) for n, value in zip(COUNTS, kl, strict=True)))
        trial.measure("proxy", float(np.diff(proxy).min()))
        trial.measure("efficient", (proxy[4] - proxy[0]) / (reward_at(task, kl[4]) - proxy[0]))
        trial.measure("draws", p_value(task, 8, seed))
        curves.append((kl, proxy, gold))
        if len(curves) == 1:
            show_answers(trial, policies)
    if curves:
        show(trial, curves)


def limits(trial: Trial) -> None:
    """The two ends: all scores differ, and only two scores."""
    answers = SPEC.answers
    equal_N = torch.full((answers,), -math.log(answers), dtype=torch.float64)
    kl = float(kl_divergence(best_of_n(equal_N, torch.arange(answers).double(), 16), equal_N))
    trial.measure("equality", 1 - kl / best_of_n_kl_bound(16))
    better_N = (torch.arange(answers) < answers // 64).double()
    kl = float(kl_divergence(best_of_n(equal_N, better_N, COUNTS[-1]), equal_N))
    trial.measure("ties", kl - math.log(64))


def reward_at(task: WordTask, kl: float) -> float:
    """The largest fitted reward of any policy at this divergence: that of some optimum π_ref exp(r / β) / Z."""
    low, high = 1e-3, 1e3
    for _ in range(60):  # the divergence falls as β rises
        beta = math.sqrt(low * high)
        best_logp_N, _ = rlhf_optimum(task.ref_logp_N, task.proxy_N, beta)
        low, high = (beta, high) if float(kl_divergence(best_logp_N, task.ref_logp_N)) > kl else (low, beta)
    return float(expectation(rlhf_optimum(task.ref_logp_N, task.proxy_N, high)[0], task.proxy_N))


def p_value(task: WordTask, n: int, seed: int) -> float:
    """Of a chi-square test that the best of n drawn answers scores as often in each eighth as the formula says."""
    generator = torch.Generator().manual_seed(seed)
    answers_BN = task.reference().sample(DRAWS * n, generator).reshape(DRAWS, n)
    best_B = task.proxy_N[answers_BN].amax(dim=1)
    edges_E = torch.quantile(task.proxy_N, torch.linspace(0, 1, 9, dtype=torch.float64)[1:-1])
    expected_N = best_of_n(task.ref_logp_N, task.proxy_N, n).exp()
    bins_N = torch.bucketize(task.proxy_N, edges_E)
    expected = torch.zeros(8, dtype=torch.float64).index_add(0, bins_N, expected_N) * DRAWS
    counts = torch.bucketize(best_B, edges_E).bincount(minlength=8).double()
    often = expected >= 5
    expected, counts = expected[often], counts[often]
    return float(chisquare(counts.numpy(), (expected * counts.sum() / expected.sum()).numpy()).pvalue)


def show_answers(trial: Trial, policies: list[Tensor]) -> None:
    tokens_NT = SPEC.tokens_NT()
    rows = []
    for n in (1, 16, 256, 65_536):
        best = int(policies[COUNTS.index(n)].argmax())
        rows.append((f"{n:,}", " ".join(WORDS[token] for token in tokens_NT[best].tolist())))
    trial.table(title="The likeliest answer (first seed)", head=("n", "answer"), rows=rows)


def show(trial: Trial, curves: list[tuple[list[float], list[float], list[float]]]) -> None:
    table = np.array(curves)
    gains = table[:, 1:] - table[:, 1:, :1]
    middle, low, high = gains.mean(axis=0), gains.min(axis=0), gains.max(axis=0)
    names = ("fitted reward", "true reward")
    trial.plot(
        title="The reward model is ever more pleased; the person is not",
        x="n",
        y="gain over the model's own answers",
        log_x=True,
        series=[Series(name, COUNTS, middle[i], low[i], high[i]) for i, name in enumerate(names)],
    )
    bound = [best_of_n_kl_bound(n) for n in COUNTS]
    trial.plot(
        title="The divergence is below the bound",
        x="n",
        y="nats",
        log_x=True,
        series=[Series("exact", COUNTS, table[:, 0].mean(axis=0)), Series("log n − (n − 1)/n", COUNTS, tuple(bound))],
    )
