"""Karpathy 2022, Fisher 1922: counting is maximum likelihood, and gradient descent finds the counts."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from underhood.core.figures import Grid, Heat, Plot, Series
from underhood.core.milestone import (
    Ablation,
    Claim,
    Exactly,
    Milestone,
    Minutes,
    Paper,
    Printed,
    Seeds,
    at_least,
    at_most,
    near,
)
from underhood.core.trial import Trial
from underhood.data.letters import ALPHABET, plain_english
from underhood.models.bigram import counted, descend, drawn, loss, pairs, softmax

Floats = NDArray[np.float64]
DECAY = 0.01
DECAYS = (0.001, 0.01, 0.1, 1.0, 10.0)
ADDED = np.geomspace(0.01, 1e6, 161)

MILESTONE = Milestone(
    stem="p2022_counting",
    topics=("mle-xent",),
    title="Counting is maximum likelihood",
    year=2022,
    question="Why is a language model trained with cross-entropy, and what would the best possible table be?",
    asks=(
        "what is maximum likelihood?",
        "what does the loss of a language model mean?",
        "what is a bigram model?",
    ),
    papers=(
        Paper(
            authors="A. Karpathy",
            year=2022,
            title="Neural networks: zero to hero, makemore part 1 (notebook)",
            link="https://github.com/karpathy/nn-zero-to-hero/blob/master/lectures/makemore/makemore_part1_bigrams.ipynb",
        ),
        Paper(
            authors="R. A. Fisher",
            year=1922,
            title="On the mathematical foundations of theoretical statistics",
            link="https://doi.org/10.1098/rsta.1922.0009",
        ),
    ),
    idea=r"""
Let a model say with what probability $q(b \mid a)$ a letter $b$ follows a letter $a$. The probability of a text is the
product over its pairs. *Maximum likelihood* says: take the $q$ that makes the text that you have as probable as it can
be. A product of a hundred thousand factors is nothing to compute with, so one takes the logarithm, turns the sign and
divides by the number of pairs. That is the loss of every language model, the mean of $-\log q$:

$$-\frac1n \sum_t \log q(x_t \mid x_{t-1}) = \underbrace{H(p)}_{\text{the text's own}}
+ \underbrace{D(p \,\|\, q)}_{\ge 0}$$

Here $p(b \mid a) = c(ab)/c(a)$ are the relative counts. The first term does not depend on the model. The second, the
Kullback-Leibler divergence, is zero only for $q = p$. So three wishes are one: to maximise the likelihood, to minimise
the cross-entropy, to get as close as one can to the counts. For a table the answer can be written down: *count, and
divide*.

A network with one layer, $q = \text{softmax}(W)$ with a row of $W$ for each letter, has to find it step by step. The
slope of its loss is the difference of the two tables, weighted by how often the letter occurs:

$$\frac{\partial L}{\partial W_{ab}} = p(a)\,\bigl(q(b \mid a) - p(b \mid a)\bigr)$$

It vanishes where the network predicts what was counted. For longer contexts nobody can count, and the same descent goes
on all the same: that is what deep models are for. Pulling all weights towards zero (*weight decay*) makes rows more
even. That is what adding to all counts does.
""",
    claims=(
        Claim(
            key="identity",
            statement="Loss minus entropy minus divergence is zero for any table (largest difference)",
            judge=Exactly(0.0, within=1e-12),
            middle="max",
            unit="nats",
        ),
        Claim(
            key="best",
            statement="Of 1,000 tables near the counts none has a lower loss than the counts (least difference)",
            judge=at_least(0.0),
            middle="min",
            unit="nats",
        ),
        Claim(
            key="gap",
            statement="Gradient descent comes within 0.001 nats of the counts in 200 steps",
            judge=at_most(0.001, shape=0.02),
            unit="nats",
        ),
        Claim(key="later", statement="It does in 5,000 steps", judge=at_most(0.001, shape=0.02), unit="nats"),
        Claim(
            key="pairs",
            statement="The list of names has 228,146 pairs of letters",
            judge=Exactly(228_146),
            paper=Printed(228_146, "verified", "notebook, cell 682"),
        ),
        Claim(
            key="net",
            statement="The loss on names, weight decay included, comes down to 2.482",
            judge=near(2.4818, 0.002),
            paper=Printed(2.4818, "verified", "notebook, cell 716"),
            unit="nats",
        ),
        Claim(
            key="counts",
            statement="The table of counts, one added to each, leaves 2.4765 nats per letter of the names",
            judge=near(2.4765, 0.0005),
            paper=Printed(2.4765, "verified", "notebook, cell 435"),
            unit="nats",
        ),
        Claim(
            key="same_names",
            statement="With the same random numbers, network and counts draw the same names (share that is equal)",
            judge=at_least(0.8, shape=0.6),
            paper=Printed("4 of 5", "verified", "notebook, cells 164 and 725"),
        ),
        Claim(
            key="decay",
            statement="Each tenfold weight decay is like adding more to all counts (least factor)",
            judge=at_least(2.0, shape=1.0),
        ),
    ),
    ablations=(
        Ablation(
            "log",
            "the mean probability of the right letter is maximised, without the logarithm",
            ("gap", "later", "same_names"),
        ),
        Ablation("divide", "the counts are divided by their sum over the table, not by row", ("best",)),
    ),
    minutes=Minutes(read=7, smoke=0.1, report=0.2),
    seeds=Seeds(smoke=2, report=5),
    code=("underhood.models.bigram:counted", "underhood.models.bigram:descend"),
    hard="""
Counts are at a finite distance in loss, not in weights: where a pair never occurs, its weight has to go to minus
infinity, and rare letters take few steps. The last thousandths therefore take thousands of steps. The notebook does not
say how many it took to 2.4818; the lowest value that there is with its weight decay is 2.4804. Without the names
(`--data`) the claims that need no printed number are measured on the letters of Python's own documentation.
""",
    errata=(
        "The notebook prints 2.4765 below its table of counts. Those counts give 2.4546 (2.4540 with nothing added). "
        "The printed tensor carries a grad_fn, which counts do not have: the cell had been run again after the network "
        "was trained, with the network's table.",
    ),
    then="Longer histories, where counts run out: ngram-smoothing.",
)


NULLS = ("counts",)


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
    found = []
    for decay in DECAYS:
        W, _ = descend(seen, np.zeros((27, 27)), steps=3000, decay=decay)
        q = softmax(W)
        weight = seen.sum(axis=1, keepdims=True) / seen.sum() * q
        found.append((decay, min(tables, key=lambda table: float((weight * (np.log(q) - table[1])).sum()))[0]))
    return found


def agrees_with_torch(seen: Floats) -> tuple[bool, str]:
    """Our slope against autograd's through 27 one-hot rows, each pair an example of its own."""
    first, second = (torch.from_numpy(place.repeat(seen.ravel().astype(int))) for place in np.indices(seen.shape))
    W = torch.zeros(27, 27, dtype=torch.float64, requires_grad=True)
    one_hot = torch.nn.functional.one_hot(first, 27).double()
    found = torch.nn.functional.cross_entropy(one_hot @ W, second)
    found.backward()
    assert W.grad is not None
    moved, losses = descend(seen, np.zeros((27, 27)), steps=1)
    worst = float(np.abs(moved + 50 * W.grad.numpy()).max())
    return worst < 1e-10 and abs(losses[0] - float(found.detach())) < 1e-10, f"largest difference {worst:.1e}"


def show(trial: Trial, seen: Floats, curves: Floats, lowest: float, alike: list[tuple[float, float]]) -> None:
    steps = sorted({*np.geomspace(1, 5000, 60).astype(int).tolist()})
    trial.figure(
        Plot(
            title="Gradient descent approaches the table of counts",
            x="steps over all pairs",
            y="nats above the counts",
            log_x=True,
            log_y=True,
            series=(Series("network", tuple(map(float, steps)), tuple(curves[:, steps].mean(axis=0) - lowest)),),
        )
    )
    labels = tuple("·" if letter == " " else letter for letter in ALPHABET)
    soon = softmax(descend(seen, np.zeros((27, 27)), steps=10)[0])
    for title, table in (("The network after 10 steps", soon), ("The counts", counted(seen))):
        trial.figure(Heat(title=title, values=tuple(map(tuple, table.tolist())), rows=labels, columns=labels))
    trial.figure(
        Grid(
            title="Weight decay and added counts",
            head=("weight decay", "like adding to every count"),
            rows=tuple((decay, f"{k:,.3g}") for decay, k in alike),
            note="Closest table by Kullback-Leibler divergence.",
        )
    )
