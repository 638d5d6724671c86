"""Karpathy 2022, Fisher 1922: counting is maximum likelihood, and gradient descent finds the counts."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from underhood.core.figures import Heat, Series
from underhood.core.trial import Trial
from underhood.data.letters import ALPHABET, plain_english
from underhood.models.bigram import counted, descend, drawn, loss, pairs, softmax

Floats = NDArray[np.float64]
DECAY = 0.01
DECAYS = (0.001, 0.01, 0.1, 1.0, 10.0)
ADDED = np.geomspace(0.01, 1e6, 161)


def run(trial: Trial) -> None:
    names = trial.file("text/names/names.txt")
    if names is None:
        words = " ".join(plain_english(only_topics=True)[0]).split()
        for key in ("pairs", "net", "counts"):
            trial.skip_claim(key, "needs the list of names: text/names/names.txt below --data")
    else:
        words = names.read_text(encoding="utf-8").split()
    seen = pairs(words)
    p, often = counted(seen, by_row=not trial.ablated("divide")), seen.sum(axis=1) / seen.sum()
    lowest = loss(seen, counted(seen))
    if names is not None:
        trial.measure("pairs", seen.sum())
        trial.measure("counts", loss(seen, counted(seen + 1)))
    if not trial.is_ablation:
        trial.oracle("one example at a time, torch", *agrees_with_torch(seen))
    curves = []
    for seed in trial.each_seed():
        rng = np.random.default_rng(seed)
        start = rng.standard_normal((27, 27))
        q = softmax(start)
        divergence = (often[:, None] * p * (np.log(np.where(p > 0, p, 1)) - np.log(q))).sum()
        trial.measure("identity", loss(seen, q) - loss(seen, p) - divergence)
        trial.measure("best", min(loss(seen, nearby(p, rng)) for _ in range(1000)) - loss(seen, p))
        W, curve = descend(seen, start, steps=5000, log=not trial.ablated("log"))
        trial.measure("gap", curve[200] - lowest)
        trial.measure("later", curve[-1] - lowest)
        curves.append(curve)
        chance = rng.random((40, trial.by_scale(smoke=500, report=5000)))
        equal = drawn(counted(seen), chance) == drawn(softmax(W), chance)
        trial.measure("same_names", equal.all(axis=0).mean())
        if names is not None and trial.wants("net"):
            decayed, _ = descend(seen, start, steps=1000, decay=DECAY)
            trial.measure("net", loss(seen, softmax(decayed)) + DECAY * (decayed**2).mean())
    alike = as_added(seen) if trial.wants("decay") else []
    if alike:
        trial.measure("decay", min(b[1] / a[1] for a, b in pairwise(alike)))
        show(trial, seen, np.array(curves), lowest, alike)


def nearby(p: Floats, rng: np.random.Generator) -> Floats:
    """A table of probabilities a little beside this one."""
    return counted(p * np.exp(rng.standard_normal(p.shape) * 10 ** rng.uniform(-3, 0)))


def as_added(seen: Floats) -> list[tuple[float, float]]:
    """For each weight decay, what must be added to all counts to come closest to the network's table."""
    tables = [(k, np.log(counted(seen + k))) for k in ADDED]
    pairs_of = []
    for decay in DECAYS:
        W, _ = descend(seen, np.zeros((27, 27)), steps=3000, decay=decay)
        q = softmax(W)
        weight = seen.sum(axis=1, keepdims=True) / seen.sum() * q
        pairs_of.append((decay, min(tables, key=lambda table: float((weight * (np.log(q) - table[1])).sum()))[0]))
    return pairs_of


def agrees_with_torch(seen: Floats) -> tuple[bool, str]:
    """Our slope against autograd's through 27 one-hot rows, each pair an example of its own."""
    first, second = (torch.from_numpy(index.repeat(seen.ravel().astype(int))) for index in np.indices(seen.shape))
    W = torch.zeros(27, 27, dtype=torch.float64, requires_grad=True)
    one_hot = torch.nn.functional.one_hot(first, 27).double()
    theirs = torch.nn.functional.cross_entropy(one_hot @ W, second)
    theirs.backward()
    assert W.grad is not None
    moved, losses = descend(seen, np.zeros((27, 27)), steps=1)
    worst = float(np.abs(moved + 50 * W.grad.numpy()).max())
    return worst < 1e-10 and abs(losses[0] - float(theirs.detach())) < 1e-10, f"largest difference {worst:.1e}"


def show(trial: Trial, seen: Floats, curves: Floats, lowest: float, alike: list[tuple[float, float]]) -> None:
    steps = sorted({*np.geomspace(1, 5000, 60).astype(int).tolist()})
    trial.plot(
        title="Gradient descent approaches the table of counts",
        x="steps over all pairs",
        y="nats above the counts",
        log_x=True,
        log_y=True,
        series=(Series("network", tuple(map(float, steps)), tuple(curves[:, steps].mean(axis=0) - lowest)),),
    )
    labels = tuple("·" if letter == " " else letter for letter in ALPHABET)
    soon = softmax(descend(seen, np.zeros((27, 27)), steps=10)[0])
    for title, table in (("The network after 10 steps", soon), ("The counts", counted(seen))):
        trial.figure(Heat(title=title, values=tuple(map(tuple, table.tolist())), rows=labels, columns=labels))
    trial.table(
        title="Weight decay and added counts",
        head=("weight decay", "like adding to every count"),
        rows=tuple((decay, f"{k:,.3g}") for decay, k in alike),
        note="Closest table by Kullback-Leibler divergence.",
    )
