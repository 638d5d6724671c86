"""Ranking: BM25F (Zaragoza et al. 2004) over titles, questions, text and names, with the words of newcomers.

A term of the question scores by the best of its alternatives: the typed word, a derived word, the field's word for it.
The sum is multiplied by the share of the question that an entry speaks of. What exists comes before what is planned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from underhood.curriculum.search.analysis import document_terms, question_words, root_of
from underhood.curriculum.search.code_entries import code_entries
from underhood.curriculum.search.command_entries import command_entries
from underhood.curriculum.search.doc_entries import doc_entries
from underhood.curriculum.search.entries import KIND_WEIGHT, SearchEntry
from underhood.curriculum.search.newcomer_words import EXPANSION_WEIGHT, expansions
from underhood.curriculum.search.topic_entries import topic_entries
from underhood.retrieve.bm25 import BM25, FieldWeight

FIELDS = (FieldWeight(3.0, b=0.6), FieldWeight(1.5, b=0.6), FieldWeight(0.6, b=0.75), FieldWeight(0.25, b=0.75))
"""Title; questions and summary; text; names."""
K1 = 1.0
DERIVED_WEIGHT = 0.8
"""What a match of a derived word counts: *tokenizer* where *tokenize* was typed."""
JOINED_WEIGHT = 1.0
"""The same for two words written together: *finetune* where *fine tune* was typed."""
PHRASE_MAX = 3
"""Words of the longest phrase that is looked up."""
NAMED = 2.0
"""What an entry's score gains for each word if the question is nothing but its name, or one that it answers."""
ASKED = 4.0
"""The same for a milestone, where the question is a sentence: whoever asks what something is wants to be told."""
ASKING = ("what ", "what's ", "why ", "how ", "who ", "when ", "where ", "which ")
"""Beginnings of such sentences."""
ALONE = 0.4
"""The factor of an entry that speaks of next to nothing else in the question; 1 for the whole question."""
RELEVANT = 0.3
"""Entries below this share of the best score are left out."""


@dataclass(frozen=True)
class SearchHit:
    """An entry that a question leads to."""

    entry: SearchEntry
    score: float


@dataclass(frozen=True)
class QuestionTerm:
    """Something that the question asks for: alternative index terms with their weights."""

    alternatives: dict[str, float]


class SearchIndex:
    """The entries and their BM25F postings."""

    def __init__(self, entries: Sequence[SearchEntry]):
        self.entries = tuple(entries)
        self.bm25 = BM25(FIELDS, k1=K1)
        self.bm25.add([[document_terms(text) for text in entry.fields] for entry in self.entries])
        self.roots: dict[str, list[str]] = {}
        for term in self.bm25.vocabulary:
            self.roots.setdefault(root_of(term), []).append(term)
        self.known = set(self.bm25.vocabulary)
        self.named: dict[str, list[int]] = {}
        for number, entry in enumerate(self.entries):
            for key in {" ".join(question_words(name)) for name in entry.full_names}:
                self.named.setdefault(key, []).append(number)

    def search(self, question: str, most: int = 8) -> list[SearchHit]:
        """The best entries, those that exist first; none if no word of the question is known."""
        terms = self.parse(question)
        scores, covered, total = [0.0] * len(self.entries), [0.0] * len(self.entries), 0.0
        for term in terms:
            typed_idf = max(self.bm25.idf(other) * weight for other, weight in term.alternatives.items())
            total += typed_idf
            best: dict[int, tuple[float, float]] = {}
            for other, weight in term.alternatives.items():
                documents, impacts = self.bm25.postings(other)
                for number, impact in zip(documents.tolist(), impacts.tolist(), strict=True):
                    best[number] = max(best.get(number, (0.0, 0.0)), (weight * impact, weight))
            for number, (score, weight) in best.items():
                scores[number] += score
                covered[number] += weight * typed_idf
        for number, entry in enumerate(self.entries):
            scores[number] *= KIND_WEIGHT[entry.kind] * (ALONE + (1 - ALONE) * covered[number] / max(total, 1e-9))
        least = RELEVANT * max(scores, default=0.0)
        words = question_words(question)
        sentence = question.lower().lstrip().startswith(ASKING)
        for number in self.named.get(" ".join(words), ()) if words else ():
            told = sentence and self.entries[number].kind == "milestone"
            scores[number] += (ASKED if told else NAMED) * len(words)
        hits = [SearchHit(self.entries[number], score) for number, score in enumerate(scores) if score > least]
        return ranked(hits, most)

    def parse(self, question: str) -> list[QuestionTerm]:
        """The terms of a question: words, pairs written together, and the field's words for phrases."""
        words = question_words(question)
        terms: dict[str, dict[str, float]] = {}
        for word in words:
            alternatives = {word: 1.0}
            for other in self.roots.get(root_of(word), ()):
                alternatives.setdefault(other, DERIVED_WEIGHT)
            terms.setdefault(word, alternatives)
        for first, second in pairwise(words):
            if first + second in self.known:
                terms[first].setdefault(first + second, JOINED_WEIGHT)
                terms[second].setdefault(first + second, JOINED_WEIGHT)
        for length in range(1, PHRASE_MAX + 1):
            for start in range(len(words) - length + 1):
                phrase = words[start : start + length]
                for other in expansions().get(" ".join(phrase), ()):
                    for word in phrase:
                        terms[word].setdefault(other, EXPANSION_WEIGHT)
        return [QuestionTerm(alternatives) for alternatives in terms.values()]


def ranked(hits: Sequence[SearchHit], most: int) -> list[SearchHit]:
    """The best hits: those that exist by score, then the topics that are not written."""
    ordered = sorted(hits, key=lambda hit: -hit.score)[:most]
    return sorted(ordered, key=lambda hit: not hit.entry.exists)


@lru_cache(maxsize=1)
def search_index() -> SearchIndex:
    """The index of everything."""
    return SearchIndex([*topic_entries(), *doc_entries(), *command_entries(), *code_entries()])


def search(question: str, most: int = 8) -> list[SearchHit]:
    """The entries that answer a question best; see `SearchIndex.search`."""
    return search_index().search(question, most)
