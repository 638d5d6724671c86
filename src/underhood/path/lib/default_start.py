"""PyTorch's own initial weights for a decoder of GPT-2's shape, drawn in the order in which a module is written down.

Books and notebooks seed PyTorch, build their model, and print what it computes. The layers draw from one stream, so the
same numbers come out only if the same layers draw in the same order: token embedding, positions, then block by block
query, key, value, output, up and down, and the unembedding last.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import nn

from underhood.models.decoder import Decoder, DecoderSpec
from underhood.models.presets import preset
from underhood.nn.attention import AttentionSpec
from underhood.nn.feedforward import MLPSpec

RASCHKA_SEED = 123
"""The seed of Raschka's book (Build a Large Language Model (From Scratch), 2024)."""


def raschka_shaped(
    name: str = "gpt2", *, context_length: int = 1024, tied: bool = False, bias: bool = False
) -> DecoderSpec:
    """GPT-2's shape as the book has it: an unembedding of its own, no biases on query, key and value."""
    spec = preset(name)
    [block] = spec.blocks
    assert isinstance(block.mixer, AttentionSpec)
    blocks = (replace(block, mixer=replace(block.mixer, bias=bias)),)
    return replace(spec, tied=tied, context_length=context_length, blocks=blocks)


def smaller(spec: DecoderSpec, *, vocab_size: int, d_model: int, layers: int, heads: int) -> DecoderSpec:
    """The same kind of model with other sizes; the MLP is four times as wide as the stream."""
    [block] = spec.blocks
    assert isinstance(block.mixer, AttentionSpec)
    assert isinstance(block.feedforward, MLPSpec)
    mixer, mlp = replace(block.mixer, heads=heads), replace(block.feedforward, d_ff=4 * d_model)
    blocks = (replace(block, mixer=mixer, feedforward=mlp),)
    return replace(spec, vocab_size=vocab_size, d_model=d_model, layers=layers, blocks=blocks)


def default_start(spec: DecoderSpec, *, seed: int = RASCHKA_SEED) -> Decoder:
    """The model with PyTorch's default weights: normal embeddings, uniform linear layers, in the order written down."""
    with torch.device("meta"):
        model = spec.build()
    model.to_empty(device="cpu")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for layer in _layers(model):
            layer.reset_parameters()
    if spec.tied:
        model.unembed.weight = model.embed.weight
    return model.eval()


def _layers(model: Decoder) -> Iterator[nn.Linear | nn.Embedding | nn.LayerNorm]:
    names = ("mixer.query", "mixer.key", "mixer.value", "mixer.output", "feedforward.up", "feedforward.down")
    owners = [(model, ("embed", "position_embed"))]
    owners += [(block, (*names, "mixer_norm", "feedforward_norm")) for block in model.blocks]
    for owner, layers in [*owners, (model, ("norm", "unembed"))]:
        for name in layers:
            layer = owner.get_submodule(name)
            assert isinstance(layer, nn.Linear | nn.Embedding | nn.LayerNorm)
            yield layer
