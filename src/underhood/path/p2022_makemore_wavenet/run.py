"""Karpathy 2022, makemore part 5: a tree over eight letters, and the same as dilated causal convolutions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from underhood.core.figures import Series
from underhood.core.trial import Trial
from underhood.path.lib import letter_nets as nets
from underhood.path.lib.names import MISSING, documentation_words, examples, read_names, split_names

LARGE = nets.LetterNetShape(width=24, hidden=128, joins=(2, 2, 2))
LADDER = {
    "flat": nets.LetterNetShape(joins=(8,)),
    "tree": nets.LetterNetShape(hidden=68, joins=(2, 2, 2), per_position=True),
    "mended": nets.LetterNetShape(hidden=68, joins=(2, 2, 2)),
    "large": LARGE,
}
SHORT = nets.LetterNetShape(joins=(3,))


def run(trial: Trial) -> None:
    names = read_names(trial)
    if names is None:
        for key in LADDER:
            trial.skip_claim(key, MISSING)
    train, dev, _ = split_names(names or documentation_words())
    if trial.wants("same"):
        for seed in trial.seeds:
            trial.measure("same", tree_against_convolutions(trial, seed))
    trial.measure("work", sum(LARGE.positions) / len(LARGE.positions))
    trial.measure("parameters", LARGE.parameters)
    if trial.wants("context"):
        shapes = {"short": SHORT} | trial.by_scale(smoke={"mended": LADDER["mended"]}, report=LADDER)
        climb(trial, shapes, train, dev, published=names is not None)


def tree_as_convolutions(weights: nets.Weights, statistics: nets.Weights, dilations: tuple[int, ...]) -> nn.Sequential:
    """The first tree's weights as torch's own convolutions over letters (texts, positions): scores (texts, 27, …)."""
    layers: list[nn.Module] = [nn.Embedding(nets.LETTERS, LARGE.width), Transposed()]
    layers[0].weight.data = weights["embed"][0]
    for layer, dilation in enumerate(dilations):
        W_oi2 = weights[f"weight_{layer}"][0].unflatten(0, (2, -1)).permute(2, 1, 0)  # older, newer
        inputs = W_oi2.shape[1]
        convolution = nn.Conv1d(inputs, LARGE.hidden, kernel_size=2, dilation=dilation, bias=False)
        convolution.weight.data = W_oi2.contiguous()
        norm = nn.BatchNorm1d(LARGE.hidden, eps=nets.EPSILON)
        norm.weight.data, norm.bias.data = weights[f"gain_{layer}"][0, 0], weights[f"shift_{layer}"][0, 0]
        norm.running_mean = statistics[f"mean_{layer}"][0].flatten()
        norm.running_var = statistics[f"variance_{layer}"][0].flatten()
        layers += [convolution, norm, nn.Tanh()]
    scores = nn.Conv1d(LARGE.hidden, nets.LETTERS, kernel_size=1)
    scores.weight.data = weights["output"][0].T[..., None].contiguous()
    scores.bias.data = weights["output_bias"][0, 0]  # type: ignore[union-attr]
    return nn.Sequential(*layers, scores).eval()


class Transposed(nn.Module):
    """(texts, positions, channels) to (texts, channels, positions), as torch's convolutions want it."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mT


@torch.no_grad()
def tree_against_convolutions(trial: Trial, seed: int) -> float:
    """The largest difference between the tree, moved along two texts, and convolutions over both texts at once."""
    generator = torch.Generator().manual_seed(seed)
    weights = {name: weight.double() for name, weight in nets.initial(LARGE, [seed], gain=2.0).items()}
    statistics: nets.Weights = {}
    for layer in range(len(LARGE.joins)):
        weights[f"gain_{layer}"] += torch.randn(weights[f"gain_{layer}"].shape, generator=generator) / 4
        weights[f"shift_{layer}"] += torch.randn(weights[f"shift_{layer}"].shape, generator=generator) / 4
        of_unit = (1, 1, 1, LARGE.hidden)
        statistics[f"mean_{layer}"] = torch.randn(of_unit, generator=generator).double() / 4
        statistics[f"variance_{layer}"] = torch.rand(of_unit, generator=generator).double() + 0.5
    dilations = (1, 1, 1) if trial.ablated("dilation") else (1, 2, 4)
    texts_BT = torch.randint(nets.LETTERS, (2, 40), generator=generator)
    whole = tree_as_convolutions(weights, statistics, dilations)(texts_BT)
    windows = texts_BT.unfold(1, LARGE.context, 1)
    count = windows.shape[1]
    tree = nets.forward(LARGE, weights, windows.reshape(1, -1, LARGE.context), statistics)["scores"]
    return (tree.view(2, count, -1) - whole.mT[:, -count:]).abs().max().item()


def climb(
    trial: Trial, shapes: dict[str, nets.LetterNetShape], train: list[str], dev: list[str], *, published: bool
) -> None:
    """Trains every rung from every seed and measures its loss on unseen names."""
    seeds, rungs = list(trial.seeds), {}
    curves = []
    for name in trial.each(shapes, "networks"):
        shape = shapes[name]
        learn, unseen = examples(train, shape.context), examples(dev, shape.context)
        if trial.ablated("context") and shape.context > SHORT.context:
            for x, _ in (learn, unseen):
                x[:, :-1] = 0
        weights = nets.initial(shape, seeds, output_scale=0.1 / shape.hidden**0.5)
        statistics, curve = nets.train(
            shape,
            weights,
            *learn,
            steps=trial.by_scale(smoke=1000, report=200_000),
            seeds=seeds,
            drop_at=0.75,
            compiled=trial.scale == "report",
            progress=trial.progress,
        )
        if trial.is_ablation:
            rungs[name] = [nets.evaluate(shape, weights, statistics, *unseen)]
        else:
            rungs[name] = [nets.evaluate(shape, weights, statistics, *split) for split in (learn, unseen)]
        curves.append(curve.mean(dim=1).unflatten(0, (100, -1)).mean(dim=1))
    for index in range(len(seeds)):
        trial.measure("context", rungs["short"][-1][index] - rungs["mended"][-1][index])
        if published and trial.scale == "report":
            for key in LADDER:
                trial.measure(key, rungs[key][-1][index])
    if trial.is_ablation:
        return
    at = tuple((i + 0.5) * trial.by_scale(smoke=10, report=2000) for i in range(100))
    words = {
        "short": "3 letters",
        "flat": "8 letters at once",
        "tree": "8 letters, a tree",
        "mended": "batch norm mended",
        "large": "larger",
    }
    trial.plot(
        title="Loss in training: more context, then a tree, then a larger one",
        x="steps of 32 letters",
        y="nats per letter",
        series=[Series(words[name], at, tuple(curve.tolist())) for name, curve in zip(shapes, curves, strict=True)],
    )
    trial.table(
        title="The ladder, mean of the seeds",
        head=("network", "parameters", "training names", "unseen names"),
        rows=[
            (
                words[name],
                f"{shapes[name].parameters:,}",
                *(f"{sum(losses) / len(losses):.3f}" for losses in rungs[name]),
            )
            for name in shapes
        ],
    )
