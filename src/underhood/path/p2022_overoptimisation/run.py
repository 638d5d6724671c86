"""PPO on a fitted reward: true reward, fitted reward and entropy against the divergence from the reference."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from underhood.align.exact import best_of_n, entropy, expectation, kl_divergence, rlhf_optimum
from underhood.align.ppo import PPOSpec
from underhood.core.figures import Series
from underhood.core.trial import Trial
from underhood.path.lib.table_ppo import TablePPOSpec, train_ppo
from underhood.path.lib.word_task import SPEC, WORDS, WordTask, draw_task

PPO = TablePPOSpec(
    ppo=PPOSpec(beta=0.1, whiten_rewards=False, value_clip=None, value_weight=1.0, anneal=False),
    updates=100,
    batch_size=1024,
    lr=0.03,
)
COUNTS = tuple(2**power for power in range(1, 17))
BETAS = tuple(np.geomspace(5.0, 0.05, 30).tolist())
NEAREST = 0.2
"""Smallest d that the forms are fitted to."""


@dataclass
class Path:
    """Policies on their way from the reference: divergence, gains of both rewards, entropy as a share."""

    kl: list[float]
    gold: list[float]
    proxy: list[float]
    entropy: list[float]

    @property
    def peak(self) -> int:
        return int(np.argmax(self.gold))


def run(trial: Trial) -> None:
    paths: list[dict[str, Path]] = []
    for seed in trial.each_seed():
        task = draw_task(seed)
        ppo = train(trial, task, seed)
        peak = ppo.peak
        trial.measure("rises", ppo.gold[peak])
        trial.measure("falls", ppo.gold[peak] - ppo.gold[-1])
        trial.measure("proxy", ppo.proxy[-1] - ppo.proxy[peak])
        trial.measure("entropy", ppo.entropy[-1])
        if trial.is_ablation or trial.scale == "smoke":
            continue
        best = path_of(task, [best_of_n(task.ref_logp_N, task.proxy_N, n) for n in COUNTS])
        optimum = path_of(task, [rlhf_optimum(task.ref_logp_N, task.proxy_N, beta)[0] for beta in BETAS])
        trial.measure("best_of_n_form", explained(best, "bon"))
        trial.measure("rl_form", explained(ppo, "rl"))
        trial.measure("rl_form_better", explained(ppo, "rl") - explained(ppo, "bon"))
        sixty_four = COUNTS.index(64)
        needed = float(np.interp(best.proxy[sixty_four], ppo.proxy, ppo.kl))
        trial.measure("further", needed / best.kl[sixty_four])
        paths.append({"PPO": ppo, "best-of-n": best, "best possible": optimum})
    if paths:
        show(trial, paths)


def train(trial: Trial, task: WordTask, seed: int) -> Path:
    """PPO from the reference; the path has the policy before training and after every fifth update."""
    spec = replace(PPO, updates=trial.by_scale(smoke=70, report=PPO.updates))
    if trial.ablated("leash"):
        spec = replace(spec, ppo=replace(spec.ppo, beta=1.0))
    policy = task.reference()
    seen = [policy.log_probs_N().detach()]
    for update, _ in train_ppo(policy, task.gold_N if trial.ablated("gold") else task.proxy_N, spec, seed=seed):
        trial.progress(update / spec.updates)
        if update % 5 == 4:
            seen.append(policy.log_probs_N().detach())
    if not trial.is_ablation and seed == trial.seeds[0]:
        tokens_NT = SPEC.tokens_NT()
        answers = [" ".join(WORDS[token] for token in tokens_NT[int(logp_N.argmax())].tolist()) for logp_N in seen]
        path = path_of(task, seen)
        chosen = (("before", 0), ("peak", path.peak), ("end", -1))
        rows = [(name, f"{path.kl[i]:.2f}", answers[i]) for name, i in chosen]
        trial.table(title="The likeliest answer (first seed)", head=("training", "KL", "answer"), rows=rows)
    return path_of(task, seen)


def path_of(task: WordTask, policies: list) -> Path:
    ref_logp_N = task.ref_logp_N
    start_gold, start_proxy = (float(expectation(ref_logp_N, r_N)) for r_N in (task.gold_N, task.proxy_N))
    start_entropy = float(entropy(ref_logp_N))
    return Path(
        [float(kl_divergence(logp_N, ref_logp_N)) for logp_N in policies],
        [float(expectation(logp_N, task.gold_N)) - start_gold for logp_N in policies],
        [float(expectation(logp_N, task.proxy_N)) - start_proxy for logp_N in policies],
        [float(entropy(logp_N)) / start_entropy for logp_N in policies],
    )


def explained(path: Path, form: str) -> float:
    """Share of the variance of true reward that the form explains, its two constants fitted by least squares."""
    d = np.sqrt(np.maximum(path.kl, 0))
    far = d > NEAREST
    y = np.array(path.gold)[far]
    x = basis(d[far], form)
    constants = np.linalg.lstsq(x, y, rcond=None)[0]
    return float(1 - ((x @ constants - y) ** 2).sum() / ((y - y.mean()) ** 2).sum())


def basis(d: NDArray[np.float64], form: str) -> NDArray[np.float64]:
    return np.stack([d, -d * (d if form == "bon" else np.log(d))], axis=1)


def show(trial: Trial, paths: list[dict[str, Path]]) -> None:
    first = paths[0]
    series = []
    for name, path in first.items():
        d = tuple(math.sqrt(max(kl, 0.0)) for kl in path.kl)
        series.append(Series(f"{name}: true", d, tuple(path.gold)))
        if name == "PPO":
            series.append(Series(f"{name}: fitted", d, tuple(path.proxy)))
    trial.plot(
        title="The fitted reward rises for ever, the true one does not (first seed)",
        x="d, the root of the KL divergence",
        y="gain of reward",
        series=series,
    )
    path = first["PPO"]
    d = tuple(math.sqrt(max(kl, 0.0)) for kl in path.kl)
    trial.plot(
        title="Answers become alike (PPO, first seed)",
        x="d, the root of the KL divergence",
        y="entropy, of the reference's",
        series=[Series("PPO", d, tuple(path.entropy))],
        levels=((path.entropy[path.peak], "at the peak of true reward"),),
    )
    rows = []
    for number, each in enumerate(paths):
        ppo = each["PPO"]
        rows.append((f"{number}", f"{ppo.kl[ppo.peak]:.1f}", f"{ppo.gold[ppo.peak]:.2f}", f"{ppo.gold[-1]:.2f}"))
    trial.table(title="PPO's peak", head=("seed", "KL there", "true gain there", "true gain at the end"), rows=rows)
