"""An embedding that is multiplied by a constant (Vaswani et al. 2017, section 3.4; Gemma 2024)."""

from __future__ import annotations

from torch import Tensor, nn


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
