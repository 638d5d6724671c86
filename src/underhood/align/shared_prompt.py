"""Shared prompts: the two answers of a preference pair read behind one pass over their prompt.

A pair is usually run as two rows, prompt ‖ chosen and prompt ‖ rejected, so everything is computed twice for the
prompt. Here each token of the prompt goes through the model once. The tokens of a batch become one line without
padding,

    prompt₁ ‖ chosen₁ ‖ rejected₁ ‖ prompt₂ ‖ …

through which all that treats tokens singly runs as it is (projections, feed-forwards, norms: nearly all of the work).
Only attention has to know who may see what. It gathers the line's queries, keys and values into the usual rows, one per
answer, runs the ordinary causal kernel there, and puts the outputs back. The prompt's share of attention itself is
computed twice; for that the fast kernel serves, no mask is needed, and gradients of both answers add up in the prompt's
keys and values by themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from underhood.data.batch import IGNORE, Batch
from underhood.models.decoder import Decoder
from underhood.nn.attention import AttentionSpec, attend

LEAST_SAVED = 0.05
"""Share of a batch's rows (padding and second prompts) from which the line is taken: gathering costs about 2 %."""


@dataclass(frozen=True)
class PairLine:
    """The tokens of 2N rows as one line of M, and where each row's tokens are in it.

    Attributes:
        tokens_1M, positions_1M: the line.
        index_BT: the line's place of each token of the rows; of padding, 0.
        back_M: for each place of the line the number of a token (row · T + column) that is it.
    """

    tokens_1M: Tensor
    positions_1M: Tensor
    index_BT: Tensor
    back_M: Tensor

    @property
    def saved(self) -> float:
        """Share of the rows' places that the line does without."""
        return 1 - self.back_M.numel() / self.index_BT.numel()


def pair_line(rows: Batch) -> PairLine:
    """The line of a batch whose second half of the rows are the rejected answers to the prompts of the first.

    What two rows have in common at their beginning is shared, be it prompt or the first words of both answers: tokens
    with the same past have the same hidden states.
    """
    tokens_BT, positions_BT = rows.tokens, rows.positions
    if positions_BT is None:
        positions_BT = torch.arange(tokens_BT.shape[1], device=tokens_BT.device).expand_as(tokens_BT)
    count, width = len(tokens_BT) // 2, tokens_BT.shape[1]
    real_BT = positions_BT >= 0
    same_NT = (tokens_BT[:count] == tokens_BT[count:]) & real_BT[:count] & real_BT[count:]
    shared_NT = same_NT.cumprod(dim=1).bool()
    own_BT = real_BT.clone()
    own_BT[count:] &= ~shared_NT
    # Prompt and chosen answer of a pair, then its rejected answer: the order of pairs, then of sides, then of tokens.
    own_N2T = torch.stack((own_BT[:count], own_BT[count:]), dim=1)
    places_N2T = own_N2T.flatten().cumsum(0).view_as(own_N2T) - 1
    chosen_NT, rejected_NT = places_N2T.unbind(1)
    rejected_NT = torch.where(shared_NT, chosen_NT, rejected_NT)
    index_BT = torch.cat((chosen_NT, rejected_NT)).where(real_BT, 0)
    pair_M, side_M, column_M = own_N2T.nonzero(as_tuple=True)
    back_M = (side_M * count + pair_M) * width + column_M
    return PairLine(tokens_BT.flatten()[back_M][None], positions_BT.flatten()[back_M][None], index_BT, back_M)


class RowAttention:
    """Attention of a `PairLine`, in the rows that it came from; an `AttendingCache` that keeps nothing."""

    plain = False

    def __init__(self, line: PairLine):
        self.line = line

    def extend(self, count: int, positions_BT: Tensor | None) -> tuple[Tensor, Tensor]:
        return self.line.positions_1M, self.line.positions_1M

    def attend(
        self,
        layer: int,
        q_BHTK: Tensor,
        k_BGTK: Tensor,
        v_BGTK: Tensor,
        *,
        scale: float | None,
        window: int | None,
        softcap: float | None,
    ) -> Tensor:
        """The outputs (1, H, M, K) of the line's queries: rows are right-padded, so causal order is the whole mask."""
        width = self.line.index_BT.shape[1]
        q_BHTK, k_BGTK, v_BGTK = self._rows(q_BHTK), self._rows(k_BGTK), self._rows(v_BGTK)
        masked = softcap is not None or (window is not None and window < width)
        mask = None
        if masked:
            order_T = torch.arange(width, device=q_BHTK.device)
            distance_TT = order_T[:, None] - order_T
            mask = ((distance_TT >= 0) & (distance_TT < (window or width)))[None, None]
        y_BHTK = attend(q_BHTK, k_BGTK, v_BGTK, mask, causal=not masked, scale=scale, softcap=softcap)
        y_nHK = y_BHTK.transpose(1, 2).flatten(0, 1)
        return y_nHK.index_select(0, self.line.back_M).transpose(0, 1)[None]

    def recent(self, layer: int, x_BTD: Tensor, count: int) -> Tensor:
        raise NotImplementedError("layers with a state of their own read whole rows")

    def _rows(self, x_1HMK: Tensor) -> Tensor:
        """(B, H, T, K): each row's tokens."""
        index_BT = self.line.index_BT
        x_nHK = x_1HMK[0].transpose(0, 1).index_select(0, index_BT.flatten())
        return x_nHK.unflatten(0, index_BT.shape).transpose(1, 2)


def shareable(model: object) -> bool:
    """Whether all that mixes a model's tokens is causal self-attention, and its blocks keep their activations."""
    if not isinstance(model, Decoder) or (model.checkpointing and model.training):
        return False
    mixers = [model.spec.block(layer).mixer for layer in range(model.spec.layers)]
    return all(isinstance(mixer, AttentionSpec) and mixer.causal and mixer.source == "self" for mixer in mixers)


def supervised_hidden(model: Decoder, rows: Batch, line: PairLine) -> Tensor:
    """The hidden states (N, D) at the rows' targets, row after row, from one pass over the line."""
    hidden_MD = model.hidden_states(line.tokens_1M, cache=RowAttention(line), positions=line.positions_1M)[0]
    return hidden_MD.index_select(0, line.index_BT[rows.targets != IGNORE])
