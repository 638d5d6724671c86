"""Forward pass of a decoder over few tokens on a CPU, as compiled kernels: what decoding is made of.

It computes what the model's own forward pass computes. That one serves any number of tokens, gradients and every
device, and allocates each intermediate result. Here all results stay in one workspace, so almost no time passes between
two matrix products (`kernels.elementwise`), and each product takes as long as reading its weights (`kernels.matmul`).
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
from underhood.kernels.elementwise import array
from underhood.kernels.fused_layers import FinalRMSNorm, FusedAttention, FusedGatedMLP, UnitRMSNorm, scale_of
from underhood.kernels.matmul import Weights, multiply
from underhood.kernels.paged_attention import BlockTable, Memory, paged_attention
from underhood.kernels.small_batch_linear import MATMUL_BATCH_MAX, SmallBatchLinear
from underhood.kernels.weight_only_linear import Product, WeightOnlyLinear
from underhood.nn.block import Block
from underhood.nn.feedforward import MLP
from underhood.nn.forward_context import ForwardContext
from underhood.nn.norm import RMSNorm
from underhood.nn.rope import RotarySpec
from underhood.nn.zero_centered_norm import ZeroCenteredRMSNorm

DECODE_BATCH_MAX = 64
"""Largest batch of tokens for which these kernels are faster than a tensor library's."""

_NONE = np.empty(0, dtype=np.float32)


class UnsupportedModule(Exception):
    """A module of the model has no compiled kernel; the model's own forward pass has to do."""


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
    position_embed: nn.Embedding | None
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
        learned = model.position_embed
        self._positions_CD = None if learned is None else learned.weight.detach().numpy()
        self._layers = [_Layer(number, block) for number, block in enumerate(model.blocks)]
        self._norm = _Norm(model.norm)
        self._unembed = _Linear(model.unembed)
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
        if self._positions_CD is not None:
            elementwise.add_rows(self._positions_CD[list(positions)], x.array)
        ctx = _PassContext(positions, cache)
        for layer in self._layers:
            layer(x, workspace, ctx)
        normed = self._norm(x, workspace.buffer("normed", self._width))
        if rows is not None:
            some_ND = normed.tensor[[*rows]]
            normed = _Buffer(some_ND, some_ND.numpy())
        scores_NV = torch.empty(len(normed.tensor), self._unembed.outputs)
        self._unembed.into(normed, _Buffer(scores_NV, scores_NV.numpy()))
        return scores_NV


class _Buffer(NamedTuple):
    """The same memory as tensor and as array; converting one to the other would take longer than most kernels."""

    tensor: Tensor
    array: np.ndarray


def _lookup(embed: Any) -> Callable[[Sequence[int], _Buffer], None]:
    """Writes the vectors of tokens."""
    if isinstance(embed, BlockEmbedding):

        def widen(tokens: Sequence[int], x: _Buffer) -> None:
            x.tensor.copy_(embed(torch.tensor(tokens)))

        return widen
    if embed.weight.device.type != "cpu" or embed.weight.dtype != torch.float32:
        raise UnsupportedModule("weights that are not in float32 on a CPU")
    table_VD, scale = embed.weight.detach().numpy(), np.float32(getattr(embed, "scale", 1.0))
    return lambda tokens, x: elementwise.gather_rows(table_VD, np.array(tokens), scale, x.array)


class Workspace:
    """Preallocated memory for the results of a pass over `count` tokens."""

    def __init__(self, count: int, memory: dict[tuple[str, int], Tensor]):
        self.count, self._memory = count, memory
        self._buffers: dict[tuple[str, int], _Buffer] = {}

    def buffer(self, name: str, width: int) -> _Buffer:
        key = (name, width)
        known = self._buffers.get(key)
        if known is None:
            if key not in self._memory:
                self._memory[key] = torch.empty(DECODE_BATCH_MAX * width)
            tensor = self._memory[key][: self.count * width].view(self.count, width)
            known = self._buffers[key] = _Buffer(tensor, array(tensor))
        return known


class _PassContext:
    """Block tables and rotary angles that the layers of a pass share."""

    def __init__(self, positions: Sequence[int], cache: PagedCacheLike):
        self.cache = cache
        self._positions_N1 = np.array(positions, dtype=np.float32)[:, None]
        self._places: dict[int | None, BlockTable] = {}
        self._angles: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def places(self, window: int | None) -> BlockTable:
        if window not in self._places:
            self._places[window] = self.cache.places(window)
        return self._places[window]

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
        self.mixer_norm, self.feed_norm = _Norm(block.mixer_norm), _Norm(block.feedforward_norm)
        self.mixer_post = None if block.mixer_post_norm is None else _Norm(block.mixer_post_norm)
        self.feed_post = None if block.feedforward_post_norm is None else _Norm(block.feedforward_post_norm)
        self.mixer = _Attention(number, block.mixer)
        feed = block.feedforward
        known = isinstance(feed, (FusedGatedMLP, MLP))
        self.feed = _FeedForward(feed) if known else _UnfusedFeedForward(feed, self.mixer.qkv.inputs)

    def __call__(self, x: _Buffer, workspace: Workspace, ctx: _PassContext) -> None:
        normed = self.mixer_norm(x, workspace.buffer("normed", self.mixer.qkv.inputs))
        self._add(self.mixer(normed, workspace, ctx), self.mixer_post, x)
        normed = self.feed_norm(x, workspace.buffer("normed", self.feed.inputs))
        self._add(self.feed(normed, workspace), self.feed_post, x)

    @staticmethod
    def _add(branch_ND: np.ndarray, norm: "_Norm | None", x: _Buffer) -> None:
        if norm is not None:
            norm.apply(branch_ND, branch_ND)
        elementwise.add_rows(branch_ND, x.array)


def _has_stream_norm(block: Any) -> bool:
    return any(getattr(block, f"{sublayer.name}_stream_norm") is not None for sublayer in block.sublayers)


class _FeedForward:
    """A gated MLP or a plain one."""

    def __init__(self, feed: FusedGatedMLP | MLP):
        self.gated = isinstance(feed, FusedGatedMLP)
        self.up = _Linear(feed.gate_up if isinstance(feed, FusedGatedMLP) else feed.up)
        self.down = _Linear(feed.down)
        self.activation = elementwise.ACTIVATIONS[feed.spec.activation]
        self.inputs = self.up.inputs

    def __call__(self, normed: _Buffer, workspace: Workspace) -> np.ndarray:
        hidden = workspace.buffer("hidden", self.down.inputs)
        elementwise.activate(self.up(normed, workspace), self.gated, *self.activation, hidden.array)
        return self.down(hidden, workspace)


class _UnfusedFeedForward:
    """Any other feed-forward (a mixture of experts, for instance), by its own `forward`."""

    def __init__(self, feed: nn.Module, inputs: int):
        self.feed, self.inputs = feed, inputs

    def __call__(self, normed: _Buffer, workspace: Workspace) -> np.ndarray:
        alone = ForwardContext(torch.zeros(1, workspace.count, dtype=torch.long), None, None)
        return array(self.feed(normed.tensor[None], alone)[0])


class _Attention:
    """Attention of the new tokens."""

    def __init__(self, number: int, attention: FusedAttention):
        self.number, self.spec = number, attention.spec
        self.qkv, self.output = _Linear(attention.qkv), _Linear(attention.output)
        self.heads, self.groups, self.head_dim = attention.spec.heads, attention.spec.groups, attention.head_dim
        norm = attention.head_norm()
        if norm is None:
            raise UnsupportedModule(type(attention.query_norm).__name__)
        self.norm = norm
        self.frequencies = _frequencies(attention.spec.rotary, attention.head_dim)

    def __call__(self, normed: _Buffer, workspace: Workspace, ctx: _PassContext) -> np.ndarray:
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


class _Norm:
    """RMSNorm, LayerNorm or no norm."""

    def __init__(self, norm: nn.Module):
        self.centre, self.scale_D, self.shift_D, eps = False, _NONE, _NONE, 0.0
        self.idle = isinstance(norm, nn.Identity)
        if isinstance(norm, (UnitRMSNorm, FinalRMSNorm)):
            eps = norm.eps
            self.scale_D = norm.scale.numpy() if isinstance(norm, FinalRMSNorm) else _NONE
        elif isinstance(norm, (RMSNorm, ZeroCenteredRMSNorm)):
            scale_D, eps = scale_of(norm), norm.spec.eps
            self.scale_D = _NONE if scale_D is None else scale_D.numpy()
        elif isinstance(norm, nn.LayerNorm):
            self.centre, eps = True, norm.eps
            self.scale_D = norm.weight.detach().float().numpy()
            self.shift_D = _NONE if norm.bias is None else norm.bias.detach().float().numpy()
        elif not self.idle:
            raise UnsupportedModule(type(norm).__name__)
        self.eps = np.float32(eps)

    def __call__(self, x: _Buffer, y: _Buffer) -> _Buffer:
        self.apply(x.array, y.array)
        return y

    def apply(self, x_ND: np.ndarray, y_ND: np.ndarray) -> None:
        if self.idle:
            elementwise.copy(x_ND, y_ND)
        else:
            elementwise.normalize(x_ND, self.centre, self.scale_D, self.shift_D, self.eps, y_ND)


class _Linear:
    """A linear layer, quantised or not."""

    def __init__(self, layer: nn.Module):
        self.layer = layer
        self.inputs, self.outputs = int(layer.in_features), int(layer.out_features)  # type: ignore[arg-type]
        self.product: Product | None = None
        self.batch_max = 0
        if isinstance(layer, WeightOnlyLinear):
            self.product, self.batch_max = layer.product(), DECODE_BATCH_MAX
        elif type(layer) in (SmallBatchLinear, nn.Linear) and jit.runs_compiled(weight_OI := layer.weight.detach()):  # type: ignore[operator]
            self.product, self.batch_max = _float_product(weight_OI, layer.bias), MATMUL_BATCH_MAX  # type: ignore[arg-type]

    def __call__(self, x: _Buffer, workspace: Workspace) -> np.ndarray:
        y = workspace.buffer("product", self.outputs)
        self.into(x, y)
        return y.array

    def into(self, x: _Buffer, y: _Buffer) -> None:
        if self.product is not None and len(x.array) <= self.batch_max:
            self.product(x.array, y.array)
        else:
            y.tensor.copy_(self.layer(x.tensor))


def _float_product(weight_OI: Tensor, bias: Tensor | None) -> Product:
    weights, bias_O = Weights(weight_OI.contiguous().numpy()), None if bias is None else bias.detach().numpy()
    return lambda x_NI, y_NO: multiply(weights, x_NI, bias_O, y_NO)
