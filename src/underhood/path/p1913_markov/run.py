"""Markov 1913: the letters of *Eugene Onegin* depend on each other, and the law of large numbers holds all the same."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from underhood.core.figures import Series
from underhood.core.trial import Trial
from underhood.data.pydocs import pydocs_corpus

ONEGIN = "text/onegin/evgeny.txt"
LETTERS, BLOCK = 20_000, 100


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
    """The letters of a text as 1 for a vowel and 0 for any other letter; other characters are left out."""
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
    trial.plot(
        title="The share of vowels settles down, dependent or not",
        x="letters read",
        y="share of vowels so far",
        series=series,
        log_x=True,
        levels=((float(text.mean()), "all letters"),),
    )
