"""Any bytes as tokens, and a token model's scores as frequencies that an arithmetic coder can use.

A decoder must work out exactly the frequencies that the encoder had, or nothing after the first difference is right.
So scores are rounded to a grid before anything else, and from there on there are only integers: a table instead of
`exp`, sums that no order can change. The rounding costs 10⁻⁶ nats per token. It does not make different machines agree
(a score may lie on the grid's edge): `infer.token_streams` sees to the scores, `infer.compress` to what differs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from decimal import Context, Decimal
from functools import cached_property, lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from underhood.core.checkpoint import module_tensors
from underhood.core.errors import UserError
from underhood.core.protocols import LanguageModel, Tokenizer
from underhood.data.arithmetic import TOTAL_LIMIT

GRID = 256
"""Steps per nat to which scores are rounded."""

DEEPEST = 20 * GRID
"""Scores more than 20 nats below the best count as 20 below it; every token keeps a frequency of 1 anyway."""

Frequencies = NDArray[np.int64]
"""(B, V + 2): cumulative, from 0; the last symbol is the escape."""


class Spelling:
    """Bytes to token ids and back, for any bytes and any vocabulary.

    Text goes through the tokenizer. Bytes that are not UTF-8, or that the tokenizer would not give back unchanged, are
    spelled with the longest tokens that fit, single bytes if need be. A byte that no token spells is an *escape*: an id
    of `vocab_size` + byte.
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int):
        special = set(tokenizer.special.values())
        known = min(tokenizer.vocab_size, vocab_size)
        self._tokenizer, self.vocab_size = tokenizer, vocab_size
        self.bytes_of = [b"" if id in special else tokenizer.decode_bytes([id]) for id in range(known)]
        self.bytes_of += [b""] * (vocab_size - known)
        self.bytes_of += [bytes((byte,)) for byte in range(256)]
        self._longest = max(map(len, self.bytes_of))

    @cached_property
    def _id_of(self) -> dict[bytes, int]:
        return {spelled: id for id, spelled in reversed(list(enumerate(self.bytes_of))) if spelled}

    @cached_property
    def usable(self) -> Tensor:
        """Which of the V ids spell anything: the others are never written, and get no share."""
        return torch.tensor([bool(spelled) for spelled in self.bytes_of[: self.vocab_size]])

    def encode(self, data: bytes) -> list[int]:
        """Ids whose bytes, joined, are `data`."""
        ids: list[int] = []
        text = data.decode("utf-8", errors="surrogateescape")  # a byte that is not UTF-8 becomes a lone surrogate
        start = 0
        while start < len(text):
            end, lone = start, "\udc80" <= text[start] <= "\udcff"
            while end < len(text) and ("\udc80" <= text[end] <= "\udcff") is lone:
                end += 1
            piece = text[start:end]
            ids += self._plainly(piece.encode("utf-8", "surrogateescape")) if lone else self._text(piece)
            start = end
        return ids

    def decode(self, ids: Sequence[int]) -> bytes:
        """The bytes of the ids."""
        return b"".join([self.bytes_of[id] for id in ids])

    def _text(self, text: str) -> list[int]:
        data = text.encode("utf-8")
        try:
            ids = self._tokenizer.encode(text)
        except UserError:  # a character that the vocabulary does not have
            return self._plainly(data)
        if self.decode(ids) == data:
            return ids
        if ids and self.decode(ids) == b" " + data:  # vocabularies of words put a space in front
            return [*self._plainly(self.bytes_of[ids[0]][1:]), *ids[1:]]
        return self._plainly(data)

    def _plainly(self, data: bytes) -> list[int]:
        """The longest token that fits, from the left."""
        ids, at = [], 0
        while at < len(data):
            for size in range(min(self._longest, len(data) - at), 0, -1):
                id = self._id_of.get(data[at : at + size])
                if id is not None:
                    ids.append(id)
                    at += size
                    break
        return ids


def frequencies(scores_BV: Tensor, usable_V: Tensor) -> Frequencies:
    """Cumulative frequencies of each row's V tokens and the escape; each usable token has at least 1."""
    worst = torch.finfo(torch.float32).min
    scores_BV = scores_BV.float().nan_to_num(nan=worst, neginf=worst).masked_fill(~usable_V, worst)
    below_BV = (scores_BV.amax(dim=-1, keepdim=True) - scores_BV).mul_(GRID).round_().clamp_(max=DEEPEST)
    usable = usable_V.numpy()
    weights_BV = np.where(usable, _weights()[below_BV.to(torch.int32).numpy()], 0)
    share = TOTAL_LIMIT - int(usable.sum()) - 1
    each_BV = weights_BV * share // np.maximum(weights_BV.sum(axis=-1, keepdims=True), 1) + usable
    cumulative = np.zeros((len(each_BV), each_BV.shape[1] + 2), dtype=np.int64)
    np.cumsum(each_BV, axis=-1, out=cumulative[:, 1:-1])
    cumulative[:, -1] = cumulative[:, -2] + 1
    return cumulative


@lru_cache(maxsize=1)
def _weights() -> Frequencies:
    """exp(−k / GRID) in units of 2⁻³⁰, from decimal arithmetic: the same integers on every machine."""
    exact = Context(prec=24)
    return np.array([round(exact.exp(Decimal(-k) / GRID) * (1 << 30)) for k in range(DEEPEST + 1)], dtype=np.int64)


def digest_of(model: LanguageModel, spelling: Spelling, opening: int) -> bytes:
    """Eight bytes that differ for models that differ in anything that matters here.

    Raises:
        UserError: the model is not a module, so it has no weights to tell it by.
    """
    if not isinstance(model, nn.Module):
        raise UserError("this model has no weights to tell it by", expected="a model that underhood.load opens")
    sha = hashlib.sha256(repr((getattr(model, "spec", None), opening)).encode())
    for name, tensor in sorted(module_tensors(model).items()):
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        if tensor.numel():
            sha.update(tensor.cpu().reshape(-1).view(torch.uint8).numpy().data)
    for spelled in spelling.bytes_of:
        sha.update(len(spelled).to_bytes(4, "little") + spelled)
    return sha.digest()[:8]
