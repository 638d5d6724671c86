"""Embeddings multiplied by a constant, and their sum with positions (Vaswani et al. 2017, section 3.4; Gemma 2024)."""

from __future__ import annotations

from torch import Tensor, nn


class EmbeddingSum(nn.Module):
    """Token vectors (B, T, D) plus position vectors, if there are any: where a residual stream begins.

    A module, so that hooks see the sum and dropout leaves parts of it out while a model trains.
    """

    def forward(self, tokens_BTD: Tensor, positions_BTD: Tensor | None = None) -> Tensor:
        return tokens_BTD if positions_BTD is None else tokens_BTD + positions_BTD.to(tokens_BTD.dtype)


class ScaledEmbedding(nn.Embedding):
    """``scale · table[token]``. A tied unembedding uses the table as it is.

    The factor is rounded to the table's own type first, as the published bfloat16 models were trained.
    """

    def __init__(self, count: int, d_model: int, scale: float):
        super().__init__(count, d_model)
        self.scale = scale

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) * self.weight.new_tensor(self.scale)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, scale={self.scale}"
