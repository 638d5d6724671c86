"""Chen & Goodman 1999: what to do about n-grams that were never seen, and why Kneser-Ney does it best."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from underhood.core.figures import Grid, Plot, Series
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
)
from underhood.core.trial import Trial
from underhood.data.letters import plain_english, symbols
from underhood.models.counted import Counts, add_k, count, numbers, witten_bell
from underhood.models.ngram import NGramSpec

Ids = NDArray[np.int64]
K = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003)

MILESTONE = Milestone(
    stem="p1999_kneser_ney",
    topics=("ngram-smoothing",),
    title="Smoothing: what nobody has said yet",
    year=1999,
    question="How can a model of counts give a chance to what it never saw?",
    asks=(
        "what is smoothing?",
        "what is Kneser-Ney?",
        "why does maximum likelihood fail on new text?",
        "what was the best language model before neural networks?",
    ),
    papers=(
        Paper(
            authors="S. F. Chen, J. Goodman",
            year=1999,
            title="An empirical study of smoothing techniques for language modeling",
            link="https://doi.org/10.1006/csla.1999.0128",
        ),
        Paper(
            authors="R. Kneser, H. Ney",
            year=1995,
            title="Improved backing-off for m-gram language modeling",
            link="https://doi.org/10.1109/ICASSP.1995.479394",
        ),
    ),
    idea=r"""
Counting gives zero to every sequence that the text does not hold, and a single zero makes a whole page impossible. The
oldest cure adds a little $k$ to every count. It treats all unseen words alike, and there are so many that they take too
much. *Interpolation* asks the shorter history instead, and the methods differ in how much they give to it. Witten and
Bell give more after a history that many different words have followed:

$$p(w \mid h) = \frac{c(h\,w) + T(h)\,p(w \mid h')}{c(h) + T(h)}$$

with $T(h)$ the number of different words after $h$. Kneser and Ney take the same amount $D$ from every count that there
is, and change what the shorter history is asked. *Francisco* is a frequent word, but it only ever follows *San*; after
any other word it is a bad guess. So the lower orders do not count how often a word occurred, but after how many
different words:

$$p(w \mid h) = \frac{\max(c(h\,w) - D, 0)}{c(h)} + \gamma(h)\,p_{\text{cont}}(w \mid h'), \qquad
p_{\text{cont}}(w) \propto |\{v : c(v\,w) > 0\}|$$

Chen and Goodman compared them all on equal terms and gave counts of one, two and more their own $D$. That *modified*
form won everywhere, and stayed the model to beat until neural networks.
""",
    claims=(
        Claim(
            key="zeros",
            statement="At least 30 % of the word triples in new text were never seen: their probability would be zero",
            judge=at_least(0.3),
        ),
        Claim(
            key="witten_bell",
            statement="Kneser-Ney needs fewer bits than Witten-Bell on word pairs and triples (least margin)",
            judge=at_least(0.001),
            paper=Printed("outperforms all others", "verified", "abstract"),
            unit="bits per word",
        ),
        Claim(
            key="letters",
            statement="It needs fewer bits than Witten-Bell at every order of letters as well (least margin)",
            judge=at_least(0.001),
            unit="bits per letter",
        ),
        Claim(
            key="add_k",
            statement="It needs fewer bits than the best of six add-k from order 3 on (least margin)",
            judge=at_least(0.001),
            unit="bits",
        ),
        Claim(
            key="continuation",
            statement="Counting neighbours in place of occurrences is worth bits in word models (least margin)",
            judge=at_least(0.001),
            unit="bits per word",
        ),
        Claim(
            key="three",
            statement="Three discounts are no worse than one (mean margin)",
            judge=at_least(0.0, shape=-0.005),
            unit="bits",
        ),
        Claim(
            key="sums",
            statement="After any history the probabilities of all words sum to one (largest error in 1,000 histories)",
            judge=Exactly(0.0, within=1e-5),
            middle="max",
        ),
    ),
    ablations=(
        Ablation("continuation", "the lower orders count how often, not after how many different", ("continuation",)),
        Ablation("discount", "nothing is taken from seen n-grams: plain relative counts", ("witten_bell", "add_k")),
    ),
    minutes=Minutes(read=8, smoke=0.3, report=2),
    seeds=Seeds(smoke=1, report=5),
    code=("underhood.models.ngram:NGram._discount", "underhood.models.ngram:NGram._adjusted"),
    hard="""
Every seed holds out other documents. Words that the training text has once are one unknown word, so that all models
share a vocabulary and none gains by refusing to name rare words. Add-k is given its best k on the held-out text
itself, more than it would know. Of pairs of letters nearly all have been seen, so there is nothing left to smooth:
there the two methods differ by a fifty-thousandth of a bit, and the claim about letters at every order does not hold.
The n-gram code is checked elsewhere against exact fractions and against nltk.
""",
    then="The n-gram sees only equal histories; a network sees similar ones: bengio-2003.",
)


NULLS = ("letters",)


def run(trial: Trial) -> None:
    topics = trial.scale == "smoke"
    table: dict[tuple[str, int], list[dict[str, float]]] = {}
    for seed in trial.each_seed():
        train, held_out = (" ".join(half) for half in plain_english(only_topics=topics, seed=seed))
        found = {}
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
                found[kind, n] = compare(trial, text, other, size, counted[:n])
                table.setdefault((kind, n), []).append(found[kind, n])
            if kind == "words":
                seen = counted[2].of(numbers(other, 3, size))
                trial.measure("zeros", float((seen == 0).mean()))
        margins = {
            name: {at: row[name] - row["Kneser-Ney, three discounts"] for at, row in found.items()} for name in ROWS
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
    number = {word: place for place, word in enumerate(known[counts > 1].tolist(), start=1)}
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
        trial.figure(
            Plot(
                title=f"Bits per {kind[:-1]} on text that was held out",
                x="order",
                y=f"bits per {kind[:-1]}",
                series=tuple(
                    Series(name, tuple(map(float, orders)), tuple(mean[kind, n][name] for n in orders)) for name in ROWS
                ),
            )
        )
    rows = tuple((f"{kind}, {n}", *(round(row[name], 3) for name in ROWS)) for (kind, n), row in mean.items())
    trial.figure(Grid(title="All methods", head=("order", *ROWS), rows=rows, note="occurrences: absolute discounting."))
