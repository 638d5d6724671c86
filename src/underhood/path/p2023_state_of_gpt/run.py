"""Karpathy 2023: the four stages from a base model to an assistant, with the compute and the gains of each."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from underhood.core.figures import Series
from underhood.core.trial import Trial
from underhood.path.lib.review_models import (
    CONTEXT,
    RANKING_EPOCHS,
    WEB_BATCH,
    Review,
    golds,
    pretrained,
    sampled_reviews,
    small_spec,
    supervised_tokens,
    two_steps,
    web_loss,
)
from underhood.path.lib.review_policies import ANSWERS_PER_STEP, by_policy_gradient, output_entropy, ppo, proxy_reward
from underhood.path.lib.win_rates import bootstrap

PETAFLOP_DAYS = {"pretraining": 3640.0, "SFT": 4.9, "PPO-ptx": 60.0}
"""Of 175B models (Ouyang et al. 2022, section 5.1)."""

STAGES = ("pretraining", "SFT", "reward model", "RL")
LEARN, READ = 6, 2
"""FLOP per weight and token, forwards and backwards, and forwards alone (Kaplan et al. 2020)."""

POLICY_PASSES = 1 + 1 + 1 + 1
"""Forward passes over an answer in a step of PPO beside its updates: to sample, values, reference, reward model."""


@dataclass
class Stages:
    """What one seed measured, one value per stage's model (base, SFT, RL)."""

    compute: list[float]
    gold: list[float] = field(default_factory=list)
    entropy: list[float] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)


def run(trial: Trial) -> None:
    seen: list[Stages] = []
    if trial.wants("budget"):
        trial.measure("budget", PETAFLOP_DAYS["pretraining"] / sum(PETAFLOP_DAYS.values()))
    for seed in trial.each_seed():
        spec = small_spec(*trial.by_scale(smoke=(32, 1), report=(48, 2)))
        base_steps, tune_steps = trial.by_scale(smoke=60, report=500), trial.by_scale(smoke=40, report=80)
        base = pretrained(spec, seed, steps=base_steps)
        count, policy_steps = trial.by_scale(smoke=1200, report=2400), trial.by_scale(smoke=16, report=30)
        trained = two_steps(base, seed, steps=tune_steps, answers=count, random_labels=trial.ablated("labels"))
        final = by_policy_gradient(trained.start, proxy_reward(trained.reward), ppo(), seed, steps=policy_steps)
        written = [
            sampled_reviews(model, trial.by_scale(smoke=480, report=900), seed + 10)
            for model in (base, trained.start, final)
        ]
        measure_gain(trial, "rl_gain", golds(written[2]), golds(written[1]))
        measure_gain(trial, "sft_gain", golds(written[1]), golds(written[0]))
        answer = tokens_of(trained.answers)
        compute = [
            LEARN * base_steps * WEB_BATCH * CONTEXT,
            LEARN * supervised_tokens(seed, tune_steps),
            (READ + LEARN * RANKING_EPOCHS) * answer * count,
            (READ * POLICY_PASSES + LEARN * ppo().epochs) * tokens_of(written[2]) * ANSWERS_PER_STEP * policy_steps,
        ]
        models = (base, trained.start, final)
        stages = Stages([value / sum(compute) for value in compute], [float(golds(rows).mean()) for rows in written])
        stages.entropy = [output_entropy(model, rows) for model, rows in zip(models, written, strict=True)]
        stages.loss = [web_loss(model) for model in models]
        seen.append(stages)
        if trial.scale == "report":
            trial.measure("entropy", stages.entropy[1] - stages.entropy[2])
            trial.measure("compute", stages.compute[0])
    show(trial, seen)


def measure_gain(trial: Trial, key: str, after_N: Tensor, before_N: Tensor) -> None:
    gain_N = after_N - before_N
    trial.measure(key, float(gain_N.mean()), interval=bootstrap([gain_N]) if len(trial.seeds) == 1 else None)


def tokens_of(reviews: list[Review]) -> float:
    """Mean length of prompt and answer."""
    return sum(len(review.whole) for review in reviews) / len(reviews)


def show(trial: Trial, seen: list[Stages]) -> None:
    def mean(name: str, number: int) -> float:
        return float(torch.tensor([getattr(stages, name)[number] for stages in seen]).mean())

    model_of = {"pretraining": 0, "SFT": 1, "RL": 2}
    rows: list[tuple[str, ...]] = []
    for number, stage in enumerate(STAGES):
        measured = ("gold", "entropy", "loss") if stage in model_of else ()
        cells = [f"{mean(name, model_of[stage]):.2f}" for name in measured] or [""] * 3
        rows.append((stage, f"{mean('compute', number):.1%}", *cells))
    head = ("stage", "compute", "gold reward", "entropy of answers", "loss on web texts")
    note = "compute in FLOP; entropy and loss in nats per token, of the stage's model; the reward model writes nothing"
    trial.table(title="Four stages on one model", head=head, rows=rows, note=note)
    gold = Series("gold reward", (0.0, 1.0, 2.0), tuple(mean("gold", number) for number in range(3)))
    names = ("base", "SFT", "RL")
    trial.plot(title="What each stage adds", x="", y="gold reward", kind="bars", names=names, series=[gold])
