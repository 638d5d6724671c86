"""Causal attention over packed documents, one document at a time, in place of a block-diagonal mask.

A row of a packed batch holds several documents, and no token attends across them. As a mask over the whole row this
costs T² per row, most of it thrown away, and a fused CPU kernel with a mask is several times slower backwards than its
causal form. Cut at the documents (variable-length attention, as in FlashAttention's ``cu_seqlens``), the cost is the
sum of the documents' n², with the fast causal kernel.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def document_lengths(positions_BT: Tensor) -> tuple[int, ...]:
    """Lengths of the runs of tokens in the rows, one row after another; a run of padding counts as minus its length.

    A run is a document (its positions count up from its first token) or padding (positions −1); none crosses rows.
    """
    starts_BT = torch.ones_like(positions_BT, dtype=torch.bool)
    previous_BT, following_BT = positions_BT[:, :-1], positions_BT[:, 1:]
    both_padding_BT = (previous_BT < 0) & (following_BT < 0)
    starts_BT[:, 1:] = (following_BT != previous_BT + 1) & ~both_padding_BT
    starts_BT[:, 1:] |= (previous_BT < 0) & (following_BT >= 0)  # position 0 follows −1 by number only
    first_N = starts_BT.flatten().nonzero().flatten()
    end = torch.tensor([positions_BT.numel()], device=first_N.device)
    lengths_N = torch.cat((first_N, end)).diff()
    padding_N = positions_BT.flatten()[first_N] < 0
    return tuple(torch.where(padding_N, -lengths_N, lengths_N).tolist())


def attend_documents(
    q_BHTK: Float[Tensor, "B H T K"],
    k_BGTK: Float[Tensor, "B G T K"],
    v_BGTK: Float[Tensor, "B G T K"],
    lengths: Sequence[int],
    *,
    scale: float | None = None,
) -> Float[Tensor, "B H T K"]:
    """``softmax(scale · q kᵀ) v`` where each token sees those before it in its document; zeros at padding.

    Args:
        lengths: of the documents, row after row, as `document_lengths` gives them; of one row if all are like it.
        scale: None means 1 / sqrt(K).
    """
    heads, groups = q_BHTK.shape[1], k_BGTK.shape[1]
    lengths = [*lengths] * (q_BHTK.shape[0] * q_BHTK.shape[2] // sum(map(abs, lengths)))
    sizes = [abs(length) for length in lengths]
    # `split` is used, not slices: backwards it is one concatenation, where each slice would fill a whole gradient.
    pieces = zip(lengths, *(_by_token(x).split(sizes) for x in (q_BHTK, k_BGTK, v_BGTK)), strict=True)
    outputs = []
    for length, q_nHK, k_nGK, v_nGK in pieces:
        if length < 0:
            outputs.append(torch.zeros_like(q_nHK))
            continue
        q_1HnK, k_1GnK, v_1GnK = (x.transpose(0, 1)[None] for x in (q_nHK, k_nGK, v_nGK))
        y_1HnK = F.scaled_dot_product_attention(
            q_1HnK, k_1GnK, v_1GnK, is_causal=True, scale=scale, enable_gqa=groups != heads
        )
        outputs.append(y_1HnK[0].transpose(0, 1))
    return torch.cat(outputs).unflatten(0, (q_BHTK.shape[0], q_BHTK.shape[2])).transpose(1, 2)


def _by_token(x_BHTK: Tensor) -> Tensor:
    """(B · T, H, K): all tokens of all rows in a line."""
    return x_BHTK.transpose(1, 2).flatten(0, 1)
