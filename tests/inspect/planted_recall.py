"""A planted recall task: one token of the prompt is the cause of the answer, and it is known which.

The model is wired by hand. Its single head has the same query for every token, and only *value* tokens have a key that
answers it; the head copies the value's code, and the unembedding reads it. All other tokens are filler.
"""

from __future__ import annotations

from pathlib import Path

import torch
from traced import as_loaded

from underhood.infer.load import LoadedModel
from underhood.models.decoder import DecoderSpec
from underhood.nn.attention import Attention, AttentionSpec
from underhood.nn.block import BlockSpec
from underhood.nn.feedforward import MLPSpec

FILLERS, VALUES, LENGTH = 24, 8, 16
V = FILLERS + VALUES


def recall_model(folder: Path, *, copies: bool = True, noise: float = 0.02) -> LoadedModel:
    """The wired model.

    Args:
        copies: False takes the idea away: the head reads, and writes nothing.
        noise: standard deviation of what is added to every weight.
    """
    attention = AttentionSpec(heads=1, rotary=None, bias=True)
    block = BlockSpec(mixer=attention, feedforward=MLPSpec(d_ff=4), norm=None)
    spec = DecoderSpec(vocab_size=V, context_length=LENGTH, d_model=V, layers=1, blocks=(block,))
    model = spec.build()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * noise)
        model.norm.weight.fill_(1.0)
        model.embed.weight += torch.eye(V)
        mixer = model.blocks[0].mixer
        assert isinstance(mixer, Attention)
        assert mixer.query.bias is not None
        mixer.query.bias[0] += 10 * V**0.5  # every token looks for values
        mixer.key.weight[0, FILLERS:] += 1.0
        mixer.value.weight += torch.eye(V)
        if copies:
            mixer.output.weight[FILLERS:, FILLERS:] += 4 * torch.eye(VALUES)
        model.unembed.weight += torch.eye(V)
    return as_loaded(model.eval().requires_grad_(False), folder)


def recall_prompts(count: int) -> list[tuple[list[int], int, int, int]]:
    """Prompts with one value each: ids, position of the value, the value, and another value."""
    generator = torch.Generator().manual_seed(1)
    prompts = []
    for _ in range(count):
        ids = torch.randint(FILLERS, (LENGTH,), generator=generator).tolist()
        cause = int(torch.randint(LENGTH - 1, (1,), generator=generator))
        value = FILLERS + int(torch.randint(VALUES, (1,), generator=generator))
        ids[cause] = value
        prompts.append((ids, cause, value, FILLERS + (value - FILLERS + 1) % VALUES))
    return prompts
