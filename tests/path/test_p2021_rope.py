"""Rotary positions as transformers computes them, in Hugging Face's layout and in Meta's."""

from __future__ import annotations

import torch
from torch import Tensor

from underhood.nn.forward_context import ForwardContext
from underhood.nn.rope import RotarySpec, rotate


def rotated(x_BHTK: Tensor) -> Tensor:
    positions_BT = torch.arange(3, 3 + x_BHTK.shape[2])[None]
    ctx = ForwardContext(positions_BT, positions_BT, None)
    return rotate(x_BHTK, RotarySpec().tables(ctx, x_BHTK.shape[-1], x_BHTK.dtype))


def test_rotation_matches_transformers_in_both_layouts():
    from transformers.models.glm.modeling_glm import apply_rotary_pos_emb as apply_to_neighbours
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb as apply_to_halves

    q_BHTK, k_BHTK = torch.randn(2, 1, 4, 11, 16, generator=torch.Generator().manual_seed(0))
    frequencies = 10_000.0 ** (-torch.arange(0, 16, 2) / 16)
    angles_BTK = (torch.arange(3.0, 14.0)[:, None] * frequencies).repeat(1, 2)[None]
    halves = apply_to_halves(q_BHTK, k_BHTK, angles_BTK.cos(), angles_BTK.sin())
    for ours, theirs in zip((rotated(q_BHTK), rotated(k_BHTK)), halves, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)

    order = torch.cat([torch.arange(0, 16, 2), torch.arange(1, 16, 2)])  # Meta's neighbours to our halves
    neighbours = apply_to_neighbours(q_BHTK, k_BHTK, angles_BTK.cos(), angles_BTK.sin())
    for x_BHTK, theirs in zip((q_BHTK, k_BHTK), neighbours, strict=True):
        torch.testing.assert_close(rotated(x_BHTK[..., order]), theirs[..., order], rtol=0, atol=1e-5)
        assert (rotated(x_BHTK) - theirs).abs().max() > 0.1  # without reordering it is another function
