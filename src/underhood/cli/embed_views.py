"""Actions of `underhood embed`: training with progress, and questions to vectors."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from underhood.core.errors import UserError

if TYPE_CHECKING:
    from underhood.cli.embed import Args
    from underhood.models.word_vectors import WordVectors

SHOWN = 6
"""Words whose neighbours are shown when vectors are made."""


def train(args: Args) -> int:
    """Reads, trains, saves, and shows neighbours of some words."""
    from underhood.cli.progress import share_line
    from underhood.data.sources import load_corpus
    from underhood.data.word_vocabulary import join_phrases, sentences_of
    from underhood.train.word2vec import Word2VecProgress, Word2VecSpec, train_word_vectors
    from underhood.ui.formatting import duration
    from underhood.ui.terminal import console, next_commands

    if args.out is None:
        raise UserError("--out FOLDER missing: where the vectors are to go")
    if (args.out / "vectors.safetensors").exists() and not args.restart:
        raise UserError(f"{args.out} holds vectors already", fix="Replace them by --restart, or choose another folder")
    spec = Word2VecSpec(
        architecture=args.architecture, width=args.width, window=args.window, negatives=args.negatives,
        epochs=args.epochs, lr=args.lr, sample=args.sample, divided=args.divided, seed=args.seed,
    )  # fmt: skip
    started = time.perf_counter()
    texts = [
        document.text for data in args.words for document in load_corpus(data, text_field=args.text_field).documents
    ]
    sentences = [words for text in texts for words in sentences_of(text)]
    for _ in range(args.phrases):
        sentences = join_phrases(sentences, min_count=args.min_count)
    size = sum(map(len, sentences))
    threads = args.threads or max(1, (os.cpu_count() or 2) - 1)
    err = console(sys.stderr)
    with share_line(err, "Learning", sum(len(text) for text in texts) * spec.epochs) as tell:

        def progress(now: Word2VecProgress) -> None:
            tell(now.share)

        vectors = train_word_vectors(sentences, spec, min_count=args.min_count, threads=threads, on_progress=progress)
    vectors.save(args.out)
    seconds = time.perf_counter() - started
    losses = vectors.facts["epoch_losses"]
    facts = {"out": str(args.out), "words": size, "vocabulary": len(vectors.words), "epoch_losses": losses}
    if args.json:
        print(json.dumps(facts | {"seconds": round(seconds, 3)}, ensure_ascii=False))
        return 0
    out = console()
    out.print(
        f"{args.out}: vectors of {len(vectors.words):,} words, from {size:,} words of text in {duration(seconds)}; "
        f"loss {losses[0]:.3f} in the first epoch, {losses[-1]:.3f} in the last."
    )
    print_neighbours(vectors, typical_words(vectors), 4)
    quoted = shlex.quote(str(args.out))
    word = typical_words(vectors)[0]
    next_commands(
        out,
        {
            f"underhood embed nearest {quoted} {word}": "words used like this one",
            f"underhood embed export {quoted} vectors.txt": "a file that gensim reads",
        },
    )
    return 0


def typical_words(vectors: WordVectors) -> list[str]:
    """Words to show: frequent enough to be known well, and not so frequent that they only hold sentences together."""
    long = [word for word in vectors.words[len(vectors.words) // 100 :] if len(word) > 3]
    return long[:SHOWN] or list(vectors.words[:SHOWN])


def print_neighbours(vectors: WordVectors, words: Sequence[str], top: int) -> None:
    """A row for each word: what is nearest, with cosines."""
    from underhood.ui.terminal import console, table

    rows = [[word, "  ".join(f"{near} {cosine:.2f}" for near, cosine in vectors.nearest(word, top))] for word in words]
    console().print(table(["word", "nearest, with the cosine"], rows))


def nearest(args: Args, rest: Sequence[str]) -> int:
    """Neighbours of words."""
    from underhood.models.word_vectors import WordVectors

    vectors = WordVectors.open(Path(rest[0]))
    if args.json:
        print(json.dumps({word: vectors.nearest(word, args.top) for word in rest[1:]}, ensure_ascii=False))
    elif len(rest) > 2:
        print_neighbours(vectors, rest[1:], args.top)
    else:
        _print_scores(vectors.nearest(rest[1], args.top), "cosine")
    return 0


def analogy(args: Args, rest: Sequence[str]) -> int:
    """What is to C as B is to A."""
    from underhood.models.word_vectors import WordVectors
    from underhood.ui.terminal import console

    vectors, (a, b, c) = WordVectors.open(Path(rest[0])), rest[1:]
    answers = vectors.analogy(a, b, c, args.top, exclude=not args.with_question, rule=args.rule)
    if args.json:
        print(json.dumps({"a": a, "b": b, "c": c, "answers": answers}, ensure_ascii=False))
        return 0
    console().print(f"{a} is to {b} as {c} is to", style="bold")
    _print_scores(answers, "score")
    return 0


def questions(args: Args, rest: Sequence[str]) -> int:
    """Analogy questions of a file, by group."""
    from underhood.core.text_files import read_text
    from underhood.models.word_vectors import WordVectors
    from underhood.train.word2vec import read_questions
    from underhood.ui.terminal import console, table

    vectors = WordVectors.open(Path(rest[0]))
    groups = read_questions(read_text(Path(rest[1])).splitlines())
    result = vectors.answer_analogies(groups, exclude=not args.with_question, rule=args.rule)
    if args.json:
        facts = {"right": result.right, "asked": result.count, "skipped": result.skipped, "groups": result.by_group}
        print(json.dumps(facts, ensure_ascii=False))
        return 0
    out = console()
    rows = [[name, right, of, f"{right / of:.0%}"] for name, (right, of) in result.by_group.items() if of]
    out.print(table(["group", "right", "asked", "share"], rows))
    share = f", {result.accuracy:.1%}" if result.count else ""
    out.print(
        f"{result.right:,} of {result.count:,} right{share}; {result.skipped:,} skipped, whose words have no vectors."
    )
    return 0


def export(args: Args, rest: Sequence[str]) -> int:
    """A file in word2vec's format."""
    from underhood.models.word_vectors import WordVectors, write_word2vec
    from underhood.ui.terminal import console

    file = Path(rest[1])
    if file.exists() and not args.restart:
        raise UserError(f"{file} is there already", fix="Replace it by --restart, or choose another name")
    vectors = WordVectors.open(Path(rest[0]))
    write_word2vec(vectors, file, binary=file.suffix == ".bin")
    console().print(
        f"{file}: {len(vectors.words):,} words in word2vec's {'binary' if file.suffix == '.bin' else 'text'} format."
    )
    return 0


def map_page(args: Args, rest: Sequence[str]) -> int:
    """A page with the words in the plane."""
    from underhood.cli.progress import steps_line
    from underhood.core.files import write_text
    from underhood.inspect.word_map.page import word_map
    from underhood.models.word_vectors import WordVectors
    from underhood.ui.terminal import console

    file = Path(rest[1])
    if file.exists() and not args.restart:
        raise UserError(f"{file} is there already", fix="Replace it by --restart, or choose another name")
    vectors = WordVectors.open(Path(rest[0]))
    if min(args.mapped, len(vectors.words)) < 12:
        raise UserError("a map needs 12 words or more", got=f"{min(args.mapped, len(vectors.words))}")
    with steps_line(console(sys.stderr), "Placing words") as tell:
        page = word_map(vectors, words=args.mapped, title=f"The words of {Path(rest[0]).stem} on a map", progress=tell)
    write_text(file, page)
    console().print(f"{file}: a map of {min(args.mapped, len(vectors.words)):,} words, for a browser.")
    return 0


def _print_scores(scores: Sequence[tuple[str, float]], name: str) -> None:
    from underhood.ui.terminal import console, table

    console().print(table(["word", name], [[word, f"{score:.3f}"] for word, score in scores]))
