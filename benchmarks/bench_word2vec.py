"""Words per second and quality of word2vec, ours beside gensim's, on the same lists of words in the same run.

    python benchmarks/bench_word2vec.py [--words 2000000] [--threads 2] [--rounds 3] [--seeds 3] [--text FILE]

Each of skip-gram and CBOW, with negative sampling and with hierarchical softmax, trains one epoch in turns. Quality
is asked of text with planted relations (`path.lib.planted_text`): the share of analogy questions answered right after
a few epochs, over seeds, with the three words of the question left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from gensim.models import Word2Vec

from harness import compare, machine, options_from_command_line, print_json
from underhood.data.word_vocabulary import sentences_of
from underhood.models.word_vectors import WordVectors
from underhood.path.lib.planted_text import planted_questions, planted_sentences
from underhood.train.word2vec import Word2VecSpec, train_word_vectors

KINDS = {
    "skip-gram, negative sampling": ("skip-gram", 5, 1.0),
    "CBOW, negative sampling": ("cbow", 5, 0.8),
    "skip-gram, hierarchical softmax": ("skip-gram", 0, 0.8),
    "CBOW, hierarchical softmax": ("cbow", 0, 0.8),
}
"""Architecture, random words, and the least ratio to gensim's speed that is promised."""

PLANTED, EPOCHS = 5_000, 4
"""Sentences and epochs so few that not every question is answered, or there would be nothing to compare."""

QUALITY_MARGIN = 0.02
"""How far below gensim's our share of right analogies may be."""


@dataclass(frozen=True)
class Options:
    """word2vec beside gensim."""

    words: int = 2_000_000
    """Words that are trained on; the text is repeated until there are so many."""

    threads: int = 2
    rounds: int = 3
    seeds: int = 3

    text: Path | None = None
    """A file of plain text; the documentation inside Python if left out."""


def sentences_for(options: Options) -> list[list[str]]:
    if options.text is not None:
        text = options.text.read_text(encoding="utf-8")
    else:
        from underhood.data.sources import load_corpus

        text = "\n\n".join(document.text for document in load_corpus("pydocs").documents)
    once = sentences_of(text)
    size = sum(map(len, once))
    return once * -(-options.words // size)


def gensim_model(sentences: list[list[str]], architecture: str, negatives: int, seed: int, **changes: Any) -> Word2Vec:
    settings = {"vector_size": 100, "window": 5, "min_count": 5, "sample": 1e-3, "epochs": 1, "workers": 1} | changes
    model = Word2Vec(
        sg=int(architecture == "skip-gram"),
        hs=int(negatives == 0),
        negative=negatives,
        alpha=0.025 if architecture == "skip-gram" else 0.05,
        seed=seed,
        **settings,
    )
    model.build_vocab(sentences)
    return model


def main() -> None:
    options = options_from_command_line(Options)
    sentences = sentences_for(options)
    size = sum(map(len, sentences))
    results: dict[str, Any] = {"words": size}
    goals = {}
    for name, (architecture, negatives, least) in KINDS.items():
        spec = Word2VecSpec(architecture=architecture, negatives=negatives, epochs=1)  # type: ignore[arg-type]
        models = [
            gensim_model(sentences, architecture, negatives, 1, workers=options.threads)
            for _ in range(options.rounds + 1)
        ]

        def ours(spec: Word2VecSpec = spec) -> None:
            train_word_vectors(sentences, spec, threads=options.threads)

        def theirs(models: list[Word2Vec] = models) -> None:
            model = models.pop()
            model.build_vocab(sentences)  # ours counts the words as well
            model.train(sentences, total_examples=model.corpus_count, epochs=1)

        timings = compare({"ours": ours, "gensim": theirs}, options.rounds)
        speeds = {who: size / timing.median for who, timing in timings.items()}
        ratio = speeds["ours"] / speeds["gensim"]
        print(f"{name:34} ours {speeds['ours']:10,.0f} words/s   gensim {speeds['gensim']:10,.0f}   ratio {ratio:.2f}")
        results[name] = {who: timing.as_json() for who, timing in timings.items()}
        goals[f"{name}: words/s over gensim's"] = {"value": ratio, "limit": least, "holds": ratio >= least}
    for name, (architecture, negatives, _) in KINDS.items():
        accuracies: dict[str, list[float]] = {"ours": [], "gensim": []}
        for seed in range(options.seeds):
            planted = planted_sentences(PLANTED, seed=seed)
            spec = Word2VecSpec(
                architecture=architecture,
                negatives=negatives,
                epochs=EPOCHS,
                width=50,
                window=3,
                sample=0,
                seed=seed,  # type: ignore[arg-type]
            )
            mine = train_word_vectors(planted, spec)
            model = gensim_model(
                planted, architecture, negatives, seed + 1, vector_size=50, window=3, sample=0, epochs=EPOCHS
            )
            model.train(planted, total_examples=model.corpus_count, epochs=EPOCHS)
            vectors = WordVectors(tuple(model.wv.index_to_key), model.wv.vectors)
            for who, each in (("ours", mine), ("gensim", vectors)):
                accuracies[who].append(each.answer_analogies(planted_questions()).accuracy)
        gap = mean(accuracies["ours"]) - mean(accuracies["gensim"])
        print(
            f"{name:34} right analogies: ours {mean(accuracies['ours']):.3f}   gensim {mean(accuracies['gensim']):.3f}"
        )
        results[f"{name}: right analogies"] = accuracies
        goals[f"{name}: right analogies beyond gensim's"] = {
            "value": gap,
            "limit": -QUALITY_MARGIN,
            "holds": gap >= -QUALITY_MARGIN,
        }
    print_json("word2vec", results, goals=goals, **machine("gensim", "numba"))


if __name__ == "__main__":
    main()
