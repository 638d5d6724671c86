"""Coding tokens with a model: many parts of a text side by side, and every pass of the same shape in both directions.

Floating-point sums depend on the order of their terms, and that on the shapes of a matrix product. The writer knows the
whole text and could score it in one pass; the reader can't, and so the writer doesn't either. Both go token by token
with the same cache, the same rows and the same threads, which makes their scores equal to the last bit on one machine.

One token per pass would leave most of the machine idle. So a text is cut into parts of equal length that are read side
by side, as the rows of one batch; only the first tokens of each part lack a context for it.

A text is longer than the model's context. When the window is full, its later half is read again behind the opening
token, and the window goes on from there: each token sees at least half a window, at the cost of reading twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from underhood.core.protocols import LanguageModel
from underhood.data.arithmetic import ArithmeticDecoder, ArithmeticEncoder
from underhood.infer.sequence_runner import SequenceRunner
from underhood.infer.token_code import Frequencies, Spelling, frequencies

LONGEST_WINDOW = 1024
"""Of models with a long context, for the sake of time and memory."""

STREAMS = 64
"""Rows side by side at most."""

PART = 1024
"""Tokens of a row at least, where there are several."""

Progress = Callable[[int, int], None]
"""Told tokens done and tokens in all."""


@dataclass(frozen=True)
class Shape:
    """Everything that the shapes of the passes depend on; the reader gets it from the file.

    Attributes:
        tokens: in the text.
        streams: rows side by side.
        window: tokens that a row holds before it is cut.
        threads: of PyTorch.
    """

    tokens: int
    streams: int
    window: int
    threads: int

    @classmethod
    def of(cls, model: LanguageModel, tokens: int) -> "Shape":
        streams = max(1, min(STREAMS, tokens // PART))
        length = -(-tokens // streams)
        streams = max(1, -(-tokens // length)) if tokens else 1  # the last row may have become superfluous
        window = max(2, min(model.context_length or LONGEST_WINDOW, LONGEST_WINDOW))
        return cls(tokens, streams, window, torch.get_num_threads())

    @property
    def length(self) -> int:
        """Tokens of every row but the last, which may be shorter."""
        return -(-self.tokens // self.streams)

    def rows_at(self, step: int) -> int:
        """How many rows have a token at this step: all, or all but the last."""
        last = self.tokens - (self.streams - 1) * self.length
        return self.streams if step < last else self.streams - 1


class Streams:
    """The model's state in all rows: `frequencies` of each row's next token, and `push` to go on."""

    def __init__(self, model: LanguageModel, spelling: Spelling, opening: int, shape: Shape):
        self._usable, self._opening, self._window = spelling.usable, opening, shape.window
        self._size = spelling.vocab_size
        # Compiled kernels choose their path by the machine's cores and load: the model's own forward pass does not.
        self._runner = SequenceRunner(model, batch=shape.streams, capacity=shape.window, compiled=False)
        self._logits_BV = self._runner.prefill([[opening]] * shape.streams).cpu()

    def frequencies(self) -> Frequencies:
        return frequencies(self._logits_BV, self._usable)

    def push(self, ids: Sequence[int]) -> None:
        """Takes each row's token; rows that have ended, and escapes, read the opening token."""
        rows = len(self._runner.tokens)
        filled = [id if id < self._size else self._opening for id in ids] + [self._opening] * (rows - len(ids))
        if len(self._runner.tokens[0]) < self._window:
            self._logits_BV = self._runner.decode([[id] for id in filled]).cpu()
            return
        kept = max(1, self._window // 2)
        held = [[*tokens, id][-kept:] for tokens, id in zip(self._runner.tokens, filled, strict=True)]
        self._runner.reset()
        self._logits_BV = self._runner.prefill([[self._opening, *tokens] for tokens in held]).cpu()


def write(
    model: LanguageModel,
    spelling: Spelling,
    opening: int,
    ids: Sequence[int],
    shape: Shape,
    progress: Progress | None = None,
) -> bytes:
    """The code of the ids (escapes included, see `Spelling`)."""
    coder = ArithmeticEncoder()
    with _steadily(model, shape.threads):
        streams = Streams(model, spelling, opening, shape)
        for step in range(shape.length):
            rows = shape.rows_at(step)
            now = [ids[row * shape.length + step] for row in range(rows)]
            cumulative = streams.frequencies()
            for row, id in enumerate(now):
                symbol = min(id, spelling.vocab_size)
                start, end, total = (int(n) for n in cumulative[row, [symbol, symbol + 1, -1]])
                coder.encode(start, end, total)
                if id >= spelling.vocab_size:
                    coder.encode(id - spelling.vocab_size, id - spelling.vocab_size + 1, 256)
            if step + 1 < shape.length:
                streams.push(now)
            if progress is not None:
                progress(min((step + 1) * shape.streams, shape.tokens), shape.tokens)
    return coder.finish()


def read(
    model: LanguageModel,
    spelling: Spelling,
    opening: int,
    code: bytes,
    shape: Shape,
    progress: Progress | None = None,
) -> list[int]:
    """The ids that `write` was given.

    Raises:
        TruncatedError: the code is cut off, or was made with other probabilities.
    """
    coder = ArithmeticDecoder(code)
    parts: list[list[int]] = [[] for _ in range(shape.streams)]
    with _steadily(model, shape.threads):
        streams = Streams(model, spelling, opening, shape)
        for step in range(shape.length):
            cumulative = streams.frequencies()
            now = []
            for row in range(shape.rows_at(step)):
                total = int(cumulative[row, -1])
                symbol = int(np.searchsorted(cumulative[row], coder.target(total), side="right")) - 1
                coder.decode(int(cumulative[row, symbol]), int(cumulative[row, symbol + 1]), total)
                if symbol == spelling.vocab_size:
                    byte = coder.target(256)
                    coder.decode(byte, byte + 1, 256)
                    symbol += byte
                parts[row].append(symbol)
                now.append(symbol)
            if step + 1 < shape.length:
                streams.push(now)
            if progress is not None:
                progress(min((step + 1) * shape.streams, shape.tokens), shape.tokens)
    return [id for piece in parts for id in piece]


def probe(model: LanguageModel, spelling: Spelling, opening: int, shape: Shape) -> bytes:
    """Four bytes of what a few passes of this shape give: they differ on a machine that computes otherwise."""
    sha = hashlib.sha256()
    with _steadily(model, shape.threads):
        streams = Streams(model, spelling, opening, shape)
        for step in range(3):
            sha.update(np.ascontiguousarray(streams.frequencies()).data)
            streams.push([(opening + 97 * row + 31 * step) % spelling.vocab_size for row in range(shape.streams)])
        sha.update(np.ascontiguousarray(streams.frequencies()).data)
    return sha.digest()[:4]


@contextmanager
def _steadily(model: LanguageModel, threads: int) -> Iterator[None]:
    """Evaluation mode, no autocast and the given number of threads inside; all as it was afterwards."""
    if isinstance(model, torch.nn.Module):
        model.eval()
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode(), torch.autocast("cpu", enabled=False):
            yield
    finally:
        torch.set_num_threads(before)
