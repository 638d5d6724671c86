"""Training of word vectors by word2vec: skip-gram or CBOW, negative sampling or hierarchical softmax.

Mikolov et al. 2013 ("Efficient estimation of word representations in vector space", and "Distributed representations
of words and phrases and their compositionality"). On one thread the result is the same, bit for bit, for the same
text and seed; several threads change the same vectors without waiting for each other, and no two runs agree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from underhood.core.errors import UserError
from underhood.data.word_vocabulary import Sentences, WordVocabulary
from underhood.kernels.word_windows import alias_table, train_windows
from underhood.models.word_vectors import WordVectors

JOB_WORDS = 10_000
"""Words that a thread trains on at a time, with one learning rate."""

UNIGRAM_POWER = 0.75
"""Random words are drawn by their counts to this power."""


@dataclass(frozen=True, kw_only=True)
class Word2VecSpec:
    """How word vectors are trained; the defaults are those of word2vec's code.

    Attributes:
        architecture: ``skip-gram`` predicts each word from each one around it, ``cbow`` from the mean of those around.
        width: dimensions of a vector.
        window: the most words to each side; nearer ones are read more often, since each window's reach is random.
        negatives: random words per prediction; 0 for hierarchical softmax.
        epochs: passes over the text.
        lr: the learning rate at the beginning, falling linearly to `lr_end`; None for 0.025, with CBOW 0.05.
        sample: frequent words are read less often (`WordVocabulary.keep_probabilities`); 0 reads all.
        divided: CBOW's gradient for each of n words is divided by n, as that of their mean is. word2vec.c and gensim
            do not divide, which makes the vectors learn n times as fast.
    """

    architecture: Literal["skip-gram", "cbow"] = "skip-gram"
    width: int = 100
    window: int = 5
    negatives: int = 5
    epochs: int = 5
    lr: float | None = None
    lr_end: float = 1e-4
    sample: float = 1e-3
    divided: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("width", 1), ("window", 1), ("negatives", 0), ("epochs", 1), ("sample", 0)):
            if getattr(self, name) < least:
                raise UserError(f"{name} is too small", expected=f"at least {least}", got=str(getattr(self, name)))


@dataclass(frozen=True)
class Word2VecProgress:
    """How far a training is.

    Attributes:
        share: of all words, 0 to 1.
        words: read so far, of all epochs, those that subsampling leaves out among them.
        loss: mean over the predictions since the last report, in nats.
    """

    share: float
    words: int
    loss: float


def train_word_vectors(
    sentences: Sentences,
    spec: Word2VecSpec | None = None,
    *,
    min_count: int = 5,
    threads: int = 1,
    on_progress: Callable[[Word2VecProgress], None] | None = None,
) -> WordVectors:
    """Vectors of the words that occur at least `min_count` times.

    Args:
        sentences: of words; windows do not leave them.
        on_progress: called after every job (some 10,000 words).

    Raises:
        UserError: fewer than two words are frequent enough.
    """
    spec = spec or Word2VecSpec()
    vocabulary = WordVocabulary.of(sentences, min_count=min_count)
    if len(vocabulary) < 2:
        raise UserError(
            f"{len(vocabulary)} words occur at least {min_count} times",
            expected="two or more, better thousands",
            fix="Take more text, or a smaller --min-count",
        )
    training = _Training(vocabulary, sentences, spec)
    losses = training.run(threads, on_progress or (lambda progress: None))
    facts = {"spec": asdict(spec), "min_count": min_count, "words_read": training.words, "epoch_losses": losses}
    outputs_VD = training.out_VD if training.spec.negatives else None  # else of inner nodes
    return WordVectors(vocabulary.words, training.in_VD, vocabulary.counts_V, facts, outputs_VD)


class _Training:
    """The vectors, and the tables that do not change."""

    def __init__(self, vocabulary: WordVocabulary, sentences: Sentences, spec: Word2VecSpec):
        self.spec, size = spec, len(vocabulary)
        self.ids_N, self.starts_S = vocabulary.encode(sentences)
        self.words = spec.epochs * len(self.ids_N)
        rng = np.random.default_rng(spec.seed)
        # Within ±1 / width, as gensim has it; word2vec.c's half of that learns as well, but from small texts later.
        uniform_VD = rng.random((size, spec.width), dtype=np.float32)
        self.in_VD = ((2 * uniform_VD - 1) / spec.width).astype(np.float32)
        self.out_VD = np.zeros((size, spec.width), dtype=np.float32)
        keep_V = (vocabulary.keep_probabilities(spec.sample) * 2.0**32).astype(np.uint64)
        chance_V, alias_V = alias_table(vocabulary.counts_V**UNIGRAM_POWER)
        paths: tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.uint8]]
        if spec.negatives:
            paths = np.zeros(1, dtype=np.int64), np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.uint8)
        else:
            paths = vocabulary.huffman_paths()
        self.settings = (keep_V, spec.window, spec.architecture == "cbow", spec.divided)
        self.tables = (spec.negatives, chance_V, alias_V, *paths)
        self.lr = spec.lr if spec.lr is not None else 0.05 if spec.architecture == "cbow" else 0.025

    def jobs(self) -> Iterator[tuple[int, int, int]]:
        """First and last sentence of each job of an epoch, and the words before it."""
        first, sentences = 0, len(self.starts_S) - 1
        while first < sentences:
            wanted = self.starts_S[first] + JOB_WORDS
            end = max(first + 1, int(np.searchsorted(self.starts_S, wanted, side="right")) - 1)
            yield first, min(end, sentences), int(self.starts_S[first])
            first = end

    def train(self, first: int, end: int, done: int, seed: int) -> tuple[float, int]:
        """One job; the sum of losses, and of how many predictions."""
        lr = self.lr - (self.lr - self.spec.lr_end) * done / max(self.words, 1)
        begin, stop = int(self.starts_S[first]), int(self.starts_S[end])
        ids_N, starts_S = self.ids_N[begin:stop], self.starts_S[first : end + 1] - begin
        vectors = (self.in_VD, self.out_VD)
        return train_windows(
            ids_N, starts_S, *self.settings, np.float32(lr), *self.tables, *vectors, np.uint64(_mixed(seed))
        )

    def run(self, threads: int, report: Callable[[Word2VecProgress], None]) -> list[float]:
        """Trains; the mean loss of each epoch."""
        jobs = list(self.jobs())
        losses = []
        with ThreadPoolExecutor(max(1, threads)) as pool:
            for epoch in range(self.spec.epochs):
                before = epoch * len(self.ids_N)
                total, count = 0.0, 0

                def start(number: int, before: int = before, epoch: int = epoch) -> Future[tuple[float, int]]:
                    first, end, done = jobs[number]
                    seed = (self.spec.seed << 40) + epoch * len(jobs) + number + 1
                    return pool.submit(self.train, first, end, before + done, seed)

                for number, (loss, predictions) in _in_turn(start, len(jobs), threads):
                    total, count = total + loss, count + predictions
                    words = before + int(self.starts_S[jobs[number][1]])
                    report(Word2VecProgress(words / self.words, words, loss / max(predictions, 1)))
                losses.append(total / max(count, 1))
        return losses


def _in_turn(
    start: Callable[[int], Future[tuple[float, int]]], count: int, threads: int
) -> Iterator[tuple[int, tuple[float, int]]]:
    """Numbers and results of jobs as they end, never more of them waiting than threads need."""
    waiting: dict[Future[tuple[float, int]], int] = {}
    number = 0
    while number < count or waiting:
        while number < count and len(waiting) < 2 * threads:
            waiting[start(number)] = number
            number += 1
        ended, _ = wait(waiting, return_when=FIRST_COMPLETED)
        for job in sorted(ended, key=waiting.__getitem__):
            yield waiting.pop(job), job.result()


def _mixed(seed: int) -> int:
    """A 64-bit number other than 0 in which neighbouring seeds have nothing in common (the finaliser of SplitMix64)."""
    mask = 2**64 - 1
    z = (seed * 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return (z ^ (z >> 31)) or 1


def read_questions(lines: Sequence[str]) -> list[tuple[str, list[tuple[str, str, str, str]]]]:
    """Analogy questions in the format of word2vec's `questions-words.txt`: ``: group``, then four words a line."""
    groups: list[tuple[str, list[tuple[str, str, str, str]]]] = []
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if words[:1] == [":"]:
            groups.append((" ".join(words[1:]), []))
        elif len(words) == 4:
            if not groups:
                groups.append(("questions", []))
            groups[-1][1].append((words[0], words[1], words[2], words[3]))
        elif words:
            raise UserError(f"line {number} is not an analogy question", expected="four words, or ': NAME OF A GROUP'")
    return groups
