"""Chen & Goodman 1999: what to do about n-grams that were never seen, and why Kneser-Ney does it best."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from underhood.core.figures import Series
from underhood.core.trial import Trial
from underhood.data.letters import plain_english, symbols
from underhood.models.counted import Counts, add_k, count, numbers, witten_bell
from underhood.models.ngram import NGramSpec

Ids = NDArray[np.int64]
K = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003)


def run(trial: Trial) -> None:
    topics = trial.scale == "smoke"
    table: dict[tuple[str, int], list[dict[str, float]]] = {}
    for seed in trial.each_seed():
        train, held_out = (" ".join(half) for half in plain_english(only_topics=topics, seed=seed))
        bits = {}
        for kind, (text, other, size), orders in trial.each(
            (
                (
                    "letters",
                    (symbols(train), symbols(held_out), 27),
                    trial.by_scale(smoke=range(2, 5), report=range(2, 7)),
                ),
                ("words", words(train, held_out), trial.by_scale(smoke=range(2, 4), report=range(2, 5))),
            ),
            "kind",
        ):
            counted = [count(text, n, size) for n in range(1, max(orders) + 1)]
            for n in trial.each(orders, "order"):
                bits[kind, n] = compare(trial, text, other, size, counted[:n])
                table.setdefault((kind, n), []).append(bits[kind, n])
            if kind == "words":
                seen = counted[2].of(numbers(other, 3, size))
                trial.measure("zeros", float((seen == 0).mean()))
        margins = {
            name: {at: row[name] - row["Kneser-Ney, three discounts"] for at, row in bits.items()} for name in ROWS
        }
        for key, of in (("witten_bell", "words"), ("letters", "letters")):
            trial.measure(key, min(margin for (kind, _), margin in margins["Witten-Bell"].items() if kind == of))
        trial.measure("add_k", min(margin for (_, n), margin in margins["add-k"].items() if n > 2))
        trial.measure("continuation", min(m for (kind, _), m in margins["occurrences"].items() if kind == "words"))
        trial.measure("three", float(np.mean(list(margins["Kneser-Ney, one discount"].values()))))
        trial.measure("sums", worst_sum(*words(train, held_out), seed))
    show(trial, table)


ROWS = ("add-k", "Witten-Bell", "occurrences", "Kneser-Ney, one discount", "Kneser-Ney, three discounts")


def compare(trial: Trial, text: Ids, other: Ids, size: int, counted: list[Counts]) -> dict[str, float]:
    """Bits per symbol of the held-out text under every method, at the order of the longest counts."""
    n = len(counted)
    fixed = (0.0,) * n if trial.ablated("discount") else None
    neighbours = not trial.ablated("continuation")

    def bits(continuation: bool, single: bool) -> float:
        spec = NGramSpec(vocab_size=size, order=n, continuation=continuation, single_discount=single, discounts=fixed)
        scores = spec.build().fit([text]).log_probs([other])[0]
        return float(-scores[n - 1 :].mean() / np.log(2))

    return dict(
        zip(
            ROWS,
            (
                min(bits_of(add_k(counted[-1], other, k)) for k in K),
                bits_of(witten_bell(counted, other)),
                bits(False, False),
                bits(neighbours, True),
                bits(neighbours, False),
            ),
            strict=True,
        )
    )


def words(train: str, held_out: str) -> tuple[Ids, Ids, int]:
    """Both texts as word numbers; words that the first does not have twice are number 0."""
    known, counts = np.unique(train.split(), return_counts=True)
    number = {word: rank for rank, word in enumerate(known[counts > 1].tolist(), start=1)}
    first, second = (np.array([number.get(word, 0) for word in half.split()]) for half in (train, held_out))
    return first, second, len(number) + 1


def bits_of(p: NDArray[np.float64]) -> float:
    return float(-np.log2(p).mean())


def worst_sum(text: Ids, other: Ids, size: int, seed: int) -> float:
    model = NGramSpec(vocab_size=size, order=3).build().fit([text[:100_000]])
    pairs = torch.from_numpy(np.random.default_rng(seed).choice(other, (1000, 2)))
    logs = model(pairs, positions=torch.arange(1, 3)[None])[:, -1]
    return float((logs.double().exp().sum(-1) - 1).abs().max())


def show(trial: Trial, table: dict[tuple[str, int], list[dict[str, float]]]) -> None:
    mean = {at: {name: float(np.mean([row[name] for row in rows])) for name in ROWS} for at, rows in table.items()}
    for kind in ("letters", "words"):
        orders = [n for of, n in mean if of == kind]
        trial.plot(
            title=f"Bits per {kind[:-1]} on text that was held out",
            x="order",
            y=f"bits per {kind[:-1]}",
            series=tuple(
                Series(name, tuple(map(float, orders)), tuple(mean[kind, n][name] for n in orders)) for name in ROWS
            ),
        )
    rows = tuple((f"{kind}, {n}", *(round(row[name], 3) for name in ROWS)) for (kind, n), row in mean.items())
    trial.table(title="All methods", head=("order", *ROWS), rows=rows, note="occurrences: absolute discounting.")
