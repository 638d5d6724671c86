"""A small decoder to adapt by LoRA, for the tests of LoRA and of its files."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from underhood.models.decoder import Decoder, qwen3_shaped
from underhood.nn.lora import lora_layers

ATTENTION = ("query", "value")


def model(seed: int = 0, *, tied: bool = False, logit_softcap: float | None = None) -> Decoder:
    spec = qwen3_shaped(
        vocab_size=50, context_length=16, d_model=32, layers=2, heads=4, kv_heads=2, head_dim=8, d_ff=64, tied=tied
    )
    built = replace(spec, logit_softcap=logit_softcap).initialize(seed=seed)
    generator = torch.Generator().manual_seed(seed + 1)
    for parameter in built.parameters():  # no matrix may be zero, or nothing could be told apart
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return built


def tokens(seed: int = 0, length: int = 12) -> Tensor:
    return torch.randint(50, (3, length), generator=torch.Generator().manual_seed(seed))


def stirred(adapted: nn.Module, seed: int = 3) -> None:
    """Companions that do something: B starts at zero."""
    generator = torch.Generator().manual_seed(seed)
    for _, layer in lora_layers(adapted):
        layer.lora_B.data.normal_(0, 0.1, generator=generator)
