"""Mikolov et al. 2013: vectors of words from the words around them, and what their differences say."""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata

from underhood.core.figures import Series
from underhood.core.trial import Trial
from underhood.data.word_vocabulary import WordVocabulary
from underhood.models.word_vectors import WordVectors
from underhood.path.lib.planted_text import RELATIONS, planted_questions, planted_sentences
from underhood.train.word2vec import UNIGRAM_POWER, Word2VecSpec, train_word_vectors

WINDOW, NEGATIVES, WIDTH = 4, 5, 50
KINDS = {"skip_gram": ("skip-gram", NEGATIVES), "cbow": ("cbow", NEGATIVES), "tree": ("skip-gram", 0)}
OFTEN = 20
"""Pairs that occur less often than this have a mutual information of chance."""


def run(trial: Trial) -> None:
    shown: WordVectors | None = None
    for seed in trial.each_seed():
        sentences = planted_sentences(trial.by_scale(smoke=25_000, report=60_000), seed=seed)
        if trial.ablated("company"):
            sentences = shuffled(sentences, seed)
        for key, (architecture, negatives) in KINDS.items():
            if trial.wants(key, *(("included", "pmi", "company") if key == "skip_gram" else ())):
                spec = Word2VecSpec(
                    architecture=architecture,  # type: ignore[arg-type]
                    negatives=negatives,
                    width=WIDTH,
                    window=WINDOW,
                    epochs=trial.by_scale(smoke=6, report=8),
                    sample=0,
                    seed=seed,
                )
                vectors = train_word_vectors(sentences, spec, min_count=1)
                trial.measure(key, vectors.answer_analogies(planted_questions()).accuracy)
                if key == "skip_gram":
                    shown = shown or vectors
                    more_about(trial, vectors, sentences)
    if shown is not None and not trial.is_ablation:
        trial.plot(
            title="Eight pairs of words: the way from one to the other is the same",
            x="first principal component",
            y="second",
            series=pairs_in_the_plane(shown),
            note="The first two principal components of the 16 words' vectors, skip-gram, first seed.",
        )


def pairs_in_the_plane(vectors: WordVectors) -> list[Series]:
    """Each pair of the first relation as a line from its first word to its second."""
    rows = RELATIONS["gender"]
    points_PD = np.stack([vectors[word] for row in rows for word in row])
    points_PD = points_PD - points_PD.mean(axis=0)
    _, _, axes = np.linalg.svd(points_PD, full_matrices=False)
    flat = (points_PD @ axes[:2].T).reshape(len(rows), 2, 2)
    return [Series(" → ".join(row), tuple(ends[:, 0]), tuple(ends[:, 1])) for row, ends in zip(rows, flat, strict=True)]


def shuffled(sentences: list[list[str]], seed: int) -> list[list[str]]:
    """The same words as often, each in a random place."""
    words = np.random.default_rng(seed).permutation([word for sentence in sentences for word in sentence]).tolist()
    return [words[start : start + 5] for start in range(0, len(words), 5)]


def more_about(trial: Trial, vectors: WordVectors, sentences: list[list[str]]) -> None:
    """Neighbours, answers with the question's words, and mutual information."""
    own = [
        vectors.analogy(a, b, c, 1, exclude=False)[0][0] in (a, b, c)
        for _, questions in planted_questions()
        for a, b, c, _ in questions
    ]
    trial.measure("included", float(np.mean(own)))
    kin = {}
    for rows in RELATIONS.values():
        for row in rows:
            for column, word in enumerate(row):
                kin[word] = {row[1 - column], *(other[column] for other in rows)}
    near = [
        np.mean([neighbour in kin[word] for neighbour, _ in vectors.nearest(word, 60) if neighbour in kin][:5] or [0.0])
        for word in kin
    ]
    trial.measure("company", float(np.mean(near)))
    assert vectors.outputs_VD is not None
    information, pairs = shifted_information(sentences, vectors)
    products = (vectors.vectors_VD[pairs[:, 0]] * vectors.outputs_VD[pairs[:, 1]]).sum(axis=1)
    trial.measure("pmi", float(np.corrcoef(rankdata(products), rankdata(information))[0, 1]))  # Spearman


def shifted_information(sentences: list[list[str]], vectors: WordVectors) -> tuple[np.ndarray, np.ndarray]:
    """``log P(w, c) / (P(w) P'(c)) − log k`` of the pairs that are often near each other, and the pairs.

    P' is the distribution that random words are drawn from; nearer pairs count more, as windows of random reach read
    them more often (Levy and Goldberg 2014, equations 10 and 11).
    """
    ids_N, starts_S = WordVocabulary(vectors.words, np.ones(len(vectors.words), dtype=np.int64)).encode(sentences)
    size = len(vectors.words)
    sentence_N = np.repeat(np.arange(len(sentences)), np.diff(starts_S))
    weights = np.zeros(size * size)
    for distance in range(1, WINDOW + 1):
        same = sentence_N[distance:] == sentence_N[:-distance]
        left, right = ids_N[:-distance][same].astype(np.int64), ids_N[distance:][same].astype(np.int64)
        share = (WINDOW - distance + 1) / WINDOW
        weights += share * (
            np.bincount(left * size + right, minlength=size * size)
            + np.bincount(right * size + left, minlength=size * size)
        )
    table = weights.reshape(size, size)
    words, contexts = np.nonzero(table >= OFTEN)
    counts = np.bincount(ids_N, minlength=size)
    noise = counts**UNIGRAM_POWER / (counts**UNIGRAM_POWER).sum()
    information = np.log(table[words, contexts] / (table.sum(axis=1)[words] * noise[contexts])) - np.log(NEGATIVES)
    return information, np.stack([words, contexts], axis=1)
