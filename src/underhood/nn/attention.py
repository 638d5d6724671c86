"""Attention with grouped key-value heads: causal or bidirectional, over the tokens themselves or an encoder's output.

One module covers the line from multi-head attention (Vaswani et al. 2017: G = H) through multi-query (Shazeer 2019:
G = 1) to grouped-query attention (Ainslie et al. 2023), with the parts that today's models add to it: rotary positions,
normalised queries and keys (Henry et al. 2020; Dehghani et al. 2023), a sliding window (Beltagy et al. 2020).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from underhood.core.errors import UserError
from underhood.core.state import NO_STATE, StateSpec
from underhood.nn.forward_context import ForwardContext, MaskRule
from underhood.nn.norm import NormSpec
from underhood.nn.packed_attention import attend_documents
from underhood.nn.rope import RotarySpec, rotate
from underhood.nn.softcap import apply_softcap


@dataclass(frozen=True, kw_only=True)
class AttentionSpec:
    """Grouped-query attention.

    Attributes:
        heads: query heads H.
        kv_heads: key-value heads G; H is a multiple of it. None means G = H.
        head_dim: K; None means d_model / H.
        rotary: rotary positions, or None for none.
        qk_norm: normalises each query and key head before the rotation (as Qwen3 does), or None.
        window: a token sees itself and the window − 1 tokens before it; None sees all.
        bias: biases on the query, key and value projections (as Qwen2 has them).
        output_bias: bias on the output projection (as GPT-2 has it).
        qk_norm_whole: normalises all query heads together, and all key heads (as OLMo 2 does), not each alone.
        scale: what the scores are multiplied by; None means 1 / sqrt(K).
        softcap: presses the scores softly into ±cap before the softmax (as Gemma 2 does), or None.
        causal: a token sees itself and those before it; otherwise later ones too, as in an encoder.
        source: what is attended to: the tokens themselves, or an encoder's output (cross-attention).
    """

    heads: int
    kv_heads: int | None = None
    head_dim: int | None = None
    rotary: RotarySpec | None = RotarySpec()
    qk_norm: NormSpec | None = None
    window: int | None = None
    bias: bool = False
    output_bias: bool = False
    qk_norm_whole: bool = False
    scale: float | None = None
    softcap: float | None = None
    causal: bool = True
    source: Literal["self", "memory"] = "self"

    def __post_init__(self):
        if self.source == "memory" and (self.rotary is not None or self.window is not None):
            raise ValueError("cross-attention takes neither rotary positions nor a window")
        if self.heads < 1 or self.heads % self.groups:
            raise ValueError(f"heads must be a multiple of kv_heads, got {self.heads} and {self.groups}")

    @property
    def groups(self) -> int:
        return self.kv_heads or self.heads

    def head_dim_for(self, d_model: int) -> int:
        if self.head_dim is None and d_model % self.heads:
            raise ValueError(f"d_model must be a multiple of heads, got {d_model} and {self.heads}")
        return self.head_dim or d_model // self.heads

    def state_spec(self, d_model: int) -> StateSpec:
        """Keys and values; nothing of a memory, which keeps its own."""
        if self.source == "memory":
            return NO_STATE
        head = (self.groups, self.head_dim_for(d_model))
        return StateSpec(vectors=(head, head), window=self.window)

    def flops(self, d_model: int, context: int) -> float:
        """Of scores and weighted sums, per token; causal order leaves half of the positions visible on average."""
        return 2.0 * self.heads * self.head_dim_for(d_model) * context

    def facts(self, d_model: int) -> dict[str, str]:
        """The spec in words."""
        shared = "" if self.groups == self.heads else f", sharing {self.groups} key–value head"
        shared += "s" if shared and self.groups > 1 else ""
        facts = {"Attention": f"{self.heads} heads of {self.head_dim_for(d_model)}{shared}"}
        facts = {"Cross-attention": facts["Attention"]} if self.source == "memory" else facts
        marks = [("rotary positions", self.rotary), ("normalised queries and keys", self.qk_norm)]
        inside = ", ".join(words for words, value in marks if value is not None)
        return facts | ({"In attention": inside} if inside else {})

    def build(self, d_model: int, layer: int) -> "Attention":
        """The module of layer number `layer` (its place in the cache) for a residual stream of `d_model`."""
        return Attention(d_model, layer, self)


def attention_of(mixer: object) -> AttentionSpec | None:
    """A mixer's spec as that of causal self-attention, the only kind that other programs' formats know; else None."""
    if isinstance(mixer, AttentionSpec) and mixer.causal and mixer.source == "self":
        return mixer
    return None


class Attention(nn.Module):
    """``softmax(q kᵀ / sqrt(K)) v`` over the visible tokens, H heads sharing G key-value heads."""

    def __init__(self, d_model: int, layer: int, spec: AttentionSpec):
        super().__init__()
        self.spec, self.layer = spec, layer
        self.head_dim = spec.head_dim_for(d_model)
        inner, shared = spec.heads * self.head_dim, spec.groups * self.head_dim
        self.query = nn.Linear(d_model, inner, bias=spec.bias)
        self.key = nn.Linear(d_model, shared, bias=spec.bias)
        self.value = nn.Linear(d_model, shared, bias=spec.bias)
        self.output = nn.Linear(inner, d_model, bias=spec.output_bias)
        normed = (inner, shared) if spec.qk_norm_whole else (self.head_dim, self.head_dim)
        self.query_norm = spec.qk_norm.build(normed[0]) if spec.qk_norm else None
        self.key_norm = spec.qk_norm.build(normed[1]) if spec.qk_norm else None
        self.query_rotary, self.key_rotary = Rotary(), Rotary()
        self.weights = AttentionWeights()

    @property
    def fusable(self) -> bool:
        """Whether queries, keys and values come from the same tokens and see no later ones, as kernels assume."""
        return self.spec.source == "self" and self.spec.causal

    def forward(self, x_BTD: Float[Tensor, "B T D"], ctx: ForwardContext, rows: Tensor | slice | None = None) -> Tensor:
        """What each token (B, T, D) takes from those before it; with `rows` only what those of the T tokens take."""
        y_BHTK = self.attend(*self.project(x_BTD, ctx), ctx)
        if rows is not None:
            y_BHTK = y_BHTK[:, :, rows]
        return self.output(y_BHTK.transpose(1, 2).flatten(2))

    def project(self, x_BTD: Tensor, ctx: ForwardContext) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, H, T, K), keys and values (B, G, T, K) of the new tokens, normalised and rotated."""
        q_BHTK = self._heads(self.query(x_BTD), self.query_norm)
        if self.spec.source == "memory":
            memory = ctx.memory
            assert memory is not None, "cross-attention needs a memory in the forward context"
            return q_BHTK, *memory.once(self.layer, lambda: self._keys_and_values(memory.states_BSD))
        k_BGTK, v_BGTK = self._keys_and_values(x_BTD)
        if self.spec.rotary is not None:
            tables = self.spec.rotary.tables(ctx, self.head_dim, q_BHTK.dtype)
            q_BHTK, k_BGTK = self.query_rotary(q_BHTK, tables), self.key_rotary(k_BGTK, tables)
        return q_BHTK, k_BGTK, v_BGTK

    def _keys_and_values(self, x_BSD: Tensor) -> tuple[Tensor, Tensor]:
        return self._heads(self.key(x_BSD), self.key_norm), self._heads(self.value(x_BSD), None)

    def _heads(self, x: Tensor, norm: nn.Module | None) -> Tensor:
        if norm is not None and self.spec.qk_norm_whole:
            x, norm = norm(x), None
        x = x.unflatten(-1, (-1, self.head_dim))
        return (x if norm is None else norm(x)).transpose(1, 2)

    def attend(self, q_BHTK: Tensor, k_BGTK: Tensor, v_BGTK: Tensor, ctx: ForwardContext) -> Tensor:
        """What the new tokens' queries read (B, H, T, K) from all keys, those in the cache included."""
        spec = self.spec
        if spec.source == "memory":
            return self._read_memory(q_BHTK, k_BGTK, v_BGTK, ctx)
        if ctx.cached and not spec.causal:
            raise UserError("attention to later tokens can't use a cache", fix="Read whole texts")
        if ctx.attending is not None:
            rules = {"scale": spec.scale, "window": spec.window, "softcap": spec.softcap}
            return ctx.attending.attend(self.layer, q_BHTK, k_BGTK, v_BGTK, **rules)
        if ctx.cache is not None:
            k_BGTK, v_BGTK = ctx.cache.update(self.layer, k_BGTK, v_BGTK)
        rule = MaskRule(causal=spec.causal, window=spec.window)
        written_out = spec.softcap is not None or self.weights.wanted
        causal = not written_out and ctx.causal_only(rule)
        documents = None if written_out or causal else ctx.documents(rule)
        if documents is not None:
            return attend_documents(q_BHTK, k_BGTK, v_BGTK, documents, scale=spec.scale)
        mask = None if causal else ctx.mask(rule)
        weights = self.weights if self.weights.wanted else None
        return attend(
            q_BHTK, k_BGTK, v_BGTK, mask, causal=causal, scale=spec.scale, softcap=spec.softcap, weights=weights
        )

    def _read_memory(self, q_BHTK: Tensor, k_MGSK: Tensor, v_MGSK: Tensor, ctx: ForwardContext) -> Tensor:
        """What queries take from the encoder's output of M sources (cross-attention).

        Where several rows read one source (beams), their queries go through the product as if they were more tokens of
        one row: no order holds among them, and nothing has to be copied.
        """
        assert ctx.memory is not None
        spec, mask, per_source = self.spec, ctx.memory.mask, len(q_BHTK) // len(k_MGSK)
        weights = self.weights if self.weights.wanted else None
        if weights is not None and per_source > 1:  # hooks see a row of weights for each row of the batch
            k_MGSK, v_MGSK = (x.repeat_interleave(per_source, 0) for x in (k_MGSK, v_MGSK))
            mask = None if mask is None else mask.repeat_interleave(per_source, 0)
            per_source = 1
        if per_source > 1:
            q_BHTK = q_BHTK.unflatten(0, (-1, per_source)).transpose(1, 2).flatten(2, 3)
        y_BHTK = attend(q_BHTK, k_MGSK, v_MGSK, mask, scale=spec.scale, softcap=spec.softcap, weights=weights)
        if per_source > 1:
            y_BHTK = y_BHTK.unflatten(2, (per_source, -1)).transpose(1, 2).flatten(0, 1)
        return y_BHTK


class Rotary(nn.Module):
    """Rotates queries or keys (B, H, T, K); hooks on it see and change them as they are compared."""

    def forward(self, x_BHTK: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
        return rotate(x_BHTK, tables)


class AttentionWeights(nn.Module):
    """Softmax of the scores (…, T, S); runs in place of a fused kernel while a forward hook is registered on it."""

    @property
    def wanted(self) -> bool:
        return bool(self._forward_hooks or self._forward_pre_hooks)

    def forward(self, scores: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        wide = torch.promote_types(scores.dtype, torch.float32)  # softmax in fp32 at least
        return scores.softmax(dim=-1, dtype=wide).to(scores.dtype)


_WEIGHTS = AttentionWeights()


def attend(
    q_BHTK: Float[Tensor, "B H T K"],
    k_BGSK: Float[Tensor, "B G S K"],
    v_BGSK: Float[Tensor, "B G S K"],
    mask: Tensor | None,
    *,
    causal: bool = False,
    scale: float | None = None,
    softcap: float | None = None,
    weights: AttentionWeights | None = None,
) -> Float[Tensor, "B H T K"]:
    """``softmax(scale · q kᵀ) v``, with each key head shared by H / G query heads.

    Args:
        mask: attention mask, bool (B, 1, T, S), or None for all.
        causal: T = S tokens of one text, each of which sees those before it; `mask` is None then.
        scale: None means 1 / sqrt(K).
        softcap: presses the scores softly into ±cap; it takes a mask, never `causal`.
        weights: computes the attention weights (B, G, H / G, T, S), for hooks on it; it takes a mask too.
    """
    groups, heads = k_BGSK.shape[1], q_BHTK.shape[1]
    if softcap is None and weights is None:
        return F.scaled_dot_product_attention(
            q_BHTK, k_BGSK, v_BGSK, attn_mask=mask, is_causal=causal, scale=scale, enable_gqa=groups != heads
        )
    # Written out, for the fused kernels have no cap and keep the weights to themselves.
    factor = q_BHTK.shape[-1] ** -0.5 if scale is None else scale
    q_BGMTK = q_BHTK.unflatten(1, (groups, -1))  # M query heads share a key head
    score_BGMTS = q_BGMTK @ k_BGSK[:, :, None].mT * factor
    if softcap is not None:
        score_BGMTS = apply_softcap(score_BGMTS, softcap)
    share_BGMTS = (weights or _WEIGHTS)(score_BGMTS, None if mask is None else mask[:, :, None])
    return (share_BGMTS @ v_BGSK[:, :, None]).flatten(1, 2)
