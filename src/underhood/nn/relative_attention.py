"""Self-attention with relative position representations (Shaw, Uszkoreit & Vaswani 2018).

A key and a value are shifted by learned vectors that depend on how far they are from the query, in positions. Distances
beyond a clip share the vector of the clip, so that 2 · clip + 1 of each are enough for a text of any length.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from underhood.core.errors import UserError
from underhood.core.state import StateSpec
from underhood.nn.attention import AttentionWeights
from underhood.nn.forward_context import ForwardContext, MaskRule


@dataclass(frozen=True, kw_only=True)
class RelativeAttentionSpec:
    """Multi-head self-attention with clipped relative positions; the vectors are shared by the heads of a layer.

    Attributes:
        heads: H.
        clip: distances beyond it count as it; k in the paper.
        values: shifts the values too, not only the keys.
        head_dim: K; None means d_model / H.
        bias: biases on the query, key and value projections.
        output_bias: bias on the output projection.
        causal: a token sees itself and those before it; otherwise later ones too, as in an encoder.
    """

    heads: int
    clip: int = 16
    values: bool = True
    head_dim: int | None = None
    bias: bool = False
    output_bias: bool = False
    causal: bool = True

    def __post_init__(self):
        if self.heads < 1 or self.clip < 0:
            raise ValueError(f"heads must be at least 1 and clip at least 0, got {self.heads} and {self.clip}")

    def head_dim_for(self, d_model: int) -> int:
        if self.head_dim is None and d_model % self.heads:
            raise ValueError(f"d_model must be a multiple of heads, got {d_model} and {self.heads}")
        return self.head_dim or d_model // self.heads

    def state_spec(self, d_model: int) -> StateSpec:
        """Keys and values, without the shifts, which depend on the query."""
        head = (self.heads, self.head_dim_for(d_model))
        return StateSpec(vectors=(head, head), paged=False)

    def flops(self, d_model: int, context: int) -> float:
        """Of scores and weighted sums over half of the context, and of those with the relative vectors, per token."""
        labels = (1 + self.values) * (2 * self.clip + 1)
        return 2.0 * self.heads * self.head_dim_for(d_model) * (context + labels)

    def facts(self, d_model: int) -> dict[str, str]:
        """The spec in words."""
        shifted = "keys and values" if self.values else "keys"
        return {
            "Attention": f"{self.heads} heads of {self.head_dim_for(d_model)}",
            "In attention": f"relative positions up to {self.clip} in {shifted}",
        }

    def build(self, d_model: int, layer: int) -> "RelativeAttention":
        return RelativeAttention(d_model, layer, self)


class RelativeAttention(nn.Module):
    """``softmax(q (k + a)ᵀ / sqrt(K)) (v + b)`` with a and b chosen by the distance from query to key (eqs 3 and 4)."""

    def __init__(self, d_model: int, layer: int, spec: RelativeAttentionSpec):
        super().__init__()
        self.spec, self.layer = spec, layer
        self.head_dim = spec.head_dim_for(d_model)
        inner, labels = spec.heads * self.head_dim, 2 * spec.clip + 1
        self.query, self.key, self.value = (nn.Linear(d_model, inner, bias=spec.bias) for _ in range(3))
        self.output = nn.Linear(inner, d_model, bias=spec.output_bias)
        self.relative_keys = nn.Parameter(torch.empty(labels, self.head_dim))
        self.relative_values = nn.Parameter(torch.empty(labels, self.head_dim)) if spec.values else None
        for table in (self.relative_keys, self.relative_values):
            if table is not None:
                nn.init.xavier_uniform_(table)
        self.weights = AttentionWeights()

    def forward(self, x_BTD: Float[Tensor, "B T D"], ctx: ForwardContext, rows: Tensor | slice | None = None) -> Tensor:
        """What each token (B, T, D) takes from those it sees; with `rows` only what those of the T tokens take."""
        if ctx.attending is not None or (ctx.cached and not self.spec.causal):
            raise UserError("relative attention can't use this cache", fix="Read whole texts, or write one at a time")
        q_BHTK, k_BHTK, v_BHTK = (self._heads(layer(x_BTD)) for layer in (self.query, self.key, self.value))
        if ctx.cache is not None:
            k_BHTK, v_BHTK = ctx.cache.update(self.layer, k_BHTK, v_BHTK)
        labels_BTS = ctx.once(("distance", self.spec.clip), lambda: distance_labels(ctx, self.spec.clip))
        mask = ctx.mask(MaskRule(causal=self.spec.causal))
        if rows is not None:
            q_BHTK, labels_BTS = q_BHTK[:, :, rows], labels_BTS[:, rows]
            mask = mask if mask is None else mask[:, :, rows]
        scores_BHTS = q_BHTK @ k_BHTK.mT + relative_scores(q_BHTK, self.relative_keys, labels_BTS)
        weights_BHTS = self.weights(scores_BHTS * self.head_dim**-0.5, mask)
        y_BHTK = weights_BHTS @ v_BHTK
        if self.relative_values is not None:
            y_BHTK = y_BHTK + relative_sums(weights_BHTS, self.relative_values, labels_BTS)
        return self.output(y_BHTK.transpose(1, 2).flatten(2))

    def _heads(self, x_BTX: Tensor) -> Tensor:
        return x_BTX.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)


def distance_labels(ctx: ForwardContext, clip: int) -> Int[Tensor, "B T S"]:
    """Row of the tables for each query and key: 0 for a key `clip` or more before the query, 2 · clip for one after."""
    distance_BTS = ctx.positions_BS[:, None, :] - ctx.positions_BT[:, :, None]
    return distance_BTS.clamp(-clip, clip) + clip


def relative_scores(
    q_BHTK: Float[Tensor, "B H T K"], keys_RK: Float[Tensor, "R K"], labels_BTS: Int[Tensor, "#B T S"]
) -> Float[Tensor, "B H T S"]:
    """``q_t · a(t, s)``: each query times all R vectors, then the products sorted to the keys' places.

    It needs O(T · R · K) operations where a vector per pair of tokens would need O(T · S · K).
    """
    return (q_BHTK @ keys_RK.T).gather(-1, _for_heads(labels_BTS, q_BHTK))


def relative_sums(
    weights_BHTS: Float[Tensor, "B H T S"], values_RK: Float[Tensor, "R K"], labels_BTS: Int[Tensor, "#B T S"]
) -> Float[Tensor, "B H T K"]:
    """``Σ_s weight(t, s) · b(t, s)``: the weights of equal distances added up first, then times their vectors."""
    totals_BHTR = weights_BHTS.new_zeros(*weights_BHTS.shape[:3], len(values_RK))
    return totals_BHTR.scatter_add(-1, _for_heads(labels_BTS, weights_BHTS), weights_BHTS) @ values_RK


def _for_heads(labels_BTS: Tensor, x_BHTX: Tensor) -> Tensor:
    return labels_BTS[:, None].expand(*x_BHTX.shape[:3], labels_BTS.shape[-1])
