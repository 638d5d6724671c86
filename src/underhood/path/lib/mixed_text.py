"""Text of three kinds that come with Python: documentation, source code, and sums; as character ids below 128."""

from __future__ import annotations

import inspect
import random
from functools import cache

import torch
from jaxtyping import Int
from torch import Tensor

KINDS = ("documentation", "source code", "sums")
CHARACTERS = 128
LETTERS_EACH = 200_000
HELD_OUT = 10
"""Every tenth piece of a text is read only to measure."""
PIECE = 2_000


@cache
def mixed_strings() -> tuple[str, ...]:
    """The beginning of each kind of text."""
    import argparse
    import dataclasses
    import textwrap
    import typing
    from pydoc_data.topics import topics

    draw = random.Random(0)
    numbers = ((draw.randrange(100), draw.randrange(100)) for _ in range(LETTERS_EACH // 6))
    texts = (
        "\n".join(topics[name] for name in sorted(topics)),
        "".join(inspect.getsource(module) for module in (argparse, dataclasses, inspect, random, textwrap, typing)),
        "".join(f"{a}+{b}={a + b}\n" for a, b in numbers),
    )
    return tuple(text[:LETTERS_EACH] for text in texts)


@cache
def mixed_text() -> tuple[tuple[Int[Tensor, "N"], ...], tuple[Int[Tensor, "M"], ...]]:
    """Ids of each kind of text, to train on and held out."""
    ids = [torch.tensor([min(ord(letter), CHARACTERS - 1) for letter in text]) for text in mixed_strings()]
    pieces = [whole.split(PIECE) for whole in ids]
    train = tuple(torch.cat([piece for at, piece in enumerate(kind) if at % HELD_OUT]) for kind in pieces)
    return train, tuple(torch.cat(kind[::HELD_OUT]) for kind in pieces)


def mixed_windows(ids: tuple[Int[Tensor, "N"], ...], each: int, length: int, seed: int) -> Int[Tensor, "B T"]:
    """`each` windows of `length` + 1 characters of every kind, the kinds one after the other."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for kind_N in ids:
        starts_B1 = torch.randint(len(kind_N) - length, (each, 1), generator=generator)
        rows.append(kind_N[starts_B1 + torch.arange(length + 1)])
    return torch.cat(rows)
