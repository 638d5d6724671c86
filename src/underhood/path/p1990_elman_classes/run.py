"""Elman 1990: hidden states of a network that predicts the next word of little sentences, and the classes in them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import cdist

from underhood.core.figures import Heat, Series
from underhood.core.trial import Trial
from underhood.path.lib.elman_grammar import (
    ANIMATES,
    CATEGORIES,
    LEXICON,
    NOUNS,
    next_word_chances,
    random_sentences,
    stream,
)
from underhood.path.lib.elman_network import ElmanNetwork
from underhood.path.lib.ranking import best_branch

Floats = NDArray[np.float64]
Ids = NDArray[np.int64]
INPUTS, HIDDEN = 31, 150
"""The paper's: one input per word, two of them spare."""


def run(trial: Trial) -> None:
    for seed in trial.each_seed():
        rng = np.random.default_rng(seed)
        text_T, _ = stream(random_sentences(rng, trial.by_scale(smoke=2_500, report=10_000)))
        test_T, chances_TV = stream(random_sentences(rng, 1_500))
        if trial.ablated("order"):
            text_T, test_T = rng.permutation(text_T), rng.permutation(test_T)
        net = ElmanNetwork.initialize(INPUTS, HIDDEN, INPUTS, seed=seed, bound=0.1)
        fresh = ElmanNetwork(net.hidden_IH.copy(), net.output_HO.copy())
        code = np.eye(INPUTS)
        rate = trial.by_scale(smoke=0.6, report=0.3)
        net.train(code[text_T[:-1]], code[text_T[1:]], rate=rate, passes=6)
        y_TV, h_TH = net.run(code[test_T[:-1]])
        predictions(trial, y_TV[:, : len(LEXICON)], chances_TV[:-1], test_T[1:])
        merges = tree(h_TH, test_T[:-1])
        scores = {name: best_branch(merges, members(words)) for name, words in GROUPS.items()}
        for key in ("verbs", "nouns", "animates"):
            trial.measure(key, scores[key])
        kinds = float(np.mean([scores[kind] for kind in NOUN_KINDS]))
        trial.measure("categories", kinds)
        blank = tree(fresh.run(code[test_T[:-1]])[1], test_T[:-1])
        by_chance = float(np.mean([best_branch(blank, members(GROUPS[kind])) for kind in NOUN_KINDS]))
        trial.measure("untrained", kinds - by_chance)
        trial.measure("tokens", same_kind_nearby(h_TH[-600:], test_T[-601:-1]))
        if seed == trial.seeds[0] and not trial.is_ablation:
            counted(trial, rng)
            show(trial, merges, h_TH, test_T[:-1])


NOUN_KINDS = tuple(kind for kind in CATEGORIES if kind.startswith("NOUN"))
GROUPS: dict[str, tuple[str, ...]] = {
    "verbs": tuple(word for word in LEXICON if word not in NOUNS),
    "nouns": NOUNS,
    "animates": ANIMATES,
} | {kind: tuple(CATEGORIES[kind].split()) for kind in NOUN_KINDS}


def members(words: tuple[str, ...]) -> NDArray[np.bool_]:
    return np.array([word in words for word in LEXICON])


def predictions(trial: Trial, y_TV: Floats, chances_TV: Floats, next_T: Ids) -> None:
    """How near the outputs are to the exact chances, and their error against what came."""
    norms_T = np.linalg.norm(y_TV, axis=1) * np.linalg.norm(chances_TV, axis=1)
    trial.measure("cosine", ((y_TV * chances_TV).sum(axis=1) / norms_T).mean())
    actual_TV = np.eye(len(LEXICON))[next_T]
    errors = [np.square(guess_TV - actual_TV).sum(axis=1).mean() ** 0.5 for guess_TV in (y_TV, chances_TV)]
    trial.measure("successor", errors[0] / errors[1])


def means(h_TH: Floats, words_T: Ids) -> Floats:
    """The mean hidden state after each word."""
    return np.stack([h_TH[words_T == word].mean(axis=0) for word in range(len(LEXICON))])


def tree(h_TH: Floats, words_T: Ids) -> Floats:
    """Hierarchical clustering of the mean states, by the merge that adds least variance (Ward 1963)."""
    return linkage(means(h_TH, words_T), "ward")


def same_kind_nearby(h_NH: Floats, words_N: Ids) -> float:
    """Of single states after nouns: how often the nearest one that is another noun's is of the same kind."""
    kind_of = {word: kind for kind in NOUN_KINDS for word in CATEGORIES[kind].split()}
    noun_N = np.array([LEXICON[word] in kind_of for word in words_N])
    h_NH, words_N = h_NH[noun_N], words_N[noun_N]
    distance_NN = cdist(h_NH, h_NH)
    distance_NN[words_N[:, None] == words_N] = np.inf
    kinds_N = np.array([kind_of[LEXICON[word]] for word in words_N])
    return float((kinds_N[distance_NN.argmin(axis=1)] == kinds_N).mean())


def counted(trial: Trial, rng: np.random.Generator) -> None:
    """The enumerated chances against counts in a long text."""
    words_T, chances_TV = stream(random_sentences(rng, 30_000))
    after_eat_T = (words_T[:-1] == LEXICON.index("eat")) & (words_T[:-1] != words_T[1:])
    expected_V = chances_TV[:-1][after_eat_T].mean(axis=0)
    counted_V = np.bincount(words_T[1:][after_eat_T], minlength=len(LEXICON)) / after_eat_T.sum()
    spread_V = np.sqrt(expected_V * (1 - expected_V) / after_eat_T.sum()) + 1e-9
    worst = float(np.abs((counted_V - expected_V) / spread_V).max())
    trial.oracle("words after *eat* in 30,000 sentences as enumerated", worst < 5, f"{worst:.1f} standard errors")
    total = max(abs(float(chances_V.sum()) - 1) for chances_V in next_word_chances().values())
    trial.oracle("enumerated chances sum to one", total < 1e-12, f"largest error {total:.0e}")


def show(trial: Trial, merges: Floats, h_TH: Floats, words_T: Ids) -> None:
    """The dendrogram, drawn in one line, and the distances between words in its order."""
    order = leaves_list(merges)
    centre = dict(enumerate(np.argsort(order).astype(float)))

    def outline(node: int) -> list[tuple[float, float]]:
        """The way round a branch, from its middle and back."""
        if node < len(LEXICON):
            return [(centre[node], 0.0)]
        left, right, height, _ = merges[node - len(LEXICON)]
        ways = [outline(int(child)) for child in (left, right)]
        x_left, x_right = (way[0][0] for way in ways)
        centre[node] = (x_left + x_right) / 2
        corners = [(x, float(height)) for x in (centre[node], x_left, x_right)]
        return [corners[0], corners[1], *ways[0], corners[1], corners[2], *ways[1], corners[2], corners[0]]

    xs, ys = zip(*outline(len(merges) + len(LEXICON) - 1), strict=True)
    names = tuple(LEXICON[word] for word in order)
    trial.plot(
        title="Nobody told it which words are alike",
        x="word",
        y="distance at which branches meet",
        series=(Series("Ward's clustering of the mean hidden state after each word", xs, ys),),
        names=names,
    )
    ordered = means(h_TH, words_T)[order]
    values = tuple(tuple(map(float, row)) for row in cdist(ordered, ordered))
    trial.figure(Heat(title="Distances between mean hidden states", values=values, rows=names, columns=names))
