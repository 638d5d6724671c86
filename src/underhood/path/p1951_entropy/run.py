"""Shannon 1951: how many bits a letter of English carries, from tables of letters and from a game of guessing."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from underhood.core.figures import Series
from underhood.core.trial import Trial
from underhood.data.letters import plain_english, symbols
from underhood.evals.guessing import bounds, conditional_entropy, ranks, shares
from underhood.models.ngram import NGram, NGramSpec

Ids = NDArray[np.int64]
TABLE_I_100 = (80, 7, 0, 3, 4, 2, 1, 0, 1, 0, 0, 1, 0, 1)  # letters guessed at the 1st, 2nd, … try, 100 letters known
LONGEST = 8


def run(trial: Trial) -> None:
    train, held_out = plain_english(only_topics=trial.scale == "smoke")
    text, other = symbols(" ".join(train)), [symbols(passage) for passage in held_out]
    topics = " ".join(text for half in plain_english(only_topics=True) for text in half)
    blind = trial.ablated("context")
    counted = [conditional_entropy(symbols(topics), 1 if blind else n) for n in range(1, LONGEST + 1)]
    letters = symbols(topics)[symbols(topics) > 0]
    trial.measure("f1", counted[0])
    trial.measure("f2", counted[1])
    trial.measure("f2_letters", conditional_entropy(letters, 1 if blind else 2))
    low, high = bounds(TABLE_I_100)
    trial.measure("table_low", low)
    trial.measure("table_high", high)
    models = [NGramSpec(vocab_size=27, order=n).build().fit([text]) for n in range(1, (1 if blind else LONGEST) + 1)]
    fresh = [-float(np.concatenate(model.log_probs(other)).mean() / np.log(2)) for model in models]
    trial.measure("f3", fresh[0 if blind else 2])
    trial.measure("collapse", counted[-1] / fresh[-1])
    length = trial.by_scale(smoke=4_000, report=40_000)
    for seed in trial.each_seed():
        entropy, guesses = known_source(seed, trial.ablated("order"))
        trial.measure("theorem", distance(entropy, bounds(shares(guesses))))
    played = [play(model, np.concatenate(other)[:length], trial.ablated("order")) for model in models]
    trial.measure("first_guess", float((played[-1][0] == 1).mean()))
    informed = played[1:] or played  # a table that looks at nothing has nothing to gain on its guesses
    trial.measure("game", min(distance(bits, bounds(shares(guesses))) for guesses, bits in informed))
    if not trial.is_ablation:
        chain = np.arange(1, 12_367 + 1)
        p = 0.1 / chain
        trial.oracle("his word model sums to 1 at rank 12,367", abs(p.sum() - 1) < 1e-5, f"{p.sum():.6f}")
        trial.oracle("its entropy, which he gives as 11.82", abs(-(p * np.log2(p)).sum() - 9.72) < 0.005, "9.72 bits")
        show(trial, counted, fresh, played)


def known_source(seed: int, any_order: bool) -> tuple[float, Ids]:
    """A random chain over 27 symbols: its entropy per symbol in closed form, and guesses of one who knows it."""
    rng = np.random.default_rng(seed)
    chain = rng.dirichlet(np.full(27, 0.2), size=27)
    stationary = np.linalg.matrix_power(chain, 200)[0]
    entropy = float(-(stationary[:, None] * chain * np.log2(np.maximum(chain, 1e-300))).sum())
    before = rng.choice(27, 60_000, p=stationary)
    after = (rng.random((len(before), 1)) > chain[before].cumsum(axis=1)).sum(axis=1).clip(max=26)
    return entropy, ranks(rng.random((len(before), 27)) if any_order else chain[before], after)


def play(model: NGram, text: Ids, any_order: bool) -> tuple[Ids, float]:
    """How many guesses each letter of a text takes the model, and the bits per letter that the model needs."""
    tokens = torch.from_numpy(text[None])
    scores = model(tokens[:, :-1], positions=torch.arange(1, len(text))[None])[0].double().numpy()
    bits = -float(np.take_along_axis(scores, text[1:, None], axis=1).mean() / np.log(2))
    return ranks(np.random.default_rng(0).random(scores.shape) if any_order else scores, text[1:]), bits


def distance(value: float, around: tuple[float, float]) -> float:
    """How far a value is inside an interval; negative outside."""
    return min(value - around[0], around[1] - value)


def show(trial: Trial, counted: list[float], fresh: list[float], played: list[tuple[Ids, float]]) -> None:
    orders = tuple(map(float, range(1, LONGEST + 1)))
    intervals = [bounds(shares(guesses)) for guesses, _ in played]
    trial.plot(
        title="What is left to guess",
        x="N: letters of context + 1",
        y="bits per symbol",
        series=(
            Series("counted on the same text", orders, tuple(counted)),
            Series("on other text", orders, tuple(fresh)),
            Series("upper bound from its guesses", orders, tuple(high for _, high in intervals)),
            Series("lower bound from its guesses", orders, tuple(low for low, _ in intervals)),
            Series("Shannon's tables", (1.0, 2.0, 3.0), (4.03, 3.32, 3.1), paper=True),
        ),
        levels=((0.6, "his reader, lower bound"), (1.3, "his reader, upper bound")),
    )
    trial.plot(
        title="Guesses that a letter takes",
        x="guess at which it was right",
        y="share of letters",
        kind="bars",
        names=tuple(map(str, range(1, 15))),
        series=(
            Series("n-gram, 7 letters known", tuple(range(14)), tuple(shares(played[-1][0])[:14])),
            Series("Shannon's reader, 100 known", tuple(range(14)), tuple(n / 100 for n in TABLE_I_100), paper=True),
        ),
    )
