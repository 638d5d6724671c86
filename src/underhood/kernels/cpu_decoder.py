"""Forward pass of a decoder over few tokens on a CPU, as compiled kernels: what decoding is made of.

It computes what the model's own forward pass computes. That one serves any number of tokens, gradients and every
device, and allocates each intermediate result. Here a layer is two compiled calls (`kernels.decode_branches`), so
almost no time passes between two matrix products, and each takes as long as reading its weights (`kernels.matmul`).
Layers that these calls do not know go kernel by kernel, over one workspace.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from underhood.kernels import elementwise, jit
from underhood.kernels.adaptive_threads import AdaptiveThreads
from underhood.kernels.block_linear import BlockEmbedding
from underhood.kernels.block_matmul import widen_rows
from underhood.kernels.decode_branches import attention_branch, mlp_branch
from underhood.kernels.decode_layers import (
    Buffer,
    DecodeLinear,
    DecodeNorm,
    UnsupportedModule,
    Workspace,
    branch_of,
    norm_arguments,
)
from underhood.kernels.elementwise import array
from underhood.kernels.fused_layers import FusedAttention, FusedGatedMLP
from underhood.kernels.paged_attention import BlockTable, Memory, fits_one_thread, paged_attention, score_arguments
from underhood.nn.block import Block
from underhood.nn.feedforward import MLP
from underhood.nn.forward_context import ForwardContext
from underhood.nn.rope import RotarySpec

_NONE = np.empty(0, dtype=np.float32)


class PagedCacheLike(Protocol):
    """A KV cache that tells where its sequences are stored, the new tokens included."""

    def places(self, window: int | None) -> BlockTable:
        """What each new token attends to through a window, itself last; None means all."""
        ...

    def memory(self, layer: int) -> tuple[Memory, Memory]:
        """The keys and values of a layer."""
        ...


class DecoderParts(Protocol):
    """What a decoder-only Transformer is made of."""

    embed: Any  # nn.Embedding, or what looks rows up in another way
    position_embed: nn.Module | None
    blocks: nn.ModuleList
    norm: nn.Module
    unembed: nn.Module


class CpuDecoder:
    """Forward pass over few tokens by compiled kernels, for a decoder whose layers are fused (see `fused_layers`).

    It owns its workspace, so one thread at a time may call it.

    Raises:
        UnsupportedModule: the model has a module that has no compiled kernel.
    """

    def __init__(self, model: DecoderParts):
        self._embed = _lookup(model.embed)
        self._position_embed = model.position_embed
        self._layers = [_Layer(number, block) for number, block in enumerate(model.blocks)]
        self._norm = DecodeNorm(model.norm)
        self._unembed = DecodeLinear(model.unembed)
        self._width = model.embed.embedding_dim
        self._threads = AdaptiveThreads()
        self._workspaces: dict[int, Workspace] = {}
        self._memory: dict[tuple[str, int], Tensor] = {}  # for any number of tokens, one pass at a time

    @torch.inference_mode()
    def __call__(
        self, tokens: Sequence[int], positions: Sequence[int], cache: PagedCacheLike, rows: Sequence[int] | None = None
    ) -> Tensor:
        """Logits (N, V) after each of at most `DECODE_BATCH_MAX` tokens, or only after those at `rows`."""
        with self._threads.measured(len(tokens)):
            return self._read(tokens, positions, cache, rows)

    def _read(
        self, tokens: Sequence[int], positions: Sequence[int], cache: PagedCacheLike, rows: Sequence[int] | None
    ) -> Tensor:
        count = len(tokens)
        workspace = self._workspaces.get(count) or self._workspaces.setdefault(count, Workspace(count, self._memory))
        x = workspace.buffer("x", self._width)
        self._embed(tokens, x)
        if self._position_embed is not None:
            elementwise.add_rows(self._position_embed(torch.tensor(positions)).numpy(), x.array)
        ctx = _PassContext(positions, cache)
        for layer in self._layers:
            layer(x, workspace, ctx)
        normed = self._norm(x, workspace.buffer("normed", self._width))
        if rows is not None:
            some_ND = normed.tensor[[*rows]]
            normed = Buffer(some_ND, some_ND.numpy())
        scores_NV = torch.empty(len(normed.tensor), self._unembed.outputs)
        self._unembed.into(normed, Buffer(scores_NV, scores_NV.numpy()))
        return scores_NV


def _lookup(embed: Any) -> Callable[[Sequence[int], Buffer], None]:
    """Writes the vectors of tokens."""
    if isinstance(embed, BlockEmbedding):
        weights, factor = embed.table.block_weights(), np.float32(embed.scale)
        return lambda tokens, x: widen_rows(*weights[:3], np.array(tokens), factor, x.array)
    if embed.weight.device.type != "cpu" or embed.weight.dtype != torch.float32:
        raise UnsupportedModule("weights that are not in float32 on a CPU")
    table_VD, scale = embed.weight.detach().numpy(), np.float32(getattr(embed, "scale", 1.0))
    return lambda tokens, x: elementwise.gather_rows(table_VD, np.array(tokens), scale, x.array)


class _PassContext:
    """Block tables and rotary angles that the layers of a pass share."""

    def __init__(self, positions: Sequence[int], cache: PagedCacheLike):
        self.cache = cache
        self._positions_N1 = np.array(positions, dtype=np.float32)[:, None]
        self._places: dict[int | None, BlockTable] = {}
        self._block_tables: dict[tuple[int | None, int], tuple[tuple[np.ndarray, ...], bool]] = {}
        self._angles: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def places(self, window: int | None) -> BlockTable:
        if window not in self._places:
            self._places[window] = self.cache.places(window)
        return self._places[window]

    def block_table(self, window: int | None, heads: int, head_dim: int) -> tuple[tuple[np.ndarray, ...], bool]:
        """`places` as a plain tuple, and whether one thread computes the attention."""
        key = (window, heads * head_dim)
        if key not in self._block_tables:
            places = self.places(window)
            self._block_tables[key] = tuple(places), fits_one_thread(places, heads, head_dim)
        return self._block_tables[key]

    def angles(self, frequencies: "_Frequencies") -> tuple[np.ndarray, np.ndarray]:
        """Cosines and sines (N, R)."""
        key = id(frequencies)
        if key not in self._angles:
            angles_NR = self._positions_N1 * frequencies.array_R
            self._angles[key] = (np.cos(angles_NR) * frequencies.amplitude, np.sin(angles_NR) * frequencies.amplitude)
        return self._angles[key]


class _Layer:
    """A Transformer block: adds to the residual stream x, in place."""

    def __init__(self, number: int, block: Any):
        kind = type(block)
        usual = kind is Block and [sublayer.name for sublayer in block.sublayers] == ["mixer", "feedforward"]
        if not usual or not isinstance(block.mixer, FusedAttention) or _has_stream_norm(block):
            raise UnsupportedModule(kind.__name__)
        self.mixer_norm, self.feed_norm = DecodeNorm(block.mixer_norm), DecodeNorm(block.feedforward_norm)
        self.mixer_post = None if block.mixer_post_norm is None else DecodeNorm(block.mixer_post_norm)
        self.feed_post = None if block.feedforward_post_norm is None else DecodeNorm(block.feedforward_post_norm)
        self.mixer = _Attention(number, block.mixer)
        feed = block.feedforward
        known = isinstance(feed, (FusedGatedMLP, MLP))
        self.feed = _FeedForward(feed) if known else _UnfusedFeedForward(feed, self.mixer.qkv.inputs)

    def __call__(self, x: Buffer, workspace: Workspace, ctx: _PassContext) -> None:
        if not self.mixer.add_branch(x, self.mixer_norm, self.mixer_post, ctx):
            normed = self.mixer_norm(x, workspace.buffer("normed", self.mixer.qkv.inputs))
            self._add(self.mixer(normed, workspace, ctx), self.mixer_post, x)
        if not self.feed.add_branch(x, self.feed_norm, self.feed_post):
            normed = self.feed_norm(x, workspace.buffer("normed", self.feed.inputs))
            self._add(self.feed(normed, workspace), self.feed_post, x)

    @staticmethod
    def _add(branch_ND: np.ndarray, norm: DecodeNorm | None, x: Buffer) -> None:
        if norm is not None:
            norm.apply(branch_ND, branch_ND)
        elementwise.add_rows(branch_ND, x.array)


def _has_stream_norm(block: Any) -> bool:
    return any(getattr(block, f"{sublayer.name}_stream_norm") is not None for sublayer in block.sublayers)


class _FeedForward:
    """A gated MLP or a plain one."""

    def __init__(self, feed: FusedGatedMLP | MLP):
        self.gated = isinstance(feed, FusedGatedMLP)
        self.up = DecodeLinear(feed.gate_up if isinstance(feed, FusedGatedMLP) else feed.up)
        self.down = DecodeLinear(feed.down)
        self.activation = elementwise.ACTIVATIONS[feed.spec.activation]
        self.inputs = self.up.inputs
        self.branch = branch_of(self.up, self.down)

    def add_branch(self, x: Buffer, norm: DecodeNorm, post: DecodeNorm | None) -> bool:
        """Norm, MLP and addition to x as one kernel; False where they have to be several."""
        if self.branch is None or len(x.array) > self.branch.batch_max:
            return False
        up, down = self.branch.layers
        activation = (self.gated, *self.activation)
        jit.run_parallel(mlp_branch, x.array, norm.arguments, up, activation, down, norm_arguments(post))
        return True

    def __call__(self, normed: Buffer, workspace: Workspace) -> np.ndarray:
        hidden = workspace.buffer("hidden", self.down.inputs)
        elementwise.activate(self.up(normed, workspace), self.gated, *self.activation, hidden.array)
        return self.down(hidden, workspace)


class _UnfusedFeedForward:
    """Any other feed-forward (a mixture of experts, for instance), by its own `forward`."""

    def __init__(self, feed: nn.Module, inputs: int):
        self.feed, self.inputs = feed, inputs

    def add_branch(self, *_: Any) -> bool:
        """False: there is no kernel."""
        return False

    def __call__(self, normed: Buffer, workspace: Workspace) -> np.ndarray:
        alone = ForwardContext(torch.zeros(1, workspace.count, dtype=torch.long), None, None)
        return array(self.feed(normed.tensor[None], alone)[0])


class _Attention:
    """Attention of the new tokens."""

    def __init__(self, number: int, attention: FusedAttention):
        self.number, self.spec = number, attention.spec
        self.qkv, self.output = DecodeLinear(attention.qkv), DecodeLinear(attention.output)
        self.heads, self.groups, self.head_dim = attention.spec.heads, attention.spec.groups, attention.head_dim
        norm = attention.head_norm()
        if norm is None:
            raise UnsupportedModule(type(attention.query_norm).__name__)
        self.norm = norm
        self.frequencies = _frequencies(attention.spec.rotary, attention.head_dim)
        self.branch = branch_of(self.qkv, self.output)
        self.scores = score_arguments(self.spec.scale, self.spec.softcap, self.head_dim)

    def add_branch(self, x: Buffer, norm: DecodeNorm, post: DecodeNorm | None, ctx: _PassContext) -> bool:
        """Norm, attention and addition to x as one kernel; False where they have to be several."""
        if self.branch is None or len(x.array) > self.branch.batch_max:
            return False
        qkv, output = self.branch.layers
        keys, values = ctx.cache.memory(self.number)
        block_table, alone = ctx.block_table(self.spec.window, self.heads, self.head_dim)
        jit.run_parallel(
            attention_branch,
            x.array,
            norm.arguments,
            qkv,
            (self.heads, self.groups, self.head_dim),
            tuple(self.norm),
            ctx.angles(self.frequencies),
            (*keys, *values),
            block_table,
            self.scores,
            alone,
            output,
            norm_arguments(post),
        )
        return True

    def __call__(self, normed: Buffer, workspace: Workspace, ctx: _PassContext) -> np.ndarray:
        qkv_NX = self.qkv(normed, workspace)
        rotated = workspace.buffer("rotated", qkv_NX.shape[1]).array
        heads, groups, head_dim = self.heads, self.groups, self.head_dim
        angles = ctx.angles(self.frequencies)
        elementwise.norm_and_rotate(0, workspace.count, qkv_NX, heads, groups, head_dim, *self.norm, *angles, rotated)
        heads_NHK = rotated.reshape(workspace.count, heads + 2 * groups, head_dim)
        new = (heads_NHK[:, :heads], heads_NHK[:, heads : heads + groups], heads_NHK[:, heads + groups :])
        attended = workspace.buffer("attended", self.output.inputs)
        paged_attention(
            new,
            *ctx.cache.memory(self.number),
            ctx.places(self.spec.window),
            attended.array.reshape(workspace.count, heads, head_dim),
            scale=self.spec.scale,
            softcap=self.spec.softcap,
        )
        return self.output(attended, workspace)


class _Frequencies(NamedTuple):
    """Rotary frequencies (empty without rotation) and the amplitude of cosines and sines."""

    array_R: np.ndarray
    amplitude: np.float32


@lru_cache(maxsize=64)
def _frequencies(rotary: RotarySpec | None, width: int) -> _Frequencies:
    """One object for all layers with the same rotation, so that a pass computes its angles once."""
    if rotary is None:
        return _Frequencies(_NONE, np.float32(1.0))
    amplitude = 1.0 if rotary.scaling is None else rotary.scaling.amplitude
    return _Frequencies(rotary.frequencies(width, torch.device("cpu")).numpy(), np.float32(amplitude))
