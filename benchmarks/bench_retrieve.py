"""Retrieval: how well and how fast questions find the passage that answers them, beside bm25s in the same run.

Quality, over the passages of Python's documentation: every documented function is asked for by name in four ways, and
its passage must come first; of the how-to questions in questions/howto.tsv one of the accepted functions must be among
the first three. Even lines of that file were never searched while the search was tuned; the figure is theirs. Its odd
lines and all of questions/howto_tuning.tsv, which asks for harder ones, served for tuning.

    python benchmarks/bench_retrieve.py [--repeats 5] [--misses]
"""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import bm25s

from harness import REPOSITORY, compare, machine, options_from_command_line, print_json
from underhood.data.pydocs import pydocs_functions
from underhood.retrieve.documentation import documentation_passages
from underhood.retrieve.index import PassageIndex
from underhood.retrieve.passages import Passage

NAMED = ("What does `{name}` do?", "what does {name} do", "{name}()", "which parameters does {name} take")
LIMITS = {"index_s": 2.0, "query_ms": 1.0, "named_top_1": 0.99, "howto_top_3": 0.83}

Search = Callable[[str, int], list[str]]
"""A question and a number to the titles of the best passages."""


@dataclass(frozen=True)
class Options:
    """Measures speed and quality of the search over Python's documentation."""

    repeats: int = 5
    """How often indexing is timed."""

    misses: bool = False
    """Prints the questions of the tuning half and the named functions that were missed."""


@dataclass(frozen=True)
class HowTo:
    """A question and the functions that answer it."""

    text: str
    accepted: frozenset[str]


def howto_questions() -> dict[str, list[HowTo]]:
    """The tuning half (odd lines), the final half (even lines), and what served for tuning only."""
    half, more = (_questions(name) for name in ("howto.tsv", "howto_tuning.tsv"))
    return {"tuning": half[::2], "final": half[1::2], "more_tuning": more}


def _questions(file: str) -> list[HowTo]:
    lines = (REPOSITORY / "benchmarks" / "questions" / file).read_text(encoding="utf-8").splitlines()
    return [HowTo(text, frozenset(names.split())) for text, names in (line.split("\t") for line in lines)]


def peer_search(passages: Sequence[Passage]) -> Search:
    """Plain bm25s: words as they are, English stop words left out."""
    peer = bm25s.BM25(method="lucene", k1=1.2, b=0.75)
    peer.index(bm25s.tokenize(texts(passages), stopwords="en", show_progress=False), show_progress=False)

    def search(question: str, k: int) -> list[str]:
        words = bm25s.tokenize(question, stopwords="en", show_progress=False, return_ids=False)
        numbers, _ = peer.retrieve(words, k=k, show_progress=False)
        return [passages[number].title for number in numbers[0]]

    return search


def texts(passages: Sequence[Passage]) -> list[str]:
    return [f"{passage.title} {passage.text} {passage.search_text}" for passage in passages]


def named_top_1(search: Search, names: Sequence[str]) -> tuple[dict[str, float], list[str]]:
    """Share of the functions that come first, for each way of asking, and the questions that missed."""
    shares, missed = {}, []
    for form in NAMED:
        wrong = [name for name in names if search(form.format(name=name), 1) != [name]]
        shares[form] = round(1 - len(wrong) / len(names), 4)
        missed += [form.format(name=name) for name in wrong]
    return shares, missed


def howto_top(search: Search, questions: Sequence[HowTo], k: int) -> tuple[float, list[str]]:
    """Share of the questions with an accepted function among the first `k`, and the others with what came instead."""
    missed = []
    for question in questions:
        titles = search(question.text, k)
        if not question.accepted.intersection(titles):
            missed.append(f"{question.text}: {', '.join(titles)}")
    return round(1 - len(missed) / len(questions), 4), missed


def quality(search: Search, names: Sequence[str], show_misses: bool) -> dict[str, Any]:
    shares, missed = named_top_1(search, names)
    result: dict[str, Any] = {"named_top_1": round(statistics.mean(shares.values()), 4), "named_by_form": shares}
    for half, questions in howto_questions().items():
        suffix = "" if half == "final" else f"_{half}"
        for k in (1, 3):
            result[f"howto_top_{k}{suffix}"], missed_now = howto_top(search, questions, k)
        if half != "final":
            missed += missed_now
    if show_misses:
        print(*missed, sep="\n")
    return result


def query_ms(search: Search, questions: Sequence[str]) -> float:
    seconds = []
    for question in questions:
        start = time.perf_counter()
        search(question, 3)
        seconds.append(time.perf_counter() - start)
    return round(1000 * statistics.median(seconds), 3)


def main() -> None:
    options = options_from_command_line(Options)
    logging.getLogger("bm25s").setLevel(logging.ERROR)
    passages = documentation_passages()
    names = [function.name for function in pydocs_functions()]
    characters = sum(map(len, texts(passages)))
    print(f"{len(passages):,} passages, {characters / 1e6:.2f} million characters; {len(names):,} functions\n")

    index, peer = PassageIndex.build(passages), peer_search(passages)
    sides: dict[str, Search] = {
        "underhood": lambda question, k: [hit.passage.title for hit in index.search(question, k)],
        "bm25s": peer,
    }
    timings = compare(
        {"underhood": lambda: PassageIndex.build(passages), "bm25s": lambda: peer_search(passages)}, options.repeats
    )
    questions_timed = [NAMED[1].format(name=name) for name in names[::10]]
    questions_timed += [question.text for half in howto_questions().values() for question in half] * 3
    results: dict[str, Any] = {}
    for side, search in sides.items():
        results[side] = {
            "index": timings[side].as_json(),
            "query_ms": query_ms(search, questions_timed),
            **quality(search, names, options.misses and side == "underhood"),
        }
        print(f"{side:10} index {timings[side]}, query {results[side]['query_ms']} ms (median)")
        for key, value in results[side].items():
            if key.startswith(("named_top", "howto")):
                print(f"{'':10} {key:20} {value:.3f}")
    ours = results["underhood"]
    figures = {"index_s": timings["underhood"].median, **{key: ours[key] for key in LIMITS if key in ours}}
    kept = {
        key: figures[key] <= limit if key in ("index_s", "query_ms") else figures[key] >= limit
        for key, limit in LIMITS.items()
    }
    print("\nlimits kept: " + ", ".join(f"{key} {'yes' if yes else 'NO'}" for key, yes in kept.items()))
    print_json(
        "retrieve",
        results,
        passages=len(passages),
        limits=LIMITS,
        kept=kept,
        index_time_over_bm25s=round(timings["underhood"].median / timings["bm25s"].median, 3),
        **machine("numpy", "bm25s"),
    )


if __name__ == "__main__":
    main()
