"""Karpathy 2022, makemore parts 2 and 3: a network that predicts a letter from three, started badly and well."""

from __future__ import annotations

import torch
from torch import Tensor

from underhood.core.figures import Series
from underhood.core.trial import Trial
from underhood.models.bigram import counted, loss, pairs
from underhood.path.lib import letter_nets as nets
from underhood.path.lib.names import MISSING, documentation_words, examples, read_names, split_names

PLAIN = nets.LetterNetShape(norm=False, bias=True)
NORMED = nets.LetterNetShape(norm=True)
DEEP = {norm: nets.LetterNetShape(joins=(3, 1, 1, 1, 1), hidden=100, norm=norm) for norm in (False, True)}
GAINS = (0.5, 1.0, 5 / 3, 3.0)
STARTS = {
    "original": {"gain": 30**0.5, "bias_scale": 1.0, "output_scale": 1.0, "output_bias": 1.0},
    "kaiming": {"gain": 5 / 3, "bias_scale": 0.01, "output_scale": 0.01},
}
"""The deviation of hidden weights times the root of their 30 inputs, and what else is scaled."""


def run(trial: Trial) -> None:
    names = read_names(trial)
    for key in ("mlp_dev", "mlp_train", "bn_dev", "bn_train"):
        if names is None:
            trial.skip_claim(key, MISSING)
    train, dev, _ = split_names(names or documentation_words())
    learn, unseen = examples(train, PLAIN.context), examples(dev, PLAIN.context)
    if trial.ablated("context"):
        for x, _ in (learn, unseen):
            x[:, :-1] = 0
    starts(trial, learn)
    if trial.wants("gain", "fades", "deep"):
        depth(trial, learn[0])
    if trial.wants("beats", "better"):
        seen = pairs(train)
        bigram = loss(pairs(dev), counted(seen + 1))
        ladder(trial, learn, unseen, bigram, published=names is not None)


def starts(trial: Trial, learn: tuple[Tensor, Tensor]) -> None:
    """The first loss and the saturated units, before any step."""
    for seed in trial.seeds:
        x, y = (
            array[torch.randperm(len(array), generator=torch.Generator().manual_seed(seed))[:1024]] for array in learn
        )
        bad, good = (first_pass(STARTS[name], seed, x) for name in ("original", "kaiming"))
        trial.measure("parameters", PLAIN.parameters)
        trial.measure("wrong", nets.losses(bad["scores"], y[None]).item())
        begun = bad if trial.ablated("start") else good
        trial.measure("start", nets.losses(begun["scores"], y[None]).item())
        shares = [(kept["hidden_0"].abs() > 0.99).float().mean().item() for kept in (bad, good)]
        trial.measure("saturated", shares[0] / shares[1])


def first_pass(start: dict[str, float], seed: int, x: Tensor) -> nets.Weights:
    return nets.forward(PLAIN, nets.initial(PLAIN, [seed], **start), x[None])


def depth(trial: Trial, x: Tensor) -> None:
    """How much the units of five tanh layers vary, by the gain of their weights."""
    seeds = [seed for seed in trial.seeds for _ in GAINS]
    spread_GL: dict[bool, Tensor] = {}
    for norm, shape in DEEP.items():
        weights = nets.initial(shape, seeds, gain=[*GAINS] * len(trial.seeds))
        kept = nets.forward(shape, weights, x[:1000].expand(len(seeds), -1, -1))
        layers = [kept[f"hidden_{layer}"].std(dim=(1, 2)) for layer in range(len(shape.joins))]
        spread_GL[norm] = torch.stack(layers, dim=1).unflatten(0, (-1, len(GAINS)))
    for plain, normed in zip(spread_GL[False], spread_GL[not trial.ablated("norm")], strict=True):
        ratio = plain[:, -1] / plain[:, 0]
        trial.measure("gain", ratio[GAINS.index(5 / 3)].item())
        trial.measure("fades", ratio[GAINS.index(1.0)].item())
        trial.measure("deep", (normed[:, -1].max() / normed[:, -1].min()).item())
    trial.plot(
        title="How much the units of each tanh layer vary before training",
        x="layer",
        y="standard deviation",
        series=[
            Series(f"gain {gain:.2g}{', batch norm' if norm else ''}", (1.0, 2.0, 3.0, 4.0, 5.0), tuple(rows.tolist()))
            for norm, spread in spread_GL.items()
            for gain, rows in zip(GAINS, spread[0], strict=True)
            if not norm or gain in (0.5, 3.0)
        ],
    )


def ladder(
    trial: Trial, learn: tuple[Tensor, Tensor], unseen: tuple[Tensor, Tensor], bigram: float, *, published: bool
) -> None:
    """Trains the worst start and the best; measures both losses of each."""
    steps, seeds = trial.by_scale(smoke=2500, report=200_000), list(trial.seeds)
    runs = [(NORMED, nets.initial(NORMED, seeds, gain=5 / 3, output_scale=0.01))]
    if trial.wants("better"):
        runs.append((PLAIN, nets.initial(PLAIN, seeds, **STARTS["original"])))
    results, curves = [], []
    for shape, weights in trial.each(runs, "networks"):
        statistics, curve = nets.train(
            shape,
            weights,
            *learn,
            steps=steps,
            seeds=seeds,
            momentum=trial.by_scale(smoke=0.01, report=0.001),
            compiled=trial.scale == "report",
            progress=trial.progress,
        )
        losses = (nets.evaluate(shape, weights, statistics, *split) for split in (learn, unseen))
        results += zip(*losses, strict=True)
        curves.append(curve)
    by_start = {name: results[i * len(seeds) :][: len(seeds)] for i, name in enumerate(("batch norm", "original"))}
    for index, (_, normed) in enumerate(by_start["batch norm"]):
        trial.measure("beats", bigram - normed)
        if trial.wants("better"):
            trial.measure("better", by_start["original"][index][1] - normed)
    if trial.scale == "report" and published:
        for name, dev, fit in (("original", "mlp_dev", "mlp_train"), ("batch norm", "bn_dev", "bn_train")):
            for trained, unknown in by_start[name]:
                trial.measure(fit, trained)
                trial.measure(dev, unknown)
    if not trial.is_ablation:
        show(trial, torch.cat(curves, dim=1), by_start, bigram)


def show(trial: Trial, curve_SN: Tensor, by_start: dict[str, list[tuple[float, ...]]], bigram: float) -> None:
    blocks = curve_SN[: len(curve_SN) // 100 * 100].unflatten(0, (100, -1)).mean(dim=1)
    at = tuple(len(curve_SN) / 100 * (i + 0.5) for i in range(100))
    means = blocks.unflatten(1, (len(by_start), -1)).mean(dim=2)
    trial.plot(
        title="The same network, started differently",
        x="steps of 32 letters",
        y="nats per letter",
        series=[Series(name, at, tuple(means[:, i].tolist())) for i, name in enumerate(by_start)],
        levels=((bigram, "bigram, unseen names"),),
    )
    trial.table(
        title="Loss by start, mean of the seeds",
        head=("start", "training names", "unseen names"),
        rows=[
            (name, *(f"{sum(kind) / len(kind):.4f}" for kind in zip(*measured, strict=True)))
            for name, measured in by_start.items()
        ],
    )
