"""Models that were trained a moment ago, for views that take a loaded model; and untrained ones as controls."""

from __future__ import annotations

from pathlib import Path

import torch

from underhood.core.protocols import Tokenizer
from underhood.infer.load import LoadedModel
from underhood.models.decoder import Decoder
from underhood.text.characters import CharacterTokenizer

NOWHERE = Path("in memory")

SPREAD = 0.3
"""Standard deviation of random weights, times the root of the width."""


def as_loaded(model: Decoder, tokenizer: Tokenizer | None = None) -> LoadedModel:
    """A decoder as `underhood.load` gives it; without a tokenizer, each id is written as a character of its own."""
    characters = CharacterTokenizer("".join(chr(0x100 + number) for number in range(model.vocab_size)))
    return LoadedModel(model.eval(), tokenizer or characters, model.spec, "milestone", NOWHERE, NOWHERE, 0)


@torch.no_grad()
def with_random_layers(model: Decoder, seed: int) -> Decoder:
    """A fresh model whose layers write something; ours begin at zero, which would leave nothing to look at."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if name.endswith((".output.weight", ".down.weight", "unembed.weight")):
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * SPREAD / parameter.shape[1] ** 0.5)
    return model
