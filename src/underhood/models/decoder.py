"""The decoder: one model class from the smallest character model to the open families.

Embedding, a pile of blocks, a final norm, and scores over the vocabulary. Which Transformer it is (Qwen3-shaped by
default) is said by the specs in its slots.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from underhood.core.protocols import AttendingCache, Cache
from underhood.core.state import StateSpec
from underhood.models.base import BuiltModel
from underhood.nn.attention import AttentionSpec
from underhood.nn.block import BlockSpec
from underhood.nn.embedding import ScaledEmbedding
from underhood.nn.feedforward import GatedMLPSpec
from underhood.nn.forward_context import ForwardContext
from underhood.nn.norm import NormSpec, RMSNormSpec
from underhood.nn.positions import PositionSpec
from underhood.nn.rope import RotarySpec
from underhood.nn.softcap import SoftcappedLinear
from underhood.nn.zero_centered_norm import ZeroCenteredRMSNorm


@dataclass(frozen=True, kw_only=True)
class DecoderSpec:
    """A decoder-only language model.

    Attributes:
        vocab_size: V.
        context_length: the longest sequence it is trained for, in tokens.
        d_model: D, the residual stream.
        layers: L.
        blocks: the layers' specs, repeated in turn: layer i is built from ``blocks[i % len(blocks)]``.
        norm: the final norm.
        tied: the unembedding is the embedding matrix.
        positions: vectors that are added to the embedding by position (GPT-2: learned ones), or None.
        embed_scale: multiplies the embedding (the original Transformer and Gemma: sqrt(d_model)), or None.
        logit_softcap: presses the scores softly into ±cap (Gemma 2), or None.
    """

    vocab_size: int
    context_length: int
    d_model: int
    layers: int
    blocks: tuple[BlockSpec, ...]
    norm: NormSpec = RMSNormSpec()
    tied: bool = False
    positions: PositionSpec | None = None
    embed_scale: float | None = None
    logit_softcap: float | None = None

    def __post_init__(self):
        for name in ("vocab_size", "context_length", "d_model", "layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 1 <= len(self.blocks) <= self.layers:  # the last turn may be cut short: Gemma 3 has 26 layers in sixes
            raise ValueError(f"blocks must be from 1 to {self.layers} (the layers), got {len(self.blocks)}")

    def block(self, layer: int) -> BlockSpec:
        return self.blocks[layer % len(self.blocks)]

    @property
    def state_specs(self) -> tuple[StateSpec, ...]:
        """What each layer keeps between passes."""
        return tuple(self.block(layer).mixer.state_spec(self.d_model) for layer in range(self.layers))

    @property
    def flops_per_token(self) -> float:
        """Two per weight that multiplies (the embedding only looks up), and those of the mixers at the full context.

        Source: Kaplan et al. 2020, table 1; Hoffmann et al. 2022, appendix F.
        """
        with torch.device("meta"):
            model = self.build()
        multiplying = sum(p.numel() for name, p in model.named_parameters() if p.ndim == 2 and "embed." not in name)
        multiplying += self.vocab_size * self.d_model
        mixers = (self.block(layer).mixer for layer in range(self.layers))
        return 2.0 * multiplying + sum(mixer.flops(self.d_model, self.context_length) for mixer in mixers)

    def facts(self) -> dict[str, str]:
        """The spec in words, for a list."""
        tied = ", embedding and unembedding tied" if self.tied else ""
        facts = {
            "Layers": f"{self.layers}",
            "Width": f"{self.d_model}",
            "Context": f"{self.context_length:,} tokens",
            "Vocabulary": f"{self.vocab_size:,} tokens{tied}",
        }
        block = self.block(0)
        return facts | block.mixer.facts(self.d_model) | block.feedforward.facts()

    def build(self) -> "Decoder":
        """The module, with its weights not yet initialised for training (see `initialize`)."""
        return Decoder(self)

    def initialize(self, *, seed: int, embed_std: float = 0.02) -> "Decoder":
        """The model with fresh weights for training, a pure function of the spec and the seed.

        Matrices that read the residual stream are uniform with standard deviation 0.5 / sqrt(fan-in); those that write
        to it (attention output, feed-forward down) start at zero, so that the model begins as its embedding and every
        layer grows from nothing (Zhang et al. 2019, Fixup). An untied unembedding starts at zero as well: the first
        loss is exactly log V. Norms start at one, biases at zero. Where a norm follows a layer's parts, it starts at
        zero and the matrices before it do not (at zero, a norm would blow their gradient up). A module that knows
        better has a method `initial`.
        """
        model = self.build()
        _initialize(model, seed, embed_std)
        return model


def qwen3_shaped(
    *,
    vocab_size: int,
    context_length: int,
    d_model: int,
    layers: int,
    heads: int,
    kv_heads: int | None = None,
    head_dim: int | None = None,
    d_ff: int | None = None,
    theta: float = 10_000.0,
    tied: bool = False,
) -> DecoderSpec:
    """The house's default architecture: RMSNorm, rotary positions, grouped heads, QK-norm, SwiGLU (Qwen3 2025).

    `hidden` defaults to 8/3 of the width, rounded up to a multiple of 64, which keeps the three SwiGLU matrices as
    large as the two of a plain feed-forward of four times the width (Shazeer 2020).
    """
    return DecoderSpec(
        vocab_size=vocab_size,
        context_length=context_length,
        d_model=d_model,
        layers=layers,
        tied=tied,
        blocks=(
            BlockSpec(
                mixer=AttentionSpec(
                    heads=heads,
                    kv_heads=kv_heads,
                    head_dim=head_dim,
                    rotary=RotarySpec(theta=theta),
                    qk_norm=RMSNormSpec(),
                ),
                feedforward=GatedMLPSpec(d_ff=d_ff or 64 * math.ceil(d_model * 8 / 3 / 64)),
            ),
        ),
    )


class Decoder(BuiltModel):
    """A causal language model; answers `core.protocols.LanguageModel`.

    Attributes:
        checkpointing: in training, keep only what goes into each block and work the rest out again on the way back
            (Chen et al. 2016): memory for one block's activations instead of L, for about a third more time.
        token_count: how many ids its tokenizer has, where the embedding is padded beyond them; inference never samples
            an id from there on. None where all rows are tokens.
    """

    def __init__(self, spec: DecoderSpec):
        super().__init__()
        self.spec = spec
        self.embed = _embedding(spec)
        positions = spec.positions
        self.position_embed = None if positions is None else positions.build(spec.context_length, spec.d_model)
        self.blocks = nn.ModuleList(spec.block(layer).build(spec.d_model, layer) for layer in range(spec.layers))
        self.norm = spec.norm.build(spec.d_model)
        self.unembed = _unembedding(spec)
        if spec.tied:
            self.unembed.weight = self.embed.weight
        self.checkpointing = False
        self.token_count: int | None = None

    @property
    def context_length(self) -> int:
        return self.spec.context_length

    def hidden_states(
        self,
        tokens: Int[Tensor, "B T"],
        *,
        cache: Cache | AttendingCache | None = None,
        positions: Int[Tensor, "#B T"] | None = None,
        rows: Tensor | slice | None = None,
    ) -> Tensor:
        """The normalised residual stream (B, T, D) before the unembedding.

        Args:
            rows: which of the T tokens it is wanted for; None means all. The last layer then works out nothing for the
                others but their keys and values, which spares a prompt three quarters of it.
        """
        ctx = ForwardContext(tokens, positions, cache)
        x_BTD = self.embed(tokens)
        if self.position_embed is not None:
            x_BTD = x_BTD + self.position_embed(ctx.positions_BT.clamp(min=0)).to(x_BTD.dtype)
        again = self.checkpointing and self.training and cache is None and torch.is_grad_enabled()
        *blocks, last = self.blocks
        for block in blocks:
            x_BTD = checkpoint(block, x_BTD, ctx, use_reentrant=False) if again else block(x_BTD, ctx)
        x_BTD = checkpoint(last, x_BTD, ctx, rows, use_reentrant=False) if again else last(x_BTD, ctx, rows)
        return self.norm(x_BTD)


def _embedding(spec: DecoderSpec) -> nn.Embedding:
    if spec.embed_scale is None:
        return nn.Embedding(spec.vocab_size, spec.d_model)
    return ScaledEmbedding(spec.vocab_size, spec.d_model, spec.embed_scale)


def _unembedding(spec: DecoderSpec) -> nn.Linear | SoftcappedLinear:
    if spec.logit_softcap is None:
        return nn.Linear(spec.d_model, spec.vocab_size, bias=False)
    return SoftcappedLinear(spec.d_model, spec.vocab_size, spec.logit_softcap)


@torch.no_grad()
def _initialize(model: Decoder, seed: int, embed_std: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    centred = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, ZeroCenteredRMSNorm)}
    own_rules: dict[str, Any] = {
        name: module.initial for name, module in model.named_modules() if hasattr(module, "initial")
    }
    for name, parameter in model.named_parameters():
        owner = next((owner for owner in own_rules if name.startswith(f"{owner}.")), None)
        fresh = None if owner is None else own_rules[owner](name.removeprefix(f"{owner}."), parameter, generator)
        post_norm = model.spec.block(int(name.split(".")[1])).post_norm if name.startswith("blocks.") else None
        if fresh is not None:
            parameter.copy_(fresh)
        elif name.startswith(("embed.", "position_embed.")):
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * embed_std)
        elif name.startswith("unembed.") or (name.endswith((".output.weight", ".down.weight")) and not post_norm):
            parameter.zero_()
        elif parameter.ndim == 2:
            bound = 0.5 * math.sqrt(3.0 / parameter.shape[1])
            parameter.copy_((torch.rand(parameter.shape, generator=generator) * 2 - 1) * bound)
        elif parameter.ndim == 1:
            scale = 0.0 if name.endswith((".bias", "_post_norm.weight")) else 1.0
            parameter.fill_(scale - 1.0 if name in centred else scale)
