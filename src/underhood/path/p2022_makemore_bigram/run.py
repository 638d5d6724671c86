"""Karpathy 2022, makemore part 1: names from pairs of letters, as a table and as one layer."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from underhood.core.figures import Heat, Series, Texts
from underhood.core.trial import Trial
from underhood.data.letters import ALPHABET, spelled
from underhood.models.bigram import counted, descend, drawn, loss, pairs, softmax
from underhood.path.lib.names import MISSING, documentation_words, examples, read_names, split_names

Floats = NDArray[np.float64]
DECAY, STEPS = 0.01, 1000


def run(trial: Trial) -> None:
    names = read_names(trial)
    if names is None:
        for key in ("net", "table"):
            trial.skip_claim(key, MISSING)
    words = names or documentation_words()
    seen = pairs(words)
    table = counted(alike(seen) if trial.ablated("before") else seen)
    if trial.wants("start", "layer"):
        trial.measure("start", loss(seen, softmax(np.zeros((27, 27)))))
        trial.measure("layer", float(np.abs(softmax(np.log(seen + 1)) - counted(seen + 1)).max()))
    if trial.wants("counts"):
        trial.measure("counts", loss(seen, table) - (entropy(seen) - entropy(seen.sum(axis=1))))
    if trial.wants("before", "further"):
        unseen(trial, words)
    curves: list[list[float]] = []
    for seed in trial.each_seed():
        generator = np.random.default_rng(seed)
        if names is not None and trial.wants("net", "table"):
            W = generator.standard_normal((27, 27))
            if not trial.ablated("training"):
                W, curve = descend(seen, W, steps=STEPS, decay=DECAY)
                curves.append(curve)
            left = loss(seen, softmax(W))
            trial.measure("table", left)
            trial.measure("net", left + DECAY * float((W**2).mean()))
        if trial.wants("real"):
            chance = generator.random((40, trial.by_scale(smoke=20_000, report=100_000)))
            of_table, of_letters = (share_real(drawn(t, chance), words) for t in (table, counted(alike(seen))))
            trial.measure("real", of_table / of_letters)
    if not trial.is_ablation:
        show(trial, seen, curves)


def entropy(counts: Floats) -> float:
    """−Σ p log p of counts divided by their sum, in nats."""
    p = counts[counts > 0] / counts.sum()
    return float(-(p * np.log(p)).sum())


def alike(seen: Floats) -> Floats:
    """The counts as if the letter before did not matter: every row is the sum of all."""
    return np.broadcast_to(seen.sum(axis=0), seen.shape)


def unseen(trial: Trial, words: list[str]) -> None:
    """Losses on the development names: single letters, pairs, triples, each count raised by one."""
    train, dev, _ = split_names(words)
    seen, later = pairs(train), pairs(dev)
    single, double = loss(later, counted(alike(seen) + 1)), loss(later, counted(seen + 1))
    if trial.ablated("before"):
        double = single
    trial.measure("before", single - double)
    x, y = (array.numpy() for array in examples(train, 2))
    triples = np.zeros((27, 27, 27))
    np.add.at(triples, (x[:, 0], x[:, 1], y), 1)
    x, y = (array.numpy() for array in examples(dev, 2))
    q = (triples + 0.1) / (triples + 0.1).sum(axis=2, keepdims=True)
    further = float(-np.log(q[x[:, 0], x[:, 1], y]).mean())
    trial.measure("further", double - further)
    trial.table(
        title="Loss on unseen names by what is looked at",
        head=("letters before", "entries of the table", "nats per letter"),
        rows=[(str(n), f"{27 ** (n + 1):,}", f"{value:.3f}") for n, value in enumerate((single, double, further))],
    )


def share_real(drawn_TN: NDArray[np.int64], words: list[str]) -> float:
    """The share of drawn words that are on the list."""
    known = set(words)
    return float(np.mean([spelled(word).strip() in known for word in drawn_TN.T]))


def show(trial: Trial, seen: Floats, curves: list[list[float]]) -> None:
    labels = tuple("·" if letter == " " else letter for letter in ALPHABET)
    values = tuple(map(tuple, counted(seen).round(4).tolist()))
    trial.figure(Heat(title="What follows each letter", values=values, rows=labels, columns=labels))
    chance = np.random.default_rng(0).random((40, 10))
    tables = {"from the table": counted(seen), "letters by frequency": counted(alike(seen))}
    tables["any letter"] = np.full((27, 27), 1 / 27)
    texts = tuple((name, ", ".join(spelled(w).strip() for w in drawn(t, chance).T)) for name, t in tables.items())
    trial.figure(Texts(title="Ten names, drawn with the same random numbers", texts=texts))
    if curves:
        steps = sorted({*np.geomspace(1, STEPS, 40).astype(int).tolist()})
        mean = np.array(curves).mean(axis=0)
        trial.plot(
            title="The layer learns the table",
            x="steps over all names",
            y="nats per letter",
            log_x=True,
            series=(Series("network", tuple(map(float, steps)), tuple(mean[steps].tolist())),),
            levels=((loss(seen, counted(seen)), "counts"),),
        )
