"""BM25 inverted index with Lucene's formula, and BM25F for documents of several fields.

For one field (Robertson & Zaragoza 2009, equation 3.15; idf and the missing factor k1 + 1 as in Lucene 8 and later)::

    score(q, d) = Σ_t idf(t) · tf / (tf + k1 · (1 − b + b · length / average length))
    idf(t) = ln(1 + (N − df + 0.5) / (df + 0.5))

With several fields (BM25F, Zaragoza et al. 2004) tf is the weighted sum of the fields' frequencies, each divided by its
own length normalisation, and enters the same saturation tf / (tf + k1).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray


@dataclass(frozen=True)
class FieldWeight:
    """How much a field's term frequencies count, and how strongly its length normalises them (0: not at all)."""

    weight: float = 1.0
    b: float = 0.75


@dataclass(frozen=True)
class TermCounts:
    """Documents as a sparse matrix of term counts (CSR), one count per field.

    Attributes:
        starts: the pairs of document i are ``starts[i]`` to ``starts[i + 1]``.
        terms: the term id of each pair, in the order in which the document first uses them.
        counts: how often each field of the document holds the term; a row per pair, a column per field.

    Read from a file, they can be anything: `BM25.restore` checks them.
    """

    starts: ndarray
    terms: ndarray
    counts: ndarray


class BM25:
    """Scores documents for a query's terms.

    `add` and `keep` give bit for bit the scores of an index that is built anew from the same documents.

    Args:
        fields: a document is a list of terms for each of these; one field of weight 1 is plain BM25.
        k1: how slowly a term's frequency saturates.
    """

    def __init__(self, fields: Sequence[FieldWeight] = (FieldWeight(),), *, k1: float = 1.2):
        self.fields, self.k1 = tuple(fields), k1
        self._ids: dict[str, int] = {}
        no_pairs = np.zeros((0, len(self.fields)), np.int32)
        self._documents = TermCounts(np.zeros(1, np.int64), np.zeros(0, np.int32), no_pairs)
        self._invert()

    def __len__(self) -> int:
        return len(self._documents.starts) - 1

    @property
    def vocabulary(self) -> list[str]:
        """The terms in order of their ids."""
        return list(self._ids)

    @property
    def documents(self) -> TermCounts:
        """The documents as counts, for saving."""
        return self._documents

    @classmethod
    def restore(
        cls, vocabulary: Iterable[str], documents: TermCounts, fields: Sequence[FieldWeight], *, k1: float = 1.2
    ) -> BM25:
        """The index of saved documents.

        Raises:
            ValueError: the arrays contradict each other.
        """
        index = cls(fields, k1=k1)
        index._ids = {term: number for number, term in enumerate(vocabulary)}
        starts, terms, counts = documents.starts, documents.terms, documents.counts
        shapes_agree = starts.ndim == terms.ndim == 1 and counts.shape == (len(terms), len(index.fields))
        if not shapes_agree or not all(array.dtype.kind == "i" for array in (starts, terms, counts)):
            raise ValueError(f"arrays of shape {starts.shape}, {terms.shape} and {counts.shape} aren't term counts")
        if not len(starts) or starts[0] != 0 or starts[-1] != len(terms) or (np.diff(starts) < 0).any():
            raise ValueError("the documents' boundaries are out of order")
        if len(terms) and not 0 <= terms.min() <= terms.max() < len(index._ids):
            raise ValueError(f"term ids reach {terms.max()}, but there are {len(index._ids)} terms")
        if (counts < 0).any():
            raise ValueError("negative counts")
        index._documents = documents
        index._invert()
        return index

    def add(self, documents: Iterable[Sequence[Sequence[str]]]) -> None:
        """Appends documents, each a list of terms for every field."""
        ids, width = self._ids, len(self.fields)
        terms: list[int] = []
        counts: list[list[int]] = []
        ends: list[int] = []
        for document in documents:
            own: dict[str, list[int]] = {}
            for field, field_terms in enumerate(document):
                for term in field_terms:
                    pair = own.get(term)
                    if pair is None:
                        pair = own[term] = [0] * width
                    pair[field] += 1
            terms += [ids.setdefault(term, len(ids)) for term in own]
            counts += own.values()
            ends.append(len(terms))
        if ends:
            old = self._documents
            self._documents = TermCounts(
                np.concatenate([old.starts, old.starts[-1] + np.asarray(ends, np.int64)]),
                np.concatenate([old.terms, np.asarray(terms, np.int32)]),
                np.concatenate([old.counts, np.asarray(counts, np.int32).reshape(-1, width)]),
            )
            self._invert()

    def keep(self, mask: Bool[ndarray, " N"]) -> None:
        """Removes the documents for which `mask` is false; the others move up. Terms that none holds are forgotten."""
        old = self._documents
        lengths = np.diff(old.starts)
        pairs = np.repeat(mask, lengths)
        terms, counts = old.terms[pairs], old.counts[pairs]
        used, renumbered = np.unique(terms, return_inverse=True)
        vocabulary = self.vocabulary
        self._ids = {vocabulary[term]: number for number, term in enumerate(used)}
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths[mask])])
        self._documents = TermCounts(starts, renumbered.astype(np.int32), counts)
        self._invert()

    def idf(self, term: str) -> float:
        """Inverse document frequency; the largest there is for a term that no document holds."""
        number = self._ids.get(term)
        return self._idf_unknown if number is None else float(self._idf_V[number])

    def postings(self, term: str) -> tuple[Int[ndarray, " n"], Float[ndarray, " n"]]:
        """The documents that hold a term, in order, and the score that it adds to each."""
        number = self._ids.get(term)
        if number is None:
            return self._posting_documents[:0], self._impacts[:0]
        start, end = self._posting_starts[number], self._posting_starts[number + 1]
        return self._posting_documents[start:end], self._impacts[start:end]

    def holds(self, document: int, term: str) -> bool:
        """Whether any field of a document has a term."""
        documents, _ = self.postings(term)
        at = int(np.searchsorted(documents, document))
        return at < len(documents) and int(documents[at]) == document

    def scores(self, terms: Iterable[str] | Mapping[str, float]) -> Float[ndarray, " N"]:
        """The score of every document for a query; a term given twice counts twice, a mapping gives weights."""
        weighted = terms.items() if isinstance(terms, Mapping) else ((term, 1.0) for term in terms)
        scores = np.zeros(len(self))
        for term, weight in weighted:
            documents, impacts = self.postings(term)
            scores[documents] += weight * impacts
        return scores

    def _invert(self) -> None:
        """Builds the postings: for every term its documents and what it adds to their scores."""
        starts, terms, counts_PF = self._documents.starts, self._documents.terms, self._documents.counts
        total, pairs = len(self), len(terms)
        lengths = np.diff(starts)
        document_of_pair = np.repeat(np.arange(total, dtype=np.int32), lengths)
        frequency = np.zeros(pairs)
        for field, settings in enumerate(self.fields):
            counts = counts_PF[:, field].astype(np.float64)
            field_lengths = np.bincount(document_of_pair, weights=counts, minlength=total)
            # An empty field has no average; its counts are 0 whatever divides them.
            average = field_lengths.sum() / total if total and field_lengths.any() else 1.0
            normalisation = 1 - settings.b + settings.b * field_lengths / average
            frequency += settings.weight * counts / normalisation[document_of_pair]
        df = np.bincount(terms, minlength=len(self._ids))
        self._idf_V = np.log1p((total - df + 0.5) / (df + 0.5))
        self._idf_unknown = float(np.log1p((total + 0.5) / 0.5))
        order = np.argsort(terms, kind="stable")
        self._posting_starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(df)])
        self._posting_documents = document_of_pair[order]
        self._impacts = (self._idf_V[terms] * frequency / (frequency + self.k1))[order]
