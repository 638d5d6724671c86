"""PPO on the word task: its share of the optimal objective, its expected gradient, and each detail taken away."""

from __future__ import annotations

from dataclasses import replace
from statistics import mean

from underhood.align.exact import expectation, rlhf_objective, rlhf_optimum
from underhood.align.expected_updates import (
    expected_ppo_gradient,
    objective_gradient,
    relative_difference,
    state_values_NT,
)
from underhood.align.ppo import PPOSpec
from underhood.core.figures import Series
from underhood.core.trial import Trial
from underhood.path.lib.table_ppo import TablePPOSpec, train_ppo
from underhood.path.lib.word_task import SPEC, WordTask, draw_task

BASE = TablePPOSpec(lr=0.07, updates=90)
DETAILS = {"core": 13, "Atari": 9, "robots": 9, "LSTM": 5, "MultiDiscrete": 1}


def changed(**details: object) -> TablePPOSpec:
    return replace(BASE, ppo=replace(BASE.ppo, **details))  # pyright: ignore[reportArgumentType]


MANY = changed(epochs=8)
FREE = changed(epochs=8, clip_low=1.0, clip_high=1e6)
ARMS = {
    "all details": BASE,
    "advantages not whitened": changed(whiten_advantages=False),
    "no values": replace(BASE, values=False),
    "1 epoch": changed(epochs=1),
    "8 epochs": MANY,
    "8 epochs, no clipping": FREE,
    "dropout on": changed(dropout=True),
    "KL penalty k2": changed(kl_estimator="k2"),
    "KL penalty k3": changed(kl_estimator="k3"),
}


def run(trial: Trial) -> None:
    if trial.wants("details"):
        trial.measure("details", sum(DETAILS.values()))
    shares: dict[str, list[float]] = {}
    for seed in trial.each_seed():
        task = draw_task(seed)
        base = BASE
        if trial.ablated("dropout"):
            base = changed(dropout=True)
        if trial.ablated("estimator"):
            base = changed(kl_estimator="k3")
        base = trial.by_scale(smoke=replace(base, updates=60, lr=0.1), report=base)
        if trial.wants("gradient"):
            gradients(trial, task, base.ppo, seed)
        if trial.scale == "smoke" or trial.is_ablation:
            trial.measure("reaches", share_reached(trial, task, base, seed))
            continue
        for name in trial.each(ARMS, "detail"):
            shares.setdefault(name, []).append(share_reached(trial, task, ARMS[name], seed))
        full = shares["all details"][-1]
        trial.measure("reaches", full)
        trial.measure("clipping", shares["8 epochs"][-1] - shares["8 epochs, no clipping"][-1])
        trial.measure("whitening", full - shares["advantages not whitened"][-1])
        trial.measure("learnt_values", full - shares["no values"][-1])
    if shares:
        show(trial, shares)


def gradients(trial: Trial, task: WordTask, ppo: PPOSpec, seed: int) -> None:
    """Expected updates at a policy on its way, after a few updates of PPO."""
    policy = task.reference()
    for _ in train_ppo(policy, task.gold_N, replace(BASE, updates=5), seed=seed):
        pass
    ref_logp_NT = task.reference().token_log_probs_NT().detach()
    true_P = objective_gradient(policy, task.ref_logp_N, task.gold_N, ppo.beta)
    far_sighted = expected_ppo_gradient(policy, ref_logp_NT, task.gold_N, replace(ppo, lam=1.0))
    trial.measure("gradient", relative_difference(far_sighted, true_P))
    if trial.is_ablation:
        return
    values_NT = state_values_NT(policy, ref_logp_NT, task.gold_N, ppo.beta)
    for key, values in (("values", values_NT), ("no_values", None)):
        actual_P = expected_ppo_gradient(policy, ref_logp_NT, task.gold_N, ppo, values_NT=values)
        trial.measure(key, relative_difference(actual_P, true_P))


def share_reached(trial: Trial, task: WordTask, spec: TablePPOSpec, seed: int) -> float:
    """Gain of the objective over the reference's, exact, as a share of the optimum's."""
    policy, beta = task.reference(), spec.ppo.beta
    for update, _ in train_ppo(policy, task.gold_N, spec, seed=seed):
        trial.progress(update / spec.updates)
    _, best = rlhf_optimum(task.ref_logp_N, task.gold_N, beta)
    start = float(expectation(task.ref_logp_N, task.gold_N))
    reached = rlhf_objective(policy.log_probs_N().detach(), task.ref_logp_N, task.gold_N, beta)
    return (float(reached) - start) / (best - start)


def show(trial: Trial, shares: dict[str, list[float]]) -> None:
    names = sorted(shares, key=lambda name: -mean(shares[name]))
    trial.table(
        title="Each detail changed alone: share of the optimal gain",
        head=("PPO with", "mean", "lowest", "highest"),
        rows=[(name, *(f"{f(shares[name]):.3f}" for f in (mean, min, max))) for name in names],
        note=f"{SPEC.answers:,} answers; {BASE.updates} rollouts of {BASE.batch_size:,}, β = {BASE.ppo.beta:g}.",
    )
    middle, low, high = (tuple(f(shares[name]) for name in names) for f in (mean, min, max))
    trial.plot(
        title="Most details matter little here, some are fatal",
        x="PPO with",
        y="share of the optimal gain",
        kind="bars",
        names=tuple(names),
        series=[Series("mean and range over seeds", tuple(map(float, range(len(names)))), middle, low, high)],
    )
