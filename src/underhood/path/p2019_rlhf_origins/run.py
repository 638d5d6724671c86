"""RLHF of 2019 on the word task: the KL controller's formula, where it steers to, and a style from 400 comparisons."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

from torch import Tensor

from underhood.align.enumerable import EnumerableSpec
from underhood.align.exact import expectation, kl_divergence
from underhood.align.kl import KLController
from underhood.align.population import PairPopulation
from underhood.align.ppo import PPOSpec
from underhood.core.figures import Series
from underhood.core.trial import Trial
from underhood.path.lib.table_ppo import TablePPOSpec, train_ppo
from underhood.path.lib.word_task import COMPARISONS, WORDS, WordTask, draw_task

SHORT = EnumerableSpec(vocab_size=8, length=4)
PUBLISHED = KLController(beta=0.15, target=6.0, horizon=10_000)
TARGET = 2.0
"""Nats of KL per answer; answers here have 4 words, those of 2019 had 24 tokens and a target of 6."""
SETTINGS = TablePPOSpec(
    ppo=PPOSpec(
        beta=PUBLISHED.beta,
        kl_target=TARGET,
        kl_horizon=PUBLISHED.horizon,
        whiten_rewards=False,
        value_clip=None,
        value_weight=1.0,
        anneal=False,
    ),
    updates=160,
    batch_size=1024,
    lr=0.03,
)
LAST = 20
"""Updates at the end whose mean KL is compared with the target."""


@dataclass
class ControlledRun:
    """KL from the reference in nats, exact, and β, after every update."""

    kl: list[float] = field(default_factory=list)
    beta: list[float] = field(default_factory=list)
    win_rate: float = 0.0

    @property
    def miss(self) -> float:
        """How far the mean KL at the end is from the target, as a share of it."""
        return abs(sum(self.kl[-LAST:]) / LAST / TARGET - 1)


def run(trial: Trial) -> None:
    if trial.wants("formula"):
        trial.measure("formula", largest_difference(1000))
    if trial.wants("labels"):
        trial.measure("labels", COMPARISONS)
    curves: list[tuple[ControlledRun, ControlledRun]] = []
    for seed in trial.each_seed():
        task = draw_task(seed, SHORT)
        curve = train(trial, task, SETTINGS, seed)
        trial.measure("steers", curve.miss)
        trial.measure("style", curve.win_rate)
        if trial.is_ablation or trial.scale == "smoke":
            continue
        fixed = train(trial, task, replace(SETTINGS, ppo=replace(SETTINGS.ppo, kl_target=None)), seed)
        curves.append((curve, fixed))
    if curves:
        show(trial, *curves[0])


def largest_difference(count: int) -> float:
    """Between the controller's β and ``β (1 + clip(KL / target − 1, −0.2, 0.2) n / horizon)``, random KLs and n."""
    generator = random.Random(0)
    controller, beta, worst = replace(PUBLISHED), PUBLISHED.beta, 0.0
    for _ in range(count):
        kl, n = generator.uniform(0, 12), generator.randint(1, 1024)
        controller.update(kl, n)
        proportional_error = sorted((-0.2, kl / 6.0 - 1, 0.2))[1]
        beta = beta * (1 + proportional_error * n / 10_000)
        worst = max(worst, abs(controller.beta / beta - 1))
    return worst


def train(trial: Trial, task: WordTask, spec: TablePPOSpec, seed: int) -> ControlledRun:
    """PPO on the fitted reward; the share of comparisons with the reference's answers that it wins, by true taste."""
    if trial.ablated("controller"):
        spec = replace(spec, ppo=replace(spec.ppo, kl_target=None))
    spec = replace(spec, updates=trial.by_scale(smoke=120, report=spec.updates))
    reward_N = -task.proxy_N if trial.ablated("taste") else task.proxy_N
    policy, curve = task.reference(), ControlledRun()
    for update, beta in train_ppo(policy, reward_N, spec, seed=seed):
        trial.progress(update / spec.updates)
        curve.kl.append(float(kl_divergence(policy.log_probs_N().detach(), task.ref_logp_N)))
        curve.beta.append(beta)
    logp_N = policy.log_probs_N().detach()
    curve.win_rate = float(expectation(logp_N, PairPopulation(task.ref_logp_N, task.gold_N).win_rate_N))
    if not trial.is_ablation and seed == trial.seeds[0] and spec.ppo.kl_target is not None:
        show_answers(trial, task, logp_N)
    return curve


def show_answers(trial: Trial, task: WordTask, logp_N: Tensor) -> None:
    tokens_NT = task.spec.tokens_NT()
    rows = []
    for name, each_N in (("reference", task.ref_logp_N), ("after PPO", logp_N)):
        best_K = each_N.topk(3).indices
        answers = [" ".join(WORDS[token] for token in tokens_NT[best].tolist()) for best in best_K]
        rows.append((name, *answers))
    head = ("policy", "likeliest", "second", "third")
    trial.table(title="The likeliest answers (first seed)", head=head, rows=rows)


def show(trial: Trial, adaptive: ControlledRun, fixed: ControlledRun) -> None:
    x = tuple(float(update) for update in range(len(adaptive.kl)))
    for title, attribute, y in (
        ("The controller brings the divergence to its target (first seed)", "kl", "KL per answer, nats"),
        ("It does so by changing β (first seed)", "beta", "β"),
    ):
        trial.plot(
            title=title,
            x="update",
            y=y,
            series=[
                Series("adaptive β", x, tuple(getattr(adaptive, attribute))),
                Series("fixed β", x, tuple(getattr(fixed, attribute))),
            ],
            levels=((TARGET, "target"),) if attribute == "kl" else (),
        )
