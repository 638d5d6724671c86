"""Elman 1990: three sequences whose structure is in time, and where a network that predicts them errs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from underhood.core.figures import Series
from underhood.core.trial import Trial
from underhood.data.letters import plain_english, symbols
from underhood.models.ngram import NGramSpec
from underhood.path.lib.elman_network import ElmanNetwork
from underhood.path.lib.ranking import ranked_above

Floats = NDArray[np.float64]
RATE, BOUND = 0.3, 0.5
"""Learning rate and range of the first weights; the paper prints neither."""

FEATURES = ("Consonant", "Vowel", "Interrupted", "High", "Back", "Voiced")
LETTERS = {"b": "101001", "d": "101101", "g": "101011", "a": "010011", "i": "010101", "u": "010111"}
SYLLABLES = {"b": "ba", "d": "dii", "g": "guuu"}
WORDS = ("many years ago a boy and girl lived by the sea they played happily", "house")
PHRASE = WORDS[0].replace(" ", "")
CYCLES = 1_200


def run(trial: Trial) -> None:
    for seed in trial.each_seed():
        rng = np.random.default_rng(seed)
        if trial.wants("sawtooth", "chance", "everywhere"):
            xor(trial, rng, seed)
        trial.progress(0.4)
        if trial.wants("vowels", "some_consonant", "optimum"):
            letters(trial, rng, seed)
        trial.progress(0.8)
        if trial.wants("onsets", "boundaries"):
            words(trial, rng, seed)
        if trial.wants("english"):
            english(trial, seed)


def trained(trial: Trial, text_TI: Floats, hidden: int, seed: int, passes: int, rate: float = RATE) -> ElmanNetwork:
    """A network that has learnt to say the next symbol of a sequence."""
    size, copies = text_TI.shape[1], not trial.ablated("context")
    net = ElmanNetwork.initialize(size, hidden, size, seed=seed, bound=BOUND, copies=copies)
    net.train(text_TI[:-1], text_TI[1:], rate=rate, passes=passes)
    return net


def xor(trial: Trial, rng: np.random.Generator, seed: int) -> None:
    """Triples of two random bits and their XOR, 3,000 bits in 600 passes."""
    test_N = triples(rng, 3 * CYCLES)
    net = trained(trial, triples(rng, 3_000)[:, None], 2, seed, trial.by_scale(smoke=300, report=600))
    guess_N = net.run(test_N[:-1, None])[0][:, 0]
    error_N, turn_N = np.square(guess_N - test_N[1:]), np.arange(1, len(test_N)) % 3
    random_N = turn_N != 2
    trial.measure("sawtooth", error_N[~random_N].mean() / error_N[random_N].mean())
    trial.measure("chance", error_N[random_N].mean())
    is_xor_N = (test_N[1:-1] != test_N[:-2])[random_N[1:]]
    guess_N = guess_N[1:][random_N[1:]]
    trial.measure("everywhere", guess_N[is_xor_N].mean() - guess_N[~is_xor_N].mean())
    if seed == trial.seeds[0]:
        mean_12 = [error_N[start::12].mean() for start in range(12)]
        cycles = tuple(map(float, range(2, 14)))
        trial.plot(
            title="Every third bit can be known from the two before it",
            x="bit",
            y="squared error",
            series=(Series("mean over 300 stretches of twelve bits", cycles, tuple(mean_12)),),
            levels=((0.25, "always saying one half"),),
        )


def triples(rng: np.random.Generator, count: int) -> Floats:
    bits = rng.integers(0, 2, (count // 3, 2))
    return np.column_stack([bits, bits[:, 0] ^ bits[:, 1]]).reshape(-1).astype(float)


def letters(trial: Trial, rng: np.random.Generator, seed: int) -> None:
    """1,000 random consonants, each followed by its vowels, in 200 passes; tested on another such sequence."""
    text, test = ("".join(SYLLABLES[c] for c in rng.choice(list(SYLLABLES), 1000)) for _ in range(2))
    codes = {letter: [float(bit) for bit in bits] for letter, bits in LETTERS.items()}
    text_T6, test_T6 = (np.array([codes[letter] for letter in each]) for each in (text, test))
    net = trained(trial, text_T6, 20, seed, trial.by_scale(smoke=100, report=200))
    error_T6 = np.square(net.run(test_T6[:-1])[0] - test_T6[1:])
    consonant_T = test_T6[1:, 0] == 1
    at_consonants_6, at_vowels_6 = error_T6[consonant_T].mean(axis=0), error_T6[~consonant_T].mean(axis=0)
    trial.measure("vowels", at_vowels_6.sum() / at_consonants_6.sum())
    trial.measure("some_consonant", at_consonants_6[0] / at_consonants_6[3])
    trial.measure("optimum", at_consonants_6.sum() / (4 / 9))
    if seed == trial.seeds[0]:
        letter_error(trial, "The network knows that a consonant comes, but not which", test[1:25], error_T6[:24])
        rows = [
            (name, *(round(float(error), 4) for error in both))
            for name, *both in zip(FEATURES, at_consonants_6, at_vowels_6, strict=True)
        ]
        trial.table(title="Squared error of each bit", head=("bit", "at consonants", "at vowels"), rows=rows)


def words(trial: Trial, rng: np.random.Generator, seed: int) -> None:
    """200 sentences of 4 to 9 words without spaces, each letter five random bits, in 10 passes."""
    codes_26x5 = np.array([[n >> bit & 1 for bit in range(5)] for n in rng.permutation(32)[:26]], dtype=float)
    lexicon = " ".join(WORDS).split()
    text, test = ([w for _ in range(200) for w in rng.choice(lexicon, rng.integers(4, 10))] for _ in range(2))
    ids_T, _ = joined(text)
    test_T, starts_T = joined(test)
    net = trained(trial, codes_26x5[ids_T], 20, seed, passes=10)
    error_T = np.square(net.run(codes_26x5[test_T[:-1]])[0] - codes_26x5[test_T[1:]]).mean(axis=1) ** 0.5
    trial.measure("onsets", ranked_above(error_T[starts_T[1:]], error_T[~starts_T[1:]]))
    trial.measure("boundaries", f1_of_peaks(error_T, starts_T[1:]))
    if seed == trial.seeds[0] and not trial.is_ablation:
        model = NGramSpec(vocab_size=27, order=3).build().fit([ids_T])
        surprise_T = -model.log_probs([test_T])[0][1:]
        share = starts_T.mean()
        rows = [
            ("the network's error", round(f1_of_peaks(error_T, starts_T[1:]), 3)),
            ("surprise of a trigram of letters", round(f1_of_peaks(surprise_T, starts_T[1:]), 3)),
            ("guessing everywhere", round(2 * share / (1 + share), 3)),
        ]
        trial.table(title="Beginnings of words from peaks", head=("peaks of", "F1"), rows=rows)
        phrase_T = codes_26x5[joined([PHRASE])[0]]
        error_T5 = np.square(net.run(phrase_T[:-1])[0] - phrase_T[1:])
        letter_error(trial, "The error jumps where a word begins", PHRASE[1:], error_T5)


def english(trial: Trial, seed: int) -> None:
    """Documentation with its spaces taken out, 100,000 letters of it."""
    train, held_out = (" ".join(half).split() for half in plain_english(only_topics=True, seed=seed))
    codes_26x5 = np.random.default_rng(seed).permutation([[n >> bit & 1 for bit in range(5)] for n in range(32)])[:26]
    ids_T = joined(train)[0][:100_000]
    test_T, starts_T = joined(held_out)
    test_T, starts_T = test_T[:20_000], starts_T[:20_000]
    net = trained(trial, codes_26x5[ids_T].astype(float), 20, seed, passes=5, rate=0.1)
    error_T = np.square(net.run(codes_26x5[test_T[:-1]].astype(float))[0] - codes_26x5[test_T[1:]]).mean(axis=1)
    share = starts_T.mean()
    trial.measure("english", f1_of_peaks(error_T, starts_T[1:]) - 2 * share / (1 + share))


def joined(words: list[str]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Letters of words without spaces as numbers from 0, and which of them begin a word."""
    starts_T = np.zeros(sum(map(len, words)), dtype=bool)
    starts_T[np.cumsum([0, *map(len, words[:-1])])] = True
    return symbols("".join(words)) - 1, starts_T


def f1_of_peaks(error_T: Floats, starts_T: NDArray[np.bool_]) -> float:
    """F1 of taking each value that exceeds its two neighbours for a beginning."""
    peaks_T = np.zeros(len(error_T), dtype=bool)
    peaks_T[1:-1] = (error_T[1:-1] > error_T[:-2]) & (error_T[1:-1] >= error_T[2:])
    return float(2 * (peaks_T & starts_T).sum() / (peaks_T.sum() + starts_T.sum()))


def letter_error(trial: Trial, title: str, letters: str, error_TI: Floats) -> None:
    series = (
        Series("root of the mean squared error", tuple(range(len(letters))), tuple(error_TI.mean(axis=1) ** 0.5)),
    )
    trial.plot(title=title, x="letter", y="error", kind="bars", names=tuple(letters), series=series)
