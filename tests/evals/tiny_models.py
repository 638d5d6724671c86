"""Small models with known probabilities, for tests of what measures them."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Bigram(nn.Module):
    """p(next | last token) read from a table of logits (V, V); also shifts with the position, to see misplaced ones."""

    def __init__(self, vocab_size: int, *, seed: int = 0, context: int | None = None, positional: bool = True):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.table = nn.Parameter(torch.randn(vocab_size, vocab_size, generator=generator))
        self.tilt = nn.Parameter(torch.randn(vocab_size, generator=generator) * (0.3 if positional else 0.0))
        self.vocab_size, self.context_length = vocab_size, context
        self.calls: list[tuple[int, ...]] = []

    def forward(self, tokens: Tensor, *, cache=None, positions: Tensor | None = None) -> Tensor:
        assert cache is None
        assert not self.training
        assert not torch.is_grad_enabled()
        assert self.context_length is None or tokens.shape[1] <= self.context_length
        self.calls.append(tuple(tokens.shape))
        if positions is None:
            positions = torch.arange(tokens.shape[1]).expand(tokens.shape)
        return self.table[tokens] + torch.sin(positions.float())[..., None] * self.tilt


class Bytes:
    """A tokenizer of bytes, with pairs of letters joined so that tokens can straddle a border."""

    vocab_size = 512

    def __init__(self, joined: tuple[str, ...] = ()):
        self.special = {"<|endoftext|>": 511}
        self.joined = {text: 256 + i for i, text in enumerate(joined)}

    def encode(self, text: str) -> list[int]:
        ids, i = [], 0
        while i < len(text):
            pair = text[i : i + 2]
            if pair in self.joined:
                ids.append(self.joined[pair])
                i += 2
            else:
                ids.extend(text[i].encode())
                i += 1
        return ids

    def encode_batch(self, texts) -> list[list[int]]:
        return [self.encode(text) for text in texts]

    def decode_bytes(self, ids) -> bytes:
        back = {value: text.encode() for text, value in self.joined.items()}
        return b"".join(back.get(i, bytes([i]) if i < 256 else b"") for i in ids)

    def decode(self, ids) -> str:
        return self.decode_bytes(ids).decode(errors="replace")
