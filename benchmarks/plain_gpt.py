"""The yardstick: a plain GPT as of 2019, trained the way nanoGPT's notes recommend for a machine without a GPU.

Written for benchmarks only and on purpose apart from the library: nothing here may get faster or better because the
library does. LayerNorm before each part, exact GELU, learned positions, tied embeddings, no biases, no dropout; AdamW
with a cosine schedule. It is as fast as plain PyTorch makes it: fused attention, fused AdamW.

Settings: 4 layers, 4 heads, width 128, context 64, batch 12, 2,000 steps, learning rate 1e-3 → 1e-4, warm-up 100,
betas (0.9, 0.99), weight decay 0.1 on matrices, gradient norm at most 1 (github.com/karpathy/nanoGPT, "I only have a
macbook"). Model: Radford et al. 2019, section 2.3, for the pre-norm block and the scaled residual initialisation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class PlainConfig:
    """Shape and training settings, at their published values."""

    vocab_size: int
    layers: int = 4
    heads: int = 4
    width: int = 128
    context: int = 64
    batch: int = 12
    steps: int = 2000
    warmup: int = 100
    lr: float = 1e-3
    lr_floor: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.1
    clip: float = 1.0

    def rate(self, step: int) -> float:
        """Learning rate of update `step`: a linear climb, then half a cosine down to the floor."""
        if step < self.warmup:
            return self.lr * (step + 1) / (self.warmup + 1)
        share = (step - self.warmup) / (self.steps - self.warmup)
        return self.lr_floor + (self.lr - self.lr_floor) * 0.5 * (1 + math.cos(math.pi * share))


class PlainBlock(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width, bias=False), nn.LayerNorm(width, bias=False)
        self.attend, self.attended = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.widen, self.narrow = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.attend(self.norm1(x)).unflatten(-1, (3, self.heads, -1))  # (B, T, 3, H, K)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        x = x + self.attended(mixed)
        return x + self.narrow(F.gelu(self.widen(self.norm2(x))))


class PlainGPT(nn.Module):
    """Tokens (B, T) to logits (B, T, V)."""

    def __init__(self, config: PlainConfig):
        super().__init__()
        self.token = nn.Embedding(config.vocab_size, config.width)
        self.place = nn.Embedding(config.context, config.width)
        self.blocks = nn.ModuleList(PlainBlock(config.width, config.heads) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width, bias=False)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                into_stream = name.endswith(("attended.weight", "narrow.weight"))
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * config.layers) if into_stream else 0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.token(tokens) + self.place.weight[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        return F.linear(self.norm(x), self.token.weight)


def make_optimizer(model: nn.Module, config: PlainConfig) -> torch.optim.Optimizer:
    """PyTorch's fused AdamW; weight decay on everything with two dimensions, as nanoGPT groups it."""
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    plain = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, fused=True)


def train_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, config: PlainConfig, step: int, tokens: Tensor, targets: Tensor
) -> None:
    """One update on a batch of tokens and targets, both (B, T)."""
    for group in optimizer.param_groups:
        group["lr"] = config.rate(step)
    loss = F.cross_entropy(model(tokens).flatten(0, 1), targets.flatten())
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), config.clip)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
