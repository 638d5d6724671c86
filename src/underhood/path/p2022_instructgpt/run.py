"""Ouyang et al. 2022: a small aligned model against a large one that is not, and what alignment costs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from underhood.core.trial import Trial
from underhood.models.base import parameter_count
from underhood.models.decoder import Decoder
from underhood.path.lib.review_frontier import Curves, frontier, mean_curves, overvalued
from underhood.path.lib.review_models import (
    Review,
    few_shot_prompt,
    golds,
    pretrained,
    sampled_reviews,
    small_spec,
    two_steps,
    web_loss,
)
from underhood.path.lib.review_policies import by_policy_gradient, ppo, proxy_reward
from underhood.path.lib.review_world import TOKENIZER, is_faithful
from underhood.path.lib.win_rates import bootstrap, wins

PTX_WEIGHT = 0.1
STOP = TOKENIZER.encode("question")
"""The stop sequence that a careful user of the large model sets: the beginning of another question."""

ARMS = ("pretrained", "supervised", "PPO", "PPO-ptx")
Rates = dict[str, list[Tensor]]


def run(trial: Trial) -> None:
    curves, losses = list[Curves](), list[list[float]]()
    rates: Rates = defaultdict(list)
    for seed in trial.each_seed():
        base = pretrained(small_spec(*trial.by_scale(smoke=(32, 1), report=(48, 2))), seed, steps=steps_of(trial))
        if trial.ablated("alignment"):
            judge(trial, base, None, seed, rates)
            continue
        trained = two_steps(
            base,
            seed,
            steps=trial.by_scale(smoke=40, report=80),
            answers=trial.by_scale(smoke=1200, report=4800),
            random_labels=trial.ablated("labels"),
        )
        start, reward = trained.start, proxy_reward(trained.reward)
        aligned = by_policy_gradient(
            start, reward, ppo(ptx_weight=PTX_WEIGHT), seed, steps=trial.by_scale(smoke=16, report=40)
        )
        judge(trial, aligned, start, seed, rates)
        if trial.scale == "report":
            curve, plain = frontier(trained, seed, trial.progress)
            curves.append(curve)
            last = {name: points[-1].gold - points[0].gold for name, points in curve.items()}
            trial.measure("preferred", last["DPO"] - last["preferred fine-tuning"])
            trial.measure("unlikelihood", last["unlikelihood"])
            trial.measure("fooled", overvalued(curve, trained.scale))
            losses.append([web_loss(model) for model in (base, start, plain, aligned)])
            _, sft, taxed, mixed = losses[-1]
            trial.measure("tax", taxed - sft)
            trial.measure("ptx", (mixed - sft) / (taxed - sft))
            gold = [float(golds(sampled_reviews(model, 600, seed + 50)).mean()) for model in (start, plain, aligned)]
            trial.measure("ptx_gold", (gold[2] - gold[0]) / (gold[1] - gold[0]))
    if curves:
        show(trial, curves, losses, rates)


def steps_of(trial: Trial) -> int:
    return trial.by_scale(smoke=60, report=200)


def judge(trial: Trial, aligned: Decoder, start: Decoder | None, seed: int, rates: Rates) -> None:
    """Win rates of the aligned model over the supervised one, and over a large one that was only pretrained."""
    count = trial.by_scale(smoke=480, report=900)
    ours = sampled_reviews(aligned, count, seed + 10)

    def against(key: str, others: Sequence[Review]) -> None:
        rates[key].append(wins(golds(ours), golds(others)))
        interval = bootstrap(rates[key]) if len(trial.seeds) == 1 else None
        trial.measure(key, float(rates[key][-1].mean()), interval=interval)

    if start is not None:
        against("over_sft", sampled_reviews(start, count, seed + 11))
    if trial.wants("wins"):
        large = pretrained(small_spec(*trial.by_scale(smoke=(96, 1), report=(128, 2))), seed, steps=steps_of(trial))
        theirs = sampled_reviews(large, count, seed + 12)
        against("wins", theirs)
        if trial.scale == "report":
            trial.measure("size", parameter_count(large) / parameter_count(aligned))
            against("few_shot", sampled_reviews(large, count, seed + 13, prefix=few_shot_prompt(), stop=STOP))
            share = [sum(not is_faithful(r.thing, r.text) for r in reviews) for reviews in (ours, theirs)]
            trial.measure("faithful", share[0] / share[1])


def show(trial: Trial, curves: Sequence[Curves], losses: Sequence[Sequence[float]], rates: Rates) -> None:
    trial.plot(
        title="Gold reward against distance: what each method gets for leaving its start",
        x="KL from the supervised model, nats per answer",
        y="gold reward",
        series=mean_curves(curves),
    )
    columns = zip(*losses, strict=True)
    trial.table(
        title="The tax: loss on web texts, nats per token",
        head=("model", *(f"seed {seed}" for seed in trial.seeds)),
        rows=[(name, *(f"{x:.3f}" for x in column)) for name, column in zip(ARMS, columns, strict=True)],
    )
    words = {"wins": "the large base model", "few_shot": "the same, few-shot", "over_sft": "the supervised model"}
    shares = {key: (float(torch.cat(rates[key]).mean()), *bootstrap(rates[key])) for key in words}
    trial.table(
        title="How often the aligned model wins",
        head=("against", "wins", "from", "to"),
        rows=[(words[key], *(f"{x:.1%}" for x in share)) for key, share in shares.items()],
        note="95 % bootstrap over seeds and answers",
    )
