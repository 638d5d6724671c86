"""The eight models of the GPT-3 paper: shapes, and what follows from them (Brown et al. 2020, tables 2.1 and D.1)."""

from __future__ import annotations

import torch

from underhood.models.base import parameter_count
from underhood.models.decoder import DecoderSpec
from underhood.models.gpt2 import gpt2_shaped

PRINTED = {
    "Small": (12, 768, 12, 64, 0.125),
    "Medium": (24, 1024, 16, 64, 0.35),
    "Large": (24, 1536, 16, 96, 0.76),
    "XL": (24, 2048, 24, 128, 1.3),
    "2.7B": (32, 2560, 32, 80, 2.7),
    "6.7B": (32, 4096, 32, 128, 6.7),
    "13B": (40, 5140, 40, 128, 13.0),
    "175B": (96, 12288, 96, 128, 174.6),
}
"""Layers, width, heads, width of a head, and billions of parameters (table 2.1, recalled; the last from table D.1)."""
MEANT = PRINTED | {"XL": (24, 2048, 16, 128, 1.3), "13B": (40, 5120, 40, 128, 13.0)}
"""Heads times their width is the model's width in all other rows."""

TOKENS = 300e9
"""That each of them was trained on."""


def gpt3_shaped(
    layers: int, width: int, heads: int, head_dim: int, *, vocab: int = 50257, context: int = 2048
) -> DecoderSpec:
    """GPT-3's architecture: GPT-2's, with LayerNorm before each part, learned positions, GELU and tied embeddings.

    Its sparse attention in every second layer changes what is computed, not what is learnt, and is left out.
    """
    return gpt2_shaped(
        vocab_size=vocab, context_length=context, d_model=width, layers=layers, heads=heads, head_dim=head_dim
    )


def parameters(layers: int, width: int, heads: int, head_dim: int) -> int:
    """Parameters of a model that is only drawn up, not built."""
    with torch.device("meta"):
        return parameter_count(gpt3_shaped(layers, width, heads, head_dim).build())


def shares(layers: int, width: int, heads: int, head_dim: int) -> tuple[str, ...]:
    """Of attention, feed-forward and embeddings in all parameters, and the operations of training."""
    with torch.device("meta"):
        model = gpt3_shaped(layers, width, heads, head_dim).build()
    total = parameter_count(model)
    kinds = {"mixer.": 0, "feedforward.": 0, "embed": 0}
    for name, parameter in model.named_parameters():
        for kind in kinds:
            kinds[kind] += parameter.numel() * (kind in name)
    return (*(f"{count / total:.1%}" for count in kinds.values()), f"{6 * total * TOKENS:.2e}")
