"""Karpathy 2022, makemore part 4: the gradient of every tensor by hand, and training without autograd."""

from __future__ import annotations

import torch
from torch import Tensor

from underhood.core.trial import Trial
from underhood.path.lib import letter_nets as nets
from underhood.path.lib.names import MISSING, documentation_words, examples, read_names, split_names

SHAPE = nets.LetterNetShape(bias=True)
BATCH = 32
Tensors = dict[str, Tensor]


def run(trial: Trial) -> None:
    names = read_names(trial)
    if names is None:
        for key in ("dev", "train"):
            trial.skip_claim(key, MISSING)
    train, dev, _ = split_names(names or documentation_words())
    learn = examples(train, SHAPE.context)
    for seed in trial.seeds:
        gradients(trial, *learn, seed=seed)
    trial.measure("tensors", len(chain_rule(forward_pass(start([0], torch.float64), *learn, seed=0))))
    trial.measure("parameters", SHAPE.parameters)
    if trial.scale == "report" and names is not None:
        trained(trial, learn, examples(dev, SHAPE.context))


def start(seeds: list[int], dtype: torch.dtype = torch.float32) -> Tensors:
    """Weights that are nowhere zero or one, so that no mistake can hide."""
    weights = nets.initial(SHAPE, seeds, gain=5 / 3, bias_scale=0.1, output_scale=0.1, output_bias=0.1)
    generator = torch.Generator().manual_seed(seeds[0])
    for name in ("gain_0", "shift_0"):
        weights[name] = weights[name] + 0.1 * torch.randn(weights[name].shape, generator=generator)
    return {name: weight.to(dtype) for name, weight in weights.items()}


def forward_pass(weights: Tensors, x_MT: Tensor, y_M: Tensor, *, seed: int) -> Tensors:
    """One network's pass in steps so small that each has a simple gradient; all that is needed is kept by name."""
    t = {name: weight[0].detach().requires_grad_() for name, weight in weights.items()}
    t |= {"b1": t.pop("bias_0"), "W1": t.pop("weight_0"), "gain": t.pop("gain_0"), "shift": t.pop("shift_0")}
    t |= {"W2": t.pop("output"), "b2": t.pop("output_bias")}
    ids = torch.randint(len(x_MT), (BATCH,), generator=torch.Generator().manual_seed(seed))
    t["vectors"] = t["embed"][x_MT[ids]]
    t["joined"] = t["vectors"].view(BATCH, -1)
    t["sums"] = t["joined"] @ t["W1"] + t["b1"]
    t["mean"] = t["sums"].sum(0, keepdim=True) / BATCH
    t["centred"] = t["sums"] - t["mean"]
    t["squares"] = t["centred"] ** 2
    t["variance"] = t["squares"].sum(0, keepdim=True) / (BATCH - 1)
    t["inverse"] = (t["variance"] + nets.EPSILON) ** -0.5
    t["normalized"] = t["centred"] * t["inverse"]
    t["before_tanh"] = t["gain"] * t["normalized"] + t["shift"]
    t["hidden"] = torch.tanh(t["before_tanh"])
    t["scores"] = t["hidden"] @ t["W2"] + t["b2"]
    t["highest"] = t["scores"].max(1, keepdim=True).values
    t["lowered"] = t["scores"] - t["highest"]
    t["counts"] = t["lowered"].exp()
    t["total"] = t["counts"].sum(1, keepdim=True)
    t["inverse_total"] = t["total"] ** -1
    t["probabilities"] = t["counts"] * t["inverse_total"]
    t["logs"] = t["probabilities"].log()
    t["loss"] = -t["logs"][torch.arange(BATCH), y_M[ids]].mean()
    return t | {"x": x_MT[ids], "y": y_M[ids]}


def chain_rule(t: Tensors, constant_statistics: bool = False) -> Tensors:
    """The gradient of the loss with respect to every tensor of the pass, in the order in which they follow."""
    d = {"logs": -torch.nn.functional.one_hot(t["y"], nets.LETTERS).to(t["logs"].dtype) / BATCH}
    d["probabilities"] = d["logs"] / t["probabilities"]
    d["inverse_total"] = (d["probabilities"] * t["counts"]).sum(1, keepdim=True)
    d["total"] = -d["inverse_total"] * t["total"] ** -2
    d["counts"] = d["probabilities"] * t["inverse_total"] + d["total"]  # used twice
    d["lowered"] = d["counts"] * t["counts"]
    d["highest"] = -d["lowered"].sum(1, keepdim=True)  # zero but for rounding: softmax ignores what all have in common
    largest = torch.nn.functional.one_hot(t["scores"].argmax(1), nets.LETTERS)
    d["scores"] = d["lowered"] + d["highest"] * largest
    d["hidden"] = d["scores"] @ t["W2"].T
    d["W2"] = t["hidden"].T @ d["scores"]
    d["b2"] = d["scores"].sum(0, keepdim=True)
    d["before_tanh"] = d["hidden"] * (1 - t["hidden"] ** 2)
    d["gain"] = (d["before_tanh"] * t["normalized"]).sum(0, keepdim=True)
    d["shift"] = d["before_tanh"].sum(0, keepdim=True)
    d["normalized"] = d["before_tanh"] * t["gain"]
    d["inverse"] = (d["normalized"] * t["centred"]).sum(0, keepdim=True)
    d["variance"] = -0.5 * d["inverse"] * (t["variance"] + nets.EPSILON) ** -1.5
    if constant_statistics:
        d["variance"] = torch.zeros_like(d["variance"])
    d["squares"] = d["variance"].expand(BATCH, -1) / (BATCH - 1)
    d["centred"] = d["normalized"] * t["inverse"] + d["squares"] * 2 * t["centred"]
    d["mean"] = torch.zeros_like(t["mean"]) if constant_statistics else -d["centred"].sum(0, keepdim=True)
    d["sums"] = d["centred"] + d["mean"] / BATCH
    d["joined"] = d["sums"] @ t["W1"].T
    d["W1"] = t["joined"].T @ d["sums"]
    d["b1"] = d["sums"].sum(0, keepdim=True)
    d["vectors"] = d["joined"].view(t["vectors"].shape)
    d["embed"] = torch.zeros_like(t["embed"]).index_add_(0, t["x"].flatten(), d["vectors"].flatten(0, 1))
    return d


def gradients(trial: Trial, x_MT: Tensor, y_M: Tensor, *, seed: int) -> None:
    """Both by hand and by autograd, step by step and at once."""
    constant = trial.ablated("statistics")
    t = forward_pass(start([seed], torch.float64), x_MT, y_M, seed=seed)
    with torch.no_grad():
        by_hand = chain_rule(t, constant)
    by_autograd = dict(zip(by_hand, torch.autograd.grad(t["loss"], [t[name] for name in by_hand]), strict=True))
    apart = {name: (by_hand[name] - by_autograd[name]).abs().max().item() for name in by_hand}
    trial.measure("atoms", max(apart.values()))
    small = forward_pass(start([seed]), x_MT, y_M, seed=seed)
    (scores,) = torch.autograd.grad(small["loss"], small["scores"])
    answer = torch.nn.functional.one_hot(small["y"], nets.LETTERS) * (not trial.ablated("target"))
    fused = (small["scores"].softmax(1) - answer) / BATCH
    trial.measure("fused_loss", (fused - scores).abs().max().item())
    kept = {"normalized_0": t["normalized"][None, :, None], "inverse_0": t["inverse"][None, :, None]}
    weights, d = {"gain_0": t["gain"][None]}, by_autograd["before_tanh"][None, :, None]
    with torch.no_grad():
        fused = d * t["gain"] * t["inverse"] if constant else nets.batch_norm_backward(d, weights, kept, 0, {})
    trial.measure("fused_norm", (fused[0, :, 0] - by_autograd["sums"]).abs().max().item())
    if seed == trial.seeds[0] and not trial.is_ablation:
        sizes = [(name, " × ".join(map(str, t[name].shape)), f"{apart[name]:.0e}") for name in by_hand]
        trial.table(title="All gradients, from the loss back", head=("tensor", "shape", "off by"), rows=sizes)
        theirs = torch.nn.functional.cross_entropy(t["scores"], t["y"])
        off = (t["loss"] - theirs).abs().item()
        trial.oracle("the loss: torch.nn.functional.cross_entropy", off < 1e-12, f"off by {off:.1e}")


def trained(trial: Trial, learn: tuple[Tensor, Tensor], unseen: tuple[Tensor, Tensor]) -> None:
    weights = start(list(trial.seeds))
    statistics, _ = nets.train(
        SHAPE,
        weights,
        *learn,
        steps=200_000,
        seeds=list(trial.seeds),
        momentum=0.001,
        compiled=True,
        progress=trial.progress,
    )
    for key, data in (("train", learn), ("dev", unseen)):
        for loss in nets.evaluate(SHAPE, weights, statistics, *data):
            trial.measure(key, loss)
