"""A long run of one character passes every function that reads users' texts: in quadratic time none would end.

200,000 characters take a fraction of a second; as a square they are 4 · 10¹⁰ steps, which the suite's time limit stops.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from underhood.data.clean import normalise
from underhood.data.documents import Document
from underhood.data.files import sections
from underhood.data.instruct import sentences as answer_sentences
from underhood.evals.tasks import _without_wikihow
from underhood.recipes.grounded_evaluation import is_right
from underhood.retrieve.followup import search_query
from underhood.retrieve.passages import split_document
from underhood.retrieve.questions import parse_question
from underhood.retrieve.sentences import sentence_spans
from underhood.retrieve.terms import terms
from underhood.text.bpe import train_bpe
from underhood.text.merges import apply_merges, learn_merges
from underhood.text.normalize import PrefixMatcher
from underhood.text.scored_merges import ScoredMerger
from underhood.text.split import split
from underhood.text.unigram import UnigramSegmenter

LENGTH = 200_000
RUNS = [
    " ",
    "\n",
    " \n",
    "-",
    "7",
    "a",
    "A",
    "aA",
    "(",
    "[",
    "{",
    "<",
    '"',
    "'",
    "`",
    ".",
    ". ",
    "a.",
    "#",
    "# ",
    "é",
    "中",
]
TOKENIZER = train_bpe(["the harbour wakes aaaa before    the town ((((. " * 4], vocab_size=300)


def documents(kind: str) -> Callable[[str], Any]:
    return lambda text: split_document(Document(text, "a", kind))


READERS: dict[str, Callable[[str], Any]] = {
    "normalise": normalise,
    "sections": sections,
    "sentence_spans": sentence_spans,
    "answer sentences": answer_sentences,
    "passages of md": documents("md"),
    "passages of txt": documents("txt"),
    "passages of rst": documents("rst"),
    "terms": terms,
    "question": parse_question,
    "query": lambda text: search_query([{"role": "user", "content": text}]),
    "split": split,
    "BPE": TOKENIZER.encode,
    "BPE in Python": TOKENIZER.encode_plainly,
    "WikiHow": _without_wikihow,
    "citations": lambda text: is_right(text, "x"),
}


@pytest.mark.parametrize("reader", READERS)
def test_long_runs_are_read_to_the_end(reader: str):
    for run in RUNS:
        text = run * (LENGTH // len(run))
        READERS[reader](text)
        READERS[reader](f"a{text}b {text}c")


def test_long_word_is_merged_as_the_definition_says():
    """Against the definition, which looks at all pairs after each merge."""

    def by_definition(symbols: list[int], ranks: dict[tuple[int, int], tuple[int, int]]) -> list[int]:
        while known := [pair for pair in itertools.pairwise(symbols) if pair in ranks]:
            pair = min(known, key=lambda each: ranks[each][0])
            at, merged = 0, []
            while at < len(symbols):
                both = tuple(symbols[at : at + 2]) == pair
                merged.append(ranks[pair][1] if both else symbols[at])
                at += 1 + both
            symbols = merged
        return symbols

    words = {tuple(b"abracadabra" * 3): 5, tuple(b"aaaaaaa"): 9, tuple(b"banana bandana"): 4}
    learnt = learn_merges(words, 12)
    ranks = {pair: (number, 256 + number) for number, pair in enumerate(learnt)}
    for word in (*words, tuple(b"aaaab" * 7), tuple(b"a" * 33), tuple(b"ab" * 20 + b"ba" * 20)):
        assert apply_merges(word, ranks) == by_definition(list(word), ranks)
    assert sum(1 for _ in apply_merges([97] * LENGTH, {(97, 97): (0, 256), (256, 256): (1, 257)})) == LENGTH // 4


def test_sentencepiece_reads_long_runs():
    pieces = {"a" * (1 << power): float(-power) for power in range(5)} | {"▁": -9.0, "▁▁": -8.0}
    cutters = (ScoredMerger(pieces, PrefixMatcher([])), UnigramSegmenter(pieces))
    for text in ("a" * LENGTH, "▁" * LENGTH, "▁a" * (LENGTH // 2)):
        assert all("".join(cutter(text)) == text for cutter in cutters)
    assert len(cutters[0]("a" * LENGTH)) == LENGTH // 16
