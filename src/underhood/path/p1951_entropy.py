"""Shannon 1951: how many bits a letter of English carries, from tables of letters and from a game of guessing."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from underhood.core.figures import Plot, Series
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
from underhood.data.letters import plain_english, symbols
from underhood.evals.guessing import bounds, conditional_entropy, ranks, shares
from underhood.models.ngram import NGram, NGramSpec

Ids = NDArray[np.int64]
TABLE_I_100 = (80, 7, 0, 3, 4, 2, 1, 0, 1, 0, 0, 1, 0, 1)  # letters guessed at the 1st, 2nd, … try, 100 letters known
LONGEST = 8

MILESTONE = Milestone(
    stem="p1951_entropy",
    topics=("shannon-1951", "shannon-game"),
    title="Shannon measures the entropy of printed English",
    year=1951,
    question="How much information does a letter carry, once you know what came before?",
    asks=(
        "what is the entropy of English?",
        "what does a guessing game say about entropy?",
    ),
    papers=(
        Paper(
            authors="C. E. Shannon",
            year=1951,
            title="Prediction and entropy of printed English",
            link="https://doi.org/10.1002/j.1538-7305.1951.tb01366.x",
        ),
        Paper(
            authors="J. Horgan",
            year=1992,
            title="Claude E. Shannon: unicyclist, juggler and father of information theory",
            link="https://doi.org/10.1109/MSPEC.1992.672257",
        ),
    ),
    idea=r"""
The entropy of a letter given the $N-1$ letters before it is a difference of two entropies that can be counted:

$$F_N = H(N\text{-grams}) - H((N-1)\text{-grams})$$

It falls as $N$ grows. But counting breaks down early: there are $27^8$ possible strings of eight letters, a text holds
each of its own only once, and what occurred once *seems* to follow with certainty. Estimates from the counted text
itself therefore sink towards zero. Judged on other text, with a model that admits what it has not seen, they do not.

For longer contexts Shannon used the best model of English at hand, a person. The person guesses the next letter until
it is right; the number of guesses is written down. If $q_i$ is the share of letters that took $i$ guesses,

$$\sum_i i\,(q_i - q_{i+1})\log_2 i \;\le\; F_N \;\le\; -\sum_i q_i \log_2 q_i$$

The upper bound holds because the numbers of guesses are enough to restore the text, if one has the same person guess
again; the lower one because nothing is flatter than equal steps. With a hundred letters known he found 0.6 to 1.3 bits.
Training a language model is this game, played against all text there is: its loss is the $F$ that it reaches.

Play it yourself with `underhood play shannon`: you against the n-gram, and against your own model.
""",
    claims=(
        Claim(
            key="f1",
            statement="Letter frequencies alone leave 4.03 bits per symbol (27 symbols)",
            judge=near(4.03, 0.1),
            paper=Printed(4.03, "verified", "section 2, 27 letters"),
            unit="bits",
        ),
        Claim(
            key="f2",
            statement="Knowing one letter leaves 3.32 bits per symbol (27 symbols)",
            judge=near(3.32, 0.1),
            paper=Printed(3.32, "verified", "section 2, 27 letters"),
            unit="bits",
        ),
        Claim(
            key="f2_letters",
            statement="Without the space, knowing one letter leaves 3.56 bits per letter (26 letters)",
            judge=near(3.56, 0.1),
            paper=Printed(3.56, "verified", "section 2, 26 letters"),
            unit="bits",
        ),
        Claim(
            key="f3",
            statement="Knowing two letters leaves 3.1 bits per symbol, on text the counts have not seen",
            judge=near(3.1, 0.3, shape=0.6),
            paper=Printed(3.1, "verified", "section 2, 27 letters"),
            unit="bits",
        ),
        Claim(
            key="collapse",
            statement="Judged on the text that was counted, eight letters leave 0.6 of what they really leave, or less",
            judge=at_most(0.6),
        ),
        Claim(
            key="theorem",
            statement="For a source of known entropy, an ideal guesser's bounds enclose it (least distance)",
            judge=at_least(0.0),
            middle="min",
            unit="bits",
        ),
        Claim(
            key="table_low",
            statement="The lower bound follows from Shannon's table of guesses with 100 letters known",
            judge=Exactly(0.59, within=0.005),
            paper=Printed("0.6 (smoothed)", "verified", "section 6"),
            unit="bits",
        ),
        Claim(
            key="table_high",
            statement="The upper bound follows from Shannon's table of guesses with 100 letters known",
            judge=Exactly(1.24, within=0.005),
            paper=Printed("1.3 (smoothed)", "verified", "section 6"),
            unit="bits",
        ),
        Claim(
            key="first_guess",
            statement="Knowing seven letters, a table is right at once as often as his reader who knew 9 to 14",
            judge=near(0.65, 0.07, shape=0.15),
            paper=Printed("58 to 72 of 100", "verified", "Table I"),
            topic="shannon-game",
        ),
        Claim(
            key="game",
            statement="What the table really needs lies between the bounds from its guesses (least distance)",
            judge=at_least(0.0),
            unit="bits",
            topic="shannon-game",
        ),
    ),
    ablations=(
        Ablation("context", "no letter before the guessed one is looked at", ("f2", "f2_letters", "f3", "first_guess")),
        Ablation("order", "guesses come in any order, not the likeliest first", ("theorem", "game")),
    ),
    minutes=Minutes(read=8, smoke=0.2, report=0.5),
    seeds=Seeds(smoke=3, report=20),
    code=("underhood.evals.guessing:bounds", "underhood.evals.guessing:ranks"),
    hard="""
His F3 came from tables of letter triples of ordinary prose; technical prose repeats itself more, and about 2.6 bits are
left of it. Column N of his tables means N − 1 known letters, except for 100. He smoothed the guess counts before
taking the bounds; unsmoothed and put in falling order, the column gives 0.59 and 1.24. The lower bound is a theorem
about an ideal guesser only.
""",
    errata=(
        "11.82 bits per word (and so 2.62 bits per letter) does not follow from the paper's own model pₙ = 0.1/n: that "
        "sums to 1 at rank 12,367, not 8,727, and gives 9.72 bits per word, 2.16 per letter. Grignetti (1964): 9.8.",
        "His subjects guessed the next letter, not the next word, as the story is often told.",
    ),
    then="A guesser that knows probabilities can pack text into those bits: lm-compressor.",
)


NULLS = ("f3",)


def run(trial: Trial) -> None:
    train, held_out = plain_english(only_topics=trial.scale == "smoke")
    text, other = symbols(" ".join(train)), [symbols(one) for one in held_out]
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
    """How far a value lies inside an interval; negative outside."""
    return min(value - around[0], around[1] - value)


def show(trial: Trial, counted: list[float], fresh: list[float], played: list[tuple[Ids, float]]) -> None:
    orders = tuple(map(float, range(1, LONGEST + 1)))
    found = [bounds(shares(guesses)) for guesses, _ in played]
    trial.figure(
        Plot(
            title="What is left to guess",
            x="N: letters of context + 1",
            y="bits per symbol",
            series=(
                Series("counted on the same text", orders, tuple(counted)),
                Series("on other text", orders, tuple(fresh)),
                Series("upper bound from its guesses", orders, tuple(high for _, high in found)),
                Series("lower bound from its guesses", orders, tuple(low for low, _ in found)),
                Series("Shannon's tables", (1.0, 2.0, 3.0), (4.03, 3.32, 3.1), paper=True),
            ),
            levels=((0.6, "his reader, lower bound"), (1.3, "his reader, upper bound")),
        )
    )
    trial.figure(
        Plot(
            title="Guesses that a letter takes",
            x="guess at which it was right",
            y="share of letters",
            kind="bars",
            names=tuple(map(str, range(1, 15))),
            series=(
                Series("n-gram, 7 letters known", tuple(range(14)), tuple(shares(played[-1][0])[:14])),
                Series(
                    "Shannon's reader, 100 known", tuple(range(14)), tuple(n / 100 for n in TABLE_I_100), paper=True
                ),
            ),
        )
    )
