"""Passage index: BM25F over titles, texts and hidden text, with priority for named identifiers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from underhood.core.errors import UserError, nearest
from underhood.core.files import write_bytes
from underhood.retrieve.bm25 import BM25, FieldWeight
from underhood.retrieve.index_file import pack, unpack
from underhood.retrieve.passages import Passage
from underhood.retrieve.questions import Query, QueryTerm, parse_question
from underhood.retrieve.terms import terms
from underhood.retrieve.titles import CONTINUED, EXACT, TitleIndex

RUN_INDEX = "passages.index"
"""The index in the folder of a run whose model was trained to answer from it."""

FIELDS = (FieldWeight(3.0, b=0.9), FieldWeight(2.0, b=0.75), FieldWeight(1.0, b=0.75), FieldWeight(0.2, b=0.5))
"""Last word of the title (``join`` of ``os.path.join``, the innermost heading), the whole title, text, hidden text."""
K1 = 0.9
"""Low: a passage is short, and a second occurrence of a term says little more than the first."""


@dataclass(frozen=True)
class Hit:
    """A passage that a search came up with.

    Attributes:
        score: BM25F score with what a named identifier adds; comparable within one search only.
        matched: the words of the question that the passage has, as they were typed.
        coverage: share of the question's idf that the passage's terms have, 0 to 1.
    """

    passage: Passage
    score: float
    matched: tuple[str, ...]
    coverage: float


@dataclass(frozen=True)
class IndexFacts:
    """When an index was last changed, and what it was made from, in the words of `underhood index`."""

    made_at: str = ""
    data: tuple[str, ...] = ()


@dataclass
class PassageIndex:
    """Passages and the search over them.

    Adding and removing passages gives the same scores, bit for bit, as an index that is built anew.
    """

    passages: tuple[Passage, ...] = ()
    facts: IndexFacts = IndexFacts()
    _bm25: BM25 = field(default_factory=lambda: BM25(FIELDS, k1=K1), repr=False)
    _titles: TitleIndex = field(default_factory=lambda: TitleIndex(()), repr=False)
    _weights_N: Float[ndarray, " N"] = field(default_factory=lambda: np.ones(0), repr=False)

    def __len__(self) -> int:
        return len(self.passages)

    @property
    def sources(self) -> tuple[str, ...]:
        """The names of the documents, in order."""
        return tuple(dict.fromkeys(passage.source for passage in self.passages))

    def sources_named(self, name: str) -> list[str]:
        """The document of this name, or all documents below a folder or of one file of records.

        Raises:
            UserError: there is none.
        """
        below = (name.rstrip("/") + "/", name + "#")
        chosen = [source for source in self.sources if source == name or source.startswith(below)]
        if not chosen:
            near = nearest(name, self.sources)
            raise UserError(f"no document {name!r} in the index", fix=f"Did you mean {near!r}?" if near else None)
        return chosen

    @classmethod
    def build(cls, passages: Iterable[Passage], *, data: Sequence[str] = ()) -> PassageIndex:
        """An index of these passages; `data` says what they come from."""
        index = cls(facts=IndexFacts(_now(), tuple(data)))
        index.add(passages)
        return index

    def add(self, passages: Iterable[Passage]) -> None:
        """Appends passages."""
        new = tuple(passages)
        self._bm25.add(
            [[terms(last_of_title(p.title)), terms(p.title), terms(p.text), terms(p.search_text)] for p in new]
        )
        self._take(self.passages + new)

    def remove(self, *sources: str) -> int:
        """Removes all passages of these documents, and returns how many there were."""
        unwanted = set(sources)
        kept = np.asarray([passage.source not in unwanted for passage in self.passages], bool)
        if kept.all():
            return 0
        self._bm25.keep(kept)
        self._take(tuple(passage for passage, stays in zip(self.passages, kept, strict=True) if stays))
        return int((~kept).sum())

    def search(self, query: str, k: int = 3) -> list[Hit]:
        """The `k` best passages for a question, the best first; none if it has no word that could be looked for.

        Passages whose title is an identifier of the question, or whose heading is the question itself, come first;
        those whose title ends with such an identifier next.
        """
        question = parse_question(query)
        if not question.terms or not self.passages or k < 1:
            return []
        scores = np.zeros(len(self))
        for term in question.terms:
            scores += self._best_alternative(term)
        scores *= self._weights_N
        bound = sum(self._bm25.idf(term.term) * term.weight for term in question.terms)
        for passage, share in self._titles.matches(question.identifiers).items():
            scores[passage] += bound * share
        for position, passage in enumerate(self._titles.headed(query)):
            scores[passage] += bound * (EXACT if position == 0 else EXACT * CONTINUED)
        return [self._hit(int(number), float(scores[number]), question) for number in _top(scores, k)]

    def save(self, path: Path) -> None:
        """Writes the index as one file, whole or not at all.

        Raises:
            UserError: the file can't be written.
        """
        facts = {"made_at": self.facts.made_at, "data": list(self.facts.data)}
        write_bytes(path, pack(self.passages, self._bm25, facts))

    @classmethod
    def load(cls, path: Path) -> PassageIndex:
        """Reads an index that `save` wrote.

        Raises:
            UserError: no such file, not an index, a damaged one, or one of a later version.
        """
        passages, saved, facts = unpack(path, FIELDS, K1)
        index = cls(facts=IndexFacts(str(facts.get("made_at", "")), tuple(map(str, facts.get("data", ())))))
        if saved is None:  # analysed by another version
            index.add(passages)
        else:
            index._bm25 = saved
            index._take(passages)
        return index

    def touch(self, data: Sequence[str]) -> None:
        """Notes that the index now comes from `data`, as of this moment."""
        self.facts = IndexFacts(_now(), tuple(data))

    def _take(self, passages: tuple[Passage, ...]) -> None:
        self.passages = passages
        self._titles = TitleIndex(passage.title for passage in passages)
        self._weights_N = np.asarray([passage.weight for passage in passages], np.float64)

    def _best_alternative(self, term: QueryTerm) -> Float[ndarray, " N"]:
        """What a term of the question, or the best of its synonyms, adds to each passage's score."""
        best = np.zeros(len(self))
        for alternative in term.alternatives:
            documents, impacts = self._bm25.postings(alternative.term)
            if len(documents):
                best[documents] = np.maximum(best[documents], term.weight * alternative.weight * impacts)
        return best

    def _hit(self, number: int, score: float, question: Query) -> Hit:
        matched: dict[str, None] = {}
        covered = total = 0.0
        for term in question.terms:
            idf = self._bm25.idf(term.term) * term.weight
            total += idf
            held = [other for other in term.alternatives if self._bm25.holds(number, other.term)]
            if held:
                matched[held[0].word] = None
                covered += idf * held[0].weight
        return Hit(self.passages[number], score, tuple(matched), covered / total)


def last_of_title(title: str) -> str:
    """What a title ends with: ``join`` of ``os.path.join``, "Linux" of "Install > Linux"."""
    if " " in title:
        return title.rpartition(" > ")[2]
    return title.rpartition(".")[2]


def index_file(path: Path) -> Path:
    """The file of an index: `path` itself, or `RUN_INDEX` in it where it is the folder of a run.

    Raises:
        UserError: a folder without an index.
    """
    if path.is_dir() and not (path / RUN_INDEX).exists():
        raise UserError(f"{path} has no {RUN_INDEX}", fix="Make one with underhood index DATA --out notes.index")
    return path / RUN_INDEX if path.is_dir() else path


def _top(scores: Float[ndarray, " N"], k: int) -> ndarray:
    """The numbers of the `k` highest positive scores, the highest first; among equals the earlier passage first."""
    positive = np.flatnonzero(scores > 0)
    if len(positive) > 4 * k:
        threshold = np.partition(scores[positive], len(positive) - k)[len(positive) - k]
        positive = positive[scores[positive] >= threshold]
    return positive[np.argsort(-scores[positive], kind="stable")][:k]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
