"""Shannon 1948: surprise in bits, the laws that it obeys, and what samples hide of it."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from underhood.core.figures import Series
from underhood.core.trial import Trial
from underhood.data.letters import ALPHABET, plain_english, symbols
from underhood.evals.information import (
    conditional_entropy,
    cross_entropy,
    divergence,
    entropy,
    missing_bits,
    mutual_information,
)

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
SAMPLES = (100, 300, 1000, 3000, 10_000, 30_000, 100_000)
DISTANCES = (1, 2, 3, 4, 5, 7, 10, 15, 20, 30, 50)


def run(trial: Trial) -> None:
    text = symbols(" ".join(plain_english(only_topics=trial.scale == "smoke")[0]))
    if trial.ablated("context"):
        text = np.random.default_rng(0).permutation(text)
    h = unexpected if trial.ablated("logarithm") else entropy
    joint = pairs(text, 1)
    first, second = joint.sum(axis=1), joint.sum(axis=0)
    left = sum(share * h(row) for share, row in zip(first / first.sum(), joint, strict=True) if share > 0)
    left_before = sum(share * h(row) for share, row in zip(second / second.sum(), joint.T, strict=True) if share > 0)
    trial.measure("chain", h(joint) - h(first) - left)
    ways = (h(second) - left, h(first) - left_before, h(first) + h(second) - h(joint))
    trial.measure("mutual", max(ways) - min(ways))
    trial.measure("neighbour", ways[0])
    errors = []
    for seed in trial.each_seed():
        rng = np.random.default_rng(seed)
        if trial.wants("processing"):
            trial.measure("processing", min(lost(rng, trial.ablated("chain")) for _ in range(1000)))
        if trial.is_ablation:
            continue
        sources = rng.dirichlet(np.full(27, 0.5), size=1000)
        sizes = 10 ** rng.uniform(-3, 0, size=(1000, 1))
        believed = sources * np.exp(sizes * rng.standard_normal(sources.shape))
        trial.measure("gibbs", min(divergence(p, q) for p, q in zip(sources, believed, strict=True)))
        samples = rng.multinomial(1000, first / first.sum(), size=2000)
        low = entropy(first) - np.mean([entropy(sample) for sample in samples])
        trial.measure("bias", float(low / np.mean([missing_bits(sample) for sample in samples])))
        trial.measure("pairs_bias", -error(rng, joint, 1000)[0])
        errors.append([[error(rng, counts, n) for n in SAMPLES] for counts in (first, joint)])
    if not trial.is_ablation:
        oracles(trial, joint)
        show(trial, text, first, np.array(errors).mean(axis=0))


def pairs(text: Ints, distance: int) -> Ints:
    """How often each letter precedes each other letter at a distance, (27, 27)."""
    return np.bincount(text[:-distance] * 27 + text[distance:], minlength=27 * 27).reshape(27, 27)


def unexpected(counts: Ints) -> float:
    """Mean of 1 − p, a measure of surprise that does not add up."""
    p = counts / counts.sum()
    return float((p * (1 - p)).sum())


def lost(rng: np.random.Generator, leak: bool) -> float:
    """I(X; Y) − I(X; Z) of a random chain of four symbols each, or of one whose Z sees X too."""
    p_X, p_XY = rng.dirichlet(np.ones(4)), rng.dirichlet(np.full(4, 0.5), size=4)
    p_XYZ = rng.dirichlet(np.full(4, 0.5), size=(4 if leak else 1, 4))
    joint = p_X[:, None, None] * p_XY[:, :, None] * p_XYZ
    return mutual_information(joint.sum(axis=2)) - mutual_information(joint.sum(axis=1))


def error(rng: np.random.Generator, counts: Ints, n: int) -> tuple[float, float]:
    """Mean error of the entropy of samples of n, as counted and with Miller's correction, in bits."""
    samples = rng.multinomial(n, (counts / counts.sum()).ravel(), size=100)
    plain = float(np.mean([entropy(sample) for sample in samples])) - entropy(counts)
    return plain, plain + float(np.mean([missing_bits(sample) for sample in samples]))


def oracles(trial: Trial, joint: Ints) -> None:
    p, q = (torch.tensor(counts / counts.sum()) for counts in (joint + 1, joint.T + 1))
    theirs = F.cross_entropy(q.log().reshape(1, -1), p.reshape(1, -1)).item() / np.log(2)
    trial.oracle(
        "torch's cross_entropy", abs(cross_entropy(p.numpy(), q.numpy()) - theirs) < 1e-12, f"{theirs:.6f} bits"
    )
    theirs = F.kl_div(q.log(), p, reduction="sum").item() / np.log(2)
    trial.oracle("torch's kl_div", abs(divergence(p.numpy(), q.numpy()) - theirs) < 1e-12, f"{theirs:.6f} bits")
    rest = entropy(joint.sum(axis=0)) - conditional_entropy(joint)
    trial.oracle("the library's I(X; Y) is H(Y) − H(Y | X)", abs(mutual_information(joint) - rest) < 1e-12)


def show(trial: Trial, text: Ints, counts: Ints, errors: Floats) -> None:
    p = counts / counts.sum()
    rows = [(ALPHABET[i].replace(" ", "space"), f"{p[i]:.4f}", round(-float(np.log2(p[i])), 2)) for i in np.argsort(-p)]
    trial.table(title="Surprise at a letter", head=("letter", "share", "bits"), rows=rows)
    shared = [mutual_information(pairs(text, d)) for d in DISTANCES]
    chance = [mutual_information(pairs(np.random.default_rng(0).permutation(text), d)) for d in DISTANCES]
    places = tuple(map(float, DISTANCES))
    trial.plot(
        title="What a letter says about one further on",
        x="letters further on",
        y="mutual information, bits",
        log_x=True,
        log_y=True,
        series=(Series("the text", places, tuple(shared)), Series("shuffled: chance", places, tuple(chance))),
    )
    trial.plot(
        title="Small samples look surer than they are",
        x="letters (or pairs) in the sample",
        y="error of the entropy, bits",
        log_x=True,
        series=tuple(
            Series(f"{what}, {how}", tuple(map(float, SAMPLES)), tuple(errors[i, :, j]))
            for i, what in enumerate(("letters", "pairs"))
            for j, how in enumerate(("as counted", "corrected"))
        ),
    )
