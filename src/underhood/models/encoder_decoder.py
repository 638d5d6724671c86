"""The encoder–decoder Transformer (Vaswani et al. 2017): an encoder reads a source, a decoder writes given its output.

Both are stacks of the same blocks as a decoder-only model's, with other sublayers: the encoder's attention sees later
tokens too, the decoder's blocks have a second attention over the encoder's output.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from underhood.core.protocols import AttendingCache, Cache, LanguageModel
from underhood.core.state import StateSpec
from underhood.nn.attention import AttentionSpec
from underhood.nn.block import FeedForwardSpec, MixerSpec, SublayerBlockSpec, SublayerSpec
from underhood.nn.embedding import EmbeddingSum
from underhood.nn.feedforward import Activation, MLPSpec
from underhood.nn.forward_context import EncoderMemory, ForwardContext
from underhood.nn.norm import LayerNormSpec, NormSpec
from underhood.nn.positions import LearnedPositionSpec, PositionSpec, SinusoidalPositionSpec
from underhood.nn.relative_attention import RelativeAttentionSpec


@runtime_checkable
class SequenceToSequence(Protocol):
    """A model that writes a text given another."""

    def encode(self, source: Tensor, *, positions: Tensor | None = None) -> EncoderMemory:
        """Reads a batch of sources (B, S); −1 in `positions` marks padding."""
        ...

    def given(self, memory: EncoderMemory) -> LanguageModel:
        """The language model of what is written given a source, for samplers and losses."""
        ...


@dataclass(frozen=True, kw_only=True)
class EncoderDecoderSpec:
    """An encoder–decoder Transformer with one vocabulary for both sides.

    Attributes:
        vocab_size: V.
        context_length: the longest source and the longest target, in tokens.
        d_model: D, the residual stream.
        encoder, decoder: the blocks of each, from the first to the last.
        norm: of each stack's output, or None where the last block ends in one.
        tied: source embedding, target embedding and unembedding are one matrix.
        positions: vectors that are added to the embeddings by position, or None (for relative attention).
    """

    vocab_size: int
    context_length: int
    d_model: int
    encoder: tuple[SublayerBlockSpec, ...]
    decoder: tuple[SublayerBlockSpec, ...]
    norm: NormSpec | None = None
    tied: bool = True
    positions: PositionSpec | None = SinusoidalPositionSpec()

    @property
    def state_specs(self) -> tuple[StateSpec, ...]:
        """What the decoder's layers keep between passes."""
        mixers = (sublayer.mixer for block in self.decoder for sublayer in block.sublayers)
        return tuple(mixer.state_spec(self.d_model) for mixer in mixers if mixer is not None)

    def build(self) -> "EncoderDecoder":
        return EncoderDecoder(self)

    @torch.no_grad()
    def initialize(self, *, seed: int) -> "EncoderDecoder":
        """Fresh weights: matrices Xavier-uniform (Glorot & Bengio 2010), embeddings normal with variance 1 / D."""
        model, generator = self.build(), torch.Generator().manual_seed(seed)
        for name, parameter in model.named_parameters():
            if name.partition(".")[0].endswith("embed"):
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * self.d_model**-0.5)
            elif parameter.ndim == 2:
                bound = math.sqrt(6.0 / sum(parameter.shape))
                parameter.copy_((torch.rand(parameter.shape, generator=generator) * 2 - 1) * bound)
            else:
                parameter.fill_(0.0 if name.endswith(".bias") else 1.0)
        return model


def original_transformer(
    *,
    vocab_size: int,
    context_length: int,
    d_model: int = 512,
    layers: int = 6,
    heads: int = 8,
    d_ff: int = 2048,
    activation: Activation = "relu",
    norm: Literal["pre", "post"] = "post",
    positions: Literal["sinusoidal", "learned", "relative"] | None = "sinusoidal",
    clip: int = 16,
    tied: bool = True,
) -> EncoderDecoderSpec:
    """The Transformer of Vaswani et al. 2017, table 3 (base); with ``norm="pre"`` in the form of Xiong et al. 2020.

    Args:
        positions: sinusoidal or learned embeddings (table 3, row E), relative to the query (Shaw et al. 2018), or none.
        clip: where relative positions end.
        tied: both embeddings and the unembedding are one matrix (section 3.4).
    """
    layer_norm = LayerNormSpec()
    where = {"norm": layer_norm} if norm == "pre" else {"stream_norm": layer_norm}

    def self_attention(causal: bool) -> AttentionSpec | RelativeAttentionSpec:
        if positions == "relative":
            return RelativeAttentionSpec(heads=heads, clip=clip, bias=True, output_bias=True, causal=causal)
        return AttentionSpec(heads=heads, rotary=None, bias=True, output_bias=True, causal=causal)

    def block(*parts: tuple[str, MixerSpec | FeedForwardSpec]) -> SublayerBlockSpec:
        return SublayerBlockSpec(
            sublayers=tuple(SublayerSpec(name=name, layer=layer, **where) for name, layer in parts)
        )

    mlp = ("feedforward", MLPSpec(d_ff=d_ff, activation=activation))
    cross = AttentionSpec(heads=heads, rotary=None, bias=True, output_bias=True, causal=False, source="memory")
    encoder = block(("mixer", self_attention(causal=False)), mlp)
    decoder = block(("mixer", self_attention(causal=True)), ("cross", cross), mlp)
    added = {"sinusoidal": SinusoidalPositionSpec(), "learned": LearnedPositionSpec()}
    return EncoderDecoderSpec(
        vocab_size=vocab_size,
        context_length=context_length,
        d_model=d_model,
        encoder=(encoder,) * layers,
        decoder=(decoder,) * layers,
        norm=layer_norm if norm == "pre" else None,
        tied=tied,
        positions=added.get(positions or ""),
    )


class Stack(nn.Module):
    """Blocks one after the other, and a final norm if there is one."""

    def __init__(self, d_model: int, blocks: Sequence[SublayerBlockSpec], norm: NormSpec | None):
        super().__init__()
        mixers = [sum(sublayer.mixer is not None for sublayer in block.sublayers) for block in blocks]
        firsts = [sum(mixers[:index]) for index in range(len(blocks))]
        self.blocks = nn.ModuleList(block.build(d_model, first) for block, first in zip(blocks, firsts, strict=True))
        self.norm = nn.Identity() if norm is None else norm.build(d_model)

    def forward(self, x_BTD: Float[Tensor, "B T D"], ctx: ForwardContext) -> Float[Tensor, "B T D"]:
        for block in self.blocks:
            x_BTD = block(x_BTD, ctx)
        return self.norm(x_BTD)


class EncoderDecoder(nn.Module):
    """See `EncoderDecoderSpec`; answers `SequenceToSequence`."""

    def __init__(self, spec: EncoderDecoderSpec):
        super().__init__()
        self.spec = spec
        self.embed = nn.Embedding(spec.vocab_size, spec.d_model)
        self.target_embed = self.embed if spec.tied else nn.Embedding(spec.vocab_size, spec.d_model)
        self.position_embed, self.target_position_embed = (
            None if spec.positions is None else spec.positions.build(spec.context_length, spec.d_model)
            for _ in range(2)
        )
        self.source_sum, self.target_sum = EmbeddingSum(), EmbeddingSum()
        self.encoder = Stack(spec.d_model, spec.encoder, spec.norm)
        self.decoder = Stack(spec.d_model, spec.decoder, spec.norm)
        self.unembed = nn.Linear(spec.d_model, spec.vocab_size, bias=False)
        if spec.tied:
            self.unembed.weight = self.embed.weight

    def encode(self, source: Int[Tensor, "B S"], *, positions: Int[Tensor, "#B S"] | None = None) -> EncoderMemory:
        """See `SequenceToSequence`."""
        ctx = ForwardContext(source, positions, None)
        embedded_BSD = self._embedded(self.source_sum, self.embed, self.position_embed, source, ctx)
        return EncoderMemory(self.encoder(embedded_BSD, ctx), positions)

    def target_states(
        self,
        tokens: Int[Tensor, "B T"],
        memory: EncoderMemory,
        *,
        cache: Cache | AttendingCache | None = None,
        positions: Int[Tensor, "#B T"] | None = None,
    ) -> Float[Tensor, "B T D"]:
        """The decoder's output for each target token, which `unembed` turns into scores.

        Args:
            memory: of one source, of as many as there are rows, or of fewer, each for as many rows in turn.
        """
        ctx = ForwardContext(tokens, positions, cache, memory=memory)
        embed, position_embed = self.target_embed, self.target_position_embed
        return self.decoder(self._embedded(self.target_sum, embed, position_embed, tokens, ctx), ctx)

    def decode(
        self,
        tokens: Int[Tensor, "B T"],
        memory: EncoderMemory,
        *,
        cache: Cache | AttendingCache | None = None,
        positions: Int[Tensor, "#B T"] | None = None,
    ) -> Float[Tensor, "B T V"]:
        """Scores of the next target token after each of T (see `target_states`)."""
        return self.unembed(self.target_states(tokens, memory, cache=cache, positions=positions))

    def forward(self, source: Int[Tensor, "B S"], target: Int[Tensor, "B T"]) -> Float[Tensor, "B T V"]:
        """Scores of the next target token after each of T, given the source."""
        return self.decode(target, self.encode(source))

    def given(self, memory: EncoderMemory) -> "ConditionedModel":
        """See `SequenceToSequence`."""
        return ConditionedModel(self, memory)

    def _embedded(
        self, add: nn.Module, table: nn.Module, positions: nn.Module | None, tokens: Tensor, ctx: ForwardContext
    ) -> Tensor:
        scaled_BTD = table(tokens) * math.sqrt(self.spec.d_model)
        return add(scaled_BTD, None if positions is None else positions(ctx.positions_BT.clamp(min=0)))


class ConditionedModel:
    """An encoder–decoder with its sources fixed: a `LanguageModel` of the target.

    Its memory has the rows of a batch, one row for a batch of any size, or one row for as many of the batch in turn.
    """

    def __init__(self, model: EncoderDecoder, memory: EncoderMemory):
        self.model, self.memory = model, memory
        self.vocab_size, self.context_length = model.spec.vocab_size, model.spec.context_length
        self.state_specs = model.spec.state_specs
        self._sources: list[int] = [*range(len(memory.states_BSD))]  # of the memory, for each row of the batch

    def select_rows(self, rows: Sequence[int]) -> None:
        """Goes on with these rows of the batch, in this order; a row may be named twice (see `SequenceRunner`)."""
        if len(self.memory.states_BSD) == 1:
            return
        sources = [self._sources[row] for row in rows]
        kept = [source for at, source in enumerate(sources) if at == 0 or source != sources[at - 1]]
        per_source = len(sources) // len(kept)
        if [source for source in kept for _ in range(per_source)] != sources:  # not as many rows for each
            kept, per_source = sources, 1
        if kept != [*range(len(self.memory.states_BSD))]:
            self.memory = self.memory.select(kept)
        self._sources = [number for number in range(len(kept)) for _ in range(per_source)]

    def __call__(
        self, tokens_BT: Tensor, *, cache: Cache | AttendingCache | None = None, positions: Tensor | None = None
    ) -> Tensor:
        return self.model.decode(tokens_BT, self.memory, cache=cache, positions=positions)
