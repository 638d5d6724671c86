"""Markov 1913: the letters of *Eugene Onegin* depend on each other, and the law of large numbers holds all the same."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from underhood.core.figures import Plot, Series
from underhood.core.milestone import (
    Ablation,
    Between,
    Claim,
    Exactly,
    Milestone,
    Minutes,
    Paper,
    Printed,
    Seeds,
    at_most,
    near,
)
from underhood.core.trial import Trial
from underhood.data.pydocs import pydocs_corpus

ONEGIN = "text/onegin/evgeny.txt"
LETTERS, BLOCK = 20_000, 100

MILESTONE = Milestone(
    stem="p1913_markov",
    topics=("markov-1913", "hayes-article"),
    title="Markov counts the letters of Eugene Onegin",
    year=1913,
    question="What is a Markov chain, and why did a mathematician count vowels in a poem?",
    asks=(
        "what was the first language model?",
        "do letters depend on the letters before them?",
        "does the law of large numbers need independence?",
    ),
    papers=(
        Paper(
            authors="A. A. Markov",
            year=1913,
            title="An example of statistical investigation of the text Eugene Onegin (English translation, 2006)",
            link="https://doi.org/10.1017/S0269889706001074",
        ),
        Paper(
            authors="B. Hayes",
            year=2013,
            title="First links in the Markov chain",
            link="https://doi.org/10.1511/2013.101.92",
        ),
    ),
    idea=r"""
A rival had argued that averages settle down *only* if the trials are independent. Markov answered with a poem. He wrote
out 20,000 letters of Pushkin's *Eugene Onegin*, marked each as vowel or consonant, and counted pairs. Independent
letters would give $n\,p^2$ pairs of vowels; there are less than a third as many, for a vowel is mostly followed by a
consonant. So each letter depends on the one before it:

$$P(x_t \mid x_1, \dots, x_{t-1}) = P(x_t \mid x_{t-1})$$

is a better description than independence, and it is a language model: it says how probable the next letter is, given
what has been read. The averages settle down nevertheless, and even faster. With $\delta = p_{VV} - p_{CV}$, the
difference that the previous letter makes, the number of vowels in a long block of $n$ letters varies as

$$\operatorname{Var} \approx n\,p\,(1-p)\,\frac{1+\delta}{1-\delta}$$

and $\delta$ is negative in every language where vowels and consonants alternate. The last factor is the *dispersion*:
1 for independent letters, about 0.3 for Markov's chain, and 0.2 in the poem itself, whose letters remember more than
one step.
""",
    claims=(
        Claim(
            key="vowels",
            statement="The first 20,000 letters of Eugene Onegin hold 8,638 vowels",
            judge=near(8638, 10),
            paper=Printed(8638, "verified", "table of blocks"),
        ),
        Claim(
            key="vowel_pairs",
            statement="1,104 of its pairs of neighbours are two vowels, where independence would give 3,731",
            judge=near(1104, 20),
            paper=Printed(1104, "verified", "count of pairs"),
        ),
        Claim(
            key="dispersion",
            statement="The number of vowels per 100 letters varies a fifth as much as independent letters would",
            judge=near(0.208, 0.02),
            paper=Printed(0.208, "verified", "5.114 / 24.5376"),
        ),
        Claim(
            key="english",
            statement="English prose avoids two vowels in a row as well: less than half of what independence gives",
            judge=at_most(0.5, shape=0.8),
        ),
        Claim(
            key="formula",
            statement="A simulated chain varies as the formula (1 + δ)/(1 − δ) says: measured over predicted is 1",
            judge=Between(0.9, 1.1),
        ),
        Claim(
            key="stationary",
            statement="The pair probabilities alone give back the share of vowels: p = p(V|C) / (1 − p(V|V) + p(V|C))",
            judge=Exactly(0.0, within=1e-4),
        ),
    ),
    ablations=(
        Ablation(
            "dependence",
            "the letters are shuffled: the same letters, none of which knows the one before it",
            ("vowel_pairs", "dispersion", "english", "formula"),
        ),
    ),
    minutes=Minutes(read=6, smoke=0.05, report=0.1),
    seeds=Seeds(smoke=3, report=20),
    code=("underhood.path.p1913_markov:transitions", "underhood.path.p1913_markov:dispersion"),
    hard="""
Markov left out the hard and the soft sign, and his count comes back only if the short й counts as a vowel: with й as a
consonant the same text has 8,230 vowels and 621 pairs. The modern edition differs from his in spelling, so counts agree
within a few letters, not exactly.
""",
    errata=(
        "A transition matrix with 0.175 and 0.526 circulates with Markov's counts; it does not follow from them: "
        "1,104 / 8,638 = 0.128 and 7,534 / 11,362 = 0.663.",
    ),
)


def run(trial: Trial) -> None:
    english = binary("".join(doc.text for doc in pydocs_corpus().documents[:12]).lower(), vowels="aeiou")[:LETTERS]
    onegin = read_onegin(trial)
    for key in ("vowels", "vowel_pairs", "dispersion") if onegin is None else ():
        trial.skip_claim(key, f"needs the poem: {ONEGIN} below --data")
    if trial.ablated("dependence"):
        english = np.random.default_rng(0).permutation(english)
        onegin = None if onegin is None else np.random.default_rng(0).permutation(onegin)
    if onegin is not None:
        trial.measure("vowels", onegin.sum())
        trial.measure("vowel_pairs", (onegin[1:] & onegin[:-1]).sum())
        trial.measure("dispersion", dispersion(onegin))
    trial.measure("english", (english[1:] & english[:-1]).mean() / english.mean() ** 2)
    text = english if onegin is None else onegin
    after_vowel, after_consonant = transitions(text)
    trial.measure("stationary", after_consonant / (1 - after_vowel + after_consonant) - text.mean())
    fitted = (0.128, 0.663)  # Markov's own chain
    predicted = (1 + fitted[0] - fitted[1]) / (1 - fitted[0] + fitted[1])
    for seed in trial.each_seed():
        chain = simulate(fitted, 50 * LETTERS, seed)
        if trial.ablated("dependence"):
            chain = np.random.default_rng(seed).permutation(chain)
        trial.measure("formula", dispersion(chain) / predicted)
    draw(trial, text)


def binary(text: str, vowels: str) -> NDArray[np.int64]:
    """The letters of a text as 1 for a vowel and 0 for any other letter; what is no letter is passed over."""
    return np.array([letter in vowels for letter in text if letter.isalpha()], dtype=np.int64)


def read_onegin(trial: Trial) -> NDArray[np.int64] | None:
    """The first 20,000 letters of the poem proper as Markov read them, or None where the text is not at hand."""
    file = trial.file(ONEGIN)
    if file is None:
        return None
    text = file.read_text(encoding="utf-8").lower()
    poem = text[text.index("мой дядя") :].replace("ъ", "").replace("ь", "")
    return binary("".join(c for c in poem if "а" <= c <= "я" or c == "ё"), vowels="аеёиоуыэюяй")[:LETTERS]


def transitions(letters: NDArray[np.int64]) -> tuple[float, float]:
    """How often a vowel follows a vowel, and a consonant: p(V|V) and p(V|C), the whole model."""
    now, then = letters[:-1], letters[1:]
    return float(then[now == 1].mean()), float(then[now == 0].mean())


def dispersion(letters: NDArray[np.int64]) -> float:
    """Variance of the number of vowels per block of 100, over that of independent letters: n p (1 − p)."""
    blocks = letters[: len(letters) // BLOCK * BLOCK].reshape(-1, BLOCK).sum(axis=1)
    p = blocks.mean() / BLOCK
    return float(blocks.var() / (BLOCK * p * (1 - p)))


def simulate(chain: tuple[float, float], count: int, seed: int) -> NDArray[np.int64]:
    """Letters of a chain with p(V|V), p(V|C), beginning with a consonant."""
    letters, last = [], False
    for chance in np.random.default_rng(seed).random(count).tolist():
        last = chance < chain[0 if last else 1]
        letters.append(last)
    return np.array(letters, dtype=np.int64)


def draw(trial: Trial, text: NDArray[np.int64]) -> None:
    """The share of vowels so far: it settles for the text as it does for shuffled letters."""
    places = np.unique(np.geomspace(10, len(text), 80).astype(int))
    shuffled = np.random.default_rng(0).permutation(text)
    series = [
        Series(name, tuple(map(float, places)), tuple(float(letters[:n].mean()) for n in places))
        for name, letters in (("as written", text), ("shuffled", shuffled))
    ]
    trial.figure(
        Plot(
            title="The share of vowels settles down, dependent or not",
            x="letters read",
            y="share of vowels so far",
            series=tuple(series),
            log_x=True,
            levels=((float(text.mean()), "all letters"),),
        )
    )
