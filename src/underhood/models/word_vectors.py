"""Word vectors: nearest words, analogies, and the files in which others keep them."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save

from underhood.core.errors import UserError, nearest
from underhood.core.files import write_bytes, write_text
from underhood.core.text_files import parse_json, read_text

Floats = NDArray[np.floating]
AnalogyRule = Literal["add", "multiply"]


@dataclass(frozen=True)
class AnalogyResult:
    """How many analogy questions were answered right.

    Attributes:
        right, count: questions answered right, of those whose four words are all known.
        skipped: questions with a word that the vocabulary does not have.
        by_group: both of each group of questions.
    """

    right: int
    count: int
    skipped: int
    by_group: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def accuracy(self) -> float:
        return self.right / self.count if self.count else float("nan")


@dataclass(frozen=True)
class WordVectors:
    """A vector for each word of a vocabulary.

    Attributes:
        words: the vocabulary, most often the most frequent word first.
        vectors_VD: float32.
        counts_V: how often each word occurred; None where a file does not say.
        facts: how the vectors were made, for whoever opens them later.
        outputs_VD: the second vector of each word, by which it is predicted from others; None where there is none.
    """

    words: tuple[str, ...]
    vectors_VD: Floats
    counts_V: NDArray[np.int64] | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    outputs_VD: Floats | None = None

    def __repr__(self) -> str:
        return f"WordVectors({len(self.words):,} words, {self.vectors_VD.shape[1]} dimensions)"

    @cached_property
    def ids(self) -> dict[str, int]:
        return {word: id for id, word in enumerate(self.words)}

    @cached_property
    def unit_VD(self) -> Floats:
        """The vectors at length 1, so that dot products are cosines."""
        lengths_V1 = np.linalg.norm(self.vectors_VD, axis=1, keepdims=True)
        return self.vectors_VD / np.maximum(lengths_V1, 1e-12)

    def id(self, word: str) -> int:
        """A word's row.

        Raises:
            UserError: the vocabulary does not have it.
        """
        for spelling in (word, word.casefold()):
            if spelling in self.ids:
                return self.ids[spelling]
        close = nearest(word.casefold(), self.words)
        raise UserError(
            f"no vector for {word!r}: it was not frequent enough in the text, or not there",
            fix=f"Did you mean {close!r}?" if close else "Take a word of the text, or train with a smaller --min-count",
        )

    def __getitem__(self, word: str) -> Floats:
        return self.vectors_VD[self.id(word)]

    def similarity(self, a: str, b: str) -> float:
        """Cosine of two words' vectors."""
        return float(self.unit_VD[self.id(a)] @ self.unit_VD[self.id(b)])

    def nearest(self, word: str | Floats, n: int = 10) -> list[tuple[str, float]]:
        """The words whose vectors have the largest cosine with a word's (not itself) or with a vector."""
        if isinstance(word, str):
            return self._best(self.unit_VD @ self.unit_VD[self.id(word)], n, {self.id(word)})
        return self._best(self.unit_VD @ (word / max(float(np.linalg.norm(word)), 1e-12)), n, set())

    def analogy(
        self, a: str, b: str, c: str, n: int = 5, *, exclude: bool = True, rule: AnalogyRule = "add"
    ) -> list[tuple[str, float]]:
        """Words that are to `c` what `b` is to `a`: king for man, queen for woman.

        Args:
            exclude: leaves out the three words themselves. Without that the answer is most often `b` or `c`.
            rule: ``add`` is the cosine with ``b − a + c`` of unit vectors (Mikolov et al. 2013c), ``multiply``
                ``cos(d, b) · cos(d, c) / cos(d, a)`` with cosines moved to 0 … 1 (Levy and Goldberg 2014).
        """
        ids = [self.id(word) for word in (a, b, c)]
        return self._best(self._analogy_scores(np.array([ids]), rule)[0], n, set(ids) if exclude else set())

    def answer_analogies(
        self,
        groups: Iterable[tuple[str, Sequence[tuple[str, str, str, str]]]],
        *,
        exclude: bool = True,
        rule: AnalogyRule = "add",
    ) -> AnalogyResult:
        """Asks analogy questions ``a : b = c : d``, by group; a word may be known in lower case only."""
        right = count = skipped = 0
        by_group: dict[str, tuple[int, int]] = {}
        for name, questions in groups:
            rows = []
            for question in questions:
                ids = [self.ids.get(word, self.ids.get(word.casefold(), -1)) for word in question]
                if min(ids) < 0:
                    skipped += 1
                else:
                    rows.append(ids)
            good = 0
            for start in range(0, len(rows), 256):
                ids_Q4 = np.array(rows[start : start + 256])
                scores_QV = self._analogy_scores(ids_Q4[:, :3], rule)
                if exclude:
                    np.put_along_axis(scores_QV, ids_Q4[:, :3], -np.inf, axis=1)
                good += int((scores_QV.argmax(axis=1) == ids_Q4[:, 3]).sum())
            by_group[name] = (good, len(rows))
            right, count = right + good, count + len(rows)
        return AnalogyResult(right, count, skipped, by_group)

    def _analogy_scores(self, ids_Q3: NDArray[np.int64], rule: AnalogyRule) -> Floats:
        unit = self.unit_VD
        a_QD, b_QD, c_QD = (unit[ids_Q3[:, n]] for n in range(3))
        if rule == "add":
            wanted_QD = b_QD - a_QD + c_QD
            return (wanted_QD / np.linalg.norm(wanted_QD, axis=1, keepdims=True)) @ unit.T
        a_QV, b_QV, c_QV = ((1 + each @ unit.T) / 2 for each in (a_QD, b_QD, c_QD))
        return b_QV * c_QV / (a_QV + 1e-3)

    def _best(self, scores_V: Floats, n: int, without: set[int]) -> list[tuple[str, float]]:
        order = np.argsort(-scores_V, kind="stable")[: n + len(without)]
        return [(self.words[id], float(scores_V[id])) for id in order.tolist() if id not in without][:n]

    def save(self, folder: Path) -> None:
        """Writes a folder that `open` reads."""
        tensors: dict[str, np.ndarray] = {"vectors": self.vectors_VD}
        if self.counts_V is not None:
            tensors["counts"] = self.counts_V
        if self.outputs_VD is not None:
            tensors["outputs"] = self.outputs_VD
        write_bytes(folder / "vectors.safetensors", save(tensors))
        write_text(folder / "words.json", json.dumps({"words": self.words} | self.facts, ensure_ascii=False))

    @classmethod
    def open(cls, path: Path) -> WordVectors:
        """Vectors from a folder that `save` wrote, or from a file in word2vec's text or binary format.

        Raises:
            UserError: there is nothing of that kind, or it is damaged.
        """
        if path.is_file():
            return read_word2vec(path)
        try:
            tensors = load_file(path / "vectors.safetensors")
            facts = parse_json(read_text(path / "words.json"))
            words = tuple(facts.pop("words"))
        except (OSError, ValueError, KeyError) as error:
            raise UserError(
                f"{path} holds no word vectors ({error})",
                expected="a folder of underhood embed, or a file in word2vec's format",
                fix="Make some with underhood embed DATA --out FOLDER",
            ) from error
        return cls(words, tensors["vectors"], tensors.get("counts"), facts, tensors.get("outputs"))


def write_word2vec(vectors: WordVectors, path: Path, *, binary: bool) -> None:
    """Writes the format of word2vec.c: a line with the two sizes, then each word with its numbers.

    Spaces within words become underscores, since a space ends a word there.
    """
    lines = [f"{len(vectors.words)} {vectors.vectors_VD.shape[1]}".encode()]
    for word, row_D in zip(vectors.words, vectors.vectors_VD, strict=True):
        if binary:
            numbers = row_D.astype("<f4").tobytes()
        else:
            numbers = " ".join(f"{number:.9g}" for number in row_D.tolist()).encode()
        lines.append("_".join(word.split()).encode() + b" " + numbers)
    write_bytes(path, b"\n".join([*lines, b""]))


def read_word2vec(path: Path) -> WordVectors:
    """Reads word2vec's text or binary format; which of the two, the first vector tells.

    Raises:
        UserError: the file is neither, or ends too early.
    """
    content = path.read_bytes()
    head, _, body = content.partition(b"\n")
    try:
        count, width = map(int, head.split())
        return _read_text(body, count, width) if _is_text(body, width) else _read_binary(body, count, width)
    except (ValueError, struct.error, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} is not a file of word vectors ({error})",
            expected="word2vec's format: a line with how many words and dimensions, then words with their numbers",
        ) from error


def _is_text(body: bytes, width: int) -> bool:
    line = body.partition(b"\n")[0].split()
    try:
        return len(line) == width + 1 and all(np.isfinite(float(number)) for number in line[1:])
    except ValueError:
        return False


def _read_text(body: bytes, count: int, width: int) -> WordVectors:
    lines = body.decode("utf-8").split("\n")[:count]
    if len(lines) < count or not lines[-1]:
        raise ValueError(f"{len([line for line in lines if line])} of {count} words")
    words = [line.split(" ", 1)[0] for line in lines]
    rows = [np.array(line.split(" ")[1 : width + 1], dtype=np.float32) for line in lines]
    return WordVectors(tuple(words), np.stack(rows))


def _read_binary(body: bytes, count: int, width: int) -> WordVectors:
    words, at = [], 0
    vectors_VD = np.empty((count, width), dtype=np.float32)
    for n in range(count):
        end = body.index(b" ", at)
        words.append(body[at:end].lstrip(b"\n").decode("utf-8"))
        row = body[end + 1 : end + 1 + 4 * width]
        if len(row) < 4 * width:
            raise ValueError(f"{n} of {count} words")
        vectors_VD[n] = np.frombuffer(row, dtype="<f4")
        at = end + 1 + 4 * width
    return WordVectors(tuple(words), vectors_VD)
