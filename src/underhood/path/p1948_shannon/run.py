"""Shannon 1948: letters drawn from tables of ever longer contexts look more and more like English."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from underhood.core.figures import Series, Texts
from underhood.core.trial import Trial
from underhood.data.letters import ALPHABET, plain_english, spelled, symbols
from underhood.models.ngram import NGram, NGramSpec

Ids = NDArray[np.int64]
ORDERS = ("zeroth", "first", "second", "third")


def run(trial: Trial) -> None:
    train, held_out = plain_english(only_topics=trial.scale == "smoke")
    text, words = symbols(" ".join(train)), " ".join(train).split()
    known, number, counts = np.unique(words, return_inverse=True, return_counts=True)
    common = set(known[counts >= 5].tolist())
    common -= set("bcdefghjklmnopqrstuvwxyz")
    top = 1 if trial.ablated("context") else 8
    letter_tables = [table(text, min(order, top), 27) for order in (0, 1, 2, 3)]
    word_tables = [table(number, min(order, top), len(known)) for order in (1, 2)]
    others = " ".join(held_out).split()
    written = set(pairwise(others))
    count, length = trial.by_scale(smoke=(40, 250), report=(120, 500))
    shares: list[list[float]] = []
    samples: dict[str, str] = {}
    for seed in trial.each_seed():
        drawn = [draw(model, count, length, seed) for model in letter_tables]
        shares.append([word_share(sample, common) for sample in drawn])
        trial.measure("zeroth", shares[-1][0])
        trial.measure("third", shares[-1][3])
        trial.measure("step", float(np.diff(shares[-1]).min()))
        wording = [known[draw(model, count // 4, length // 5, seed)] for model in word_tables]
        pairs = [np.mean([pair in written for row in sample for pair in pairwise(row)]) for sample in wording]
        trial.measure("pairs", float(pairs[1] / max(pairs[0], 1e-9)))
        if not samples:
            samples = {f"{name}-order letters": spelled(d[0])[:110] for name, d in zip(ORDERS, drawn, strict=True)}
            samples |= {
                f"{name}-order words": " ".join(w[0][:20]) for name, w in zip(ORDERS[1:3], wording, strict=True)
            }
            if not trial.is_ablation:
                trial.oracle(
                    "transition counts, chi-square per degree of freedom", *surprise(drawn[2], letter_tables[2])
                )
    bits = [cross_entropy(text, held_out, order) for order in range(1, top + 1)]
    trial.measure("redundancy", 1 - bits[-1] / np.log2(27))
    show(trial, samples, np.array(shares), bits)


def table(ids: Ids, order: int, symbols: int) -> NGram:
    """What follows the last order − 1 symbols, as often as the text says so and no smoothing; order 0 is uniform."""
    if order == 0:
        return NGramSpec(vocab_size=symbols, order=1).build()
    return NGramSpec(vocab_size=symbols, order=order, continuation=False, discounts=(0.0,) * order).build().fit([ids])


def draw(model: NGram, count: int, length: int, seed: int) -> Ids:
    """Texts drawn symbol by symbol, (count, length), each after a symbol 0 (the space) that is not returned."""
    rng = np.random.default_rng(seed)
    text = np.zeros((count, length + 1), dtype=np.int64)
    for t in range(1, length + 1):
        seen = torch.from_numpy(text[:, max(0, t - max(model.spec.order - 1, 1)) : t])
        places = torch.arange(1, seen.shape[1] + 1)[None]  # from 1: no document opens here
        p = model(seen, positions=places)[:, -1].double().exp().cumsum(-1).numpy()
        text[:, t] = (rng.random((count, 1)) * p[:, -1:] > p).sum(axis=1)
    return text[:, 1:]


def word_share(sample: Ids, common: set[str]) -> float:
    """The share of strings between two spaces that are words; the cut ends of each text are left out."""
    pieces = [piece for row in sample for piece in spelled(row).split(" ")[1:-1] if piece]
    return sum(piece in common for piece in pieces) / max(len(pieces), 1)


def surprise(sample: Ids, model: NGram) -> tuple[bool, str]:
    """Whether transitions in texts of the second order follow the table, as Pearson's chi-square judges."""
    seen = np.zeros((27, 27))
    np.add.at(seen, (sample[:, :-1], sample[:, 1:]), 1)
    expected = model(torch.arange(27)[:, None], positions=torch.ones(1, 1).long())[:, 0].double().exp().numpy()
    expected *= seen.sum(axis=1, keepdims=True)
    enough = expected >= 5
    freedom = enough.sum() - enough.any(axis=1).sum()
    chi = float((((seen - expected) ** 2)[enough] / expected[enough]).sum())
    # Cells below 5 are left out, so the sum is a little below the full statistic: within five deviations either way.
    return abs(chi - freedom) < 5 * np.sqrt(2 * freedom), f"{chi / freedom:.3f} with {freedom} degrees"


def cross_entropy(text: Ids, held_out: tuple[str, ...], order: int) -> float:
    """Bits per symbol of held-out text under Kneser-Ney, which lets unseen contexts fall back on shorter ones."""
    model = NGramSpec(vocab_size=27, order=order).build().fit([text])
    return float(-np.concatenate(model.log_probs([symbols(text) for text in held_out])).mean() / np.log(2))


def show(trial: Trial, samples: dict[str, str], shares: NDArray[np.float64], bits: list[float]) -> None:
    trial.figure(Texts(title="The approximations, drawn here", texts=tuple(samples.items())))
    middle, spread = shares.mean(axis=0), 2 * shares.std(axis=0)
    trial.plot(
        title="Longer contexts make words",
        x="order of the letter table",
        y="share of words",
        kind="bars",
        names=ORDERS,
        series=(Series("drawn here", (0, 1, 2, 3), tuple(middle), tuple(middle - spread), tuple(middle + spread)),),
    )
    orders = tuple(float(order) for order in range(1, len(bits) + 1))
    trial.plot(
        title="What is left to guess after some letters of context",
        x="letters seen, the new one included",
        y="bits per letter on held-out text",
        series=(Series("Kneser-Ney", orders, tuple(bits)),),
        levels=((float(np.log2(27)), "27 equally likely symbols"), (float(np.log2(27)) / 2, "one half")),
    )
    trial.table(
        title="Redundancy by context",
        head=("letters", "bits per letter", "redundancy"),
        rows=tuple((n, round(b, 3), f"{1 - b / np.log2(27):.0%}") for n, b in enumerate(bits, start=1)),
        note=f"Alphabet: the space and {ALPHABET[1:]}.",
    )
