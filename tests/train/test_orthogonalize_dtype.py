"""Newton–Schulz in bfloat16 does the same as in float32."""

from __future__ import annotations

import torch

from underhood.train.optim import orthogonalize


def test_orthogonalize_in_bfloat16_keeps_singular_values_near_one():
    torch.manual_seed(0)
    for shape in ((3, 32, 96), (3, 96, 32)):
        g = torch.randn(shape)
        update = orthogonalize(g, 5, torch.bfloat16)
        assert update.dtype == torch.float32
        values = torch.linalg.svdvals(update)
        assert values.min() > 0.6
        assert values.max() < 1.3
        assert (update - orthogonalize(g, 5)).norm() < 0.05 * update.norm()
