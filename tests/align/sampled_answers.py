"""A tiny policy and a batch of padded prompts and answers, for tests of reinforcement learning."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from underhood.models.decoder import Decoder, qwen3_shaped

VOCAB = 20


@dataclass(frozen=True)
class SampledBatch:
    ids_NT: Tensor
    mask_NT: Tensor
    response_mask_NT: Tensor


def policy(seed: int = 0, dtype: torch.dtype = torch.float32, context_length: int = 32) -> Decoder:
    """A decoder with a peaked distribution over 20 tokens."""
    spec = qwen3_shaped(vocab_size=VOCAB, context_length=context_length, d_model=16, layers=2, heads=2, d_ff=24)
    model = spec.build()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4 + float("norm" in name))
    return model.to(dtype).eval()


def batch(rows: int = 6, seed: int = 0, answers: int = 7) -> SampledBatch:
    """Rows of prompts (2–5 tokens) and answers (1–7 tokens), padded at their ends."""
    generator = torch.Generator().manual_seed(seed)
    prompts = torch.randint(2, 6, (rows,), generator=generator)
    lengths = torch.randint(1, answers + 1, (rows,), generator=generator)
    width = int((prompts + lengths).max())
    columns = torch.arange(width)
    mask_NT = columns < (prompts + lengths)[:, None]
    ids_NT = torch.randint(0, VOCAB, (rows, width), generator=generator) * mask_NT
    return SampledBatch(ids_NT, mask_NT, mask_NT & (columns >= prompts[:, None]))


def random_NT(mask_NT: Tensor, seed: int, scale: float = 1.0) -> Tensor:
    """Normal numbers where the mask is true; 0 elsewhere; float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(mask_NT.shape, generator=generator, dtype=torch.float64) * scale * mask_NT
