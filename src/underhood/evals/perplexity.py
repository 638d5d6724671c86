"""Loss on held-out text: nats per token, perplexity, and bits per byte.

Bits per byte is the number to compare by: it doesn't depend on the tokenizer, and a compressor answers to it too (a
model with b bits per byte, driving an arithmetic coder, would write the text in b / 8 of its size; Shannon 1948).

The end-of-text token that closes each document is scored like any other: knowing where a text ends is part of
predicting it, and a code would have to transmit it. It adds its nats and no bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from underhood.core.protocols import LanguageModel
from underhood.data.batch import IGNORE, Batch
from underhood.evals.intervals import Interval, bootstrap_ratio
from underhood.evals.scoring import evaluating, target_log_probs


class Windows(Protocol):
    """Held-out documents in batches in which every token is a target exactly once (`data.pack.EvaluationWindows`)."""

    byte_counts_N: NDArray[np.int64]
    """Bytes of text in each document."""

    def __iter__(self) -> Iterator[Batch]: ...

    def owners(self) -> Iterator[Tensor]:
        """For each batch, the document number (B, T) of every scored target."""
        ...


@dataclass(frozen=True)
class LossReport:
    """What a model loses on held-out documents.

    Attributes:
        nats_N: summed loss of each document, its end included.
        tokens_N: tokens scored in each document.
        bytes_N: UTF-8 bytes of each document's text.
    """

    nats_N: NDArray[np.float64]
    tokens_N: NDArray[np.int64]
    bytes_N: NDArray[np.int64]

    @property
    def nats(self) -> float:
        return float(self.nats_N.sum())

    @property
    def tokens(self) -> int:
        return int(self.tokens_N.sum())

    @property
    def bytes(self) -> int:
        return int(self.bytes_N.sum())

    @property
    def nats_per_token(self) -> float:
        return self.nats / self.tokens

    @property
    def perplexity(self) -> float:
        """exp(nats per token): depends on the tokenizer."""
        return math.exp(self.nats_per_token)

    @property
    def bits_per_byte(self) -> float:
        return self.nats / (self.bytes * math.log(2))

    @property
    def bits_N(self) -> NDArray[np.float64]:
        """Bits of each document."""
        return self.nats_N / math.log(2)

    def interval(self, *, level: float = 0.95, seed: int = 0) -> Interval:
        """Bits per byte with the interval that drawing other documents would give."""
        return bootstrap_ratio(self.bits_N, self.bytes_N, level=level, seed=seed)


def held_out_loss(model: LanguageModel, windows: Windows, *, device: torch.device | str = "cpu") -> LossReport:
    """Scores every held-out token once.

    Raises:
        ValueError: the windows hold no target.
    """
    documents = len(windows.byte_counts_N)
    nats_N, tokens_N = np.zeros(documents), np.zeros(documents, dtype=np.int64)
    with evaluating(model):
        for batch, owners_BT in zip(windows, windows.owners(), strict=True):
            logs_BT = target_log_probs(model, batch.to(device)).double().cpu()
            at_BT = batch.targets != IGNORE
            owner_M = owners_BT[at_BT].numpy()
            nats_N += np.bincount(owner_M, weights=-logs_BT[at_BT].numpy(), minlength=documents)
            tokens_N += np.bincount(owner_M, minlength=documents)
    if not tokens_N.sum():
        raise ValueError("no held-out tokens to score")
    return LossReport(nats_N, tokens_N, np.asarray(windows.byte_counts_N))
