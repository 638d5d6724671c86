"""Recurrent layers: Elman's network, the GRU and the LSTM, whose state is all that they keep of the tokens before.

Elman 1990; Cho et al. 2014; Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000. The cells are
torch's own: its kernels are as fast as any written by hand, and what they compute fits into a line.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence, unpack_sequence

from underhood.core.protocols import RecurrentCache
from underhood.core.state import StateSpec
from underhood.nn.forward_context import ForwardContext
from underhood.nn.packed_attention import document_lengths

Cell = Literal["elman", "gru", "lstm"]

_CELLS: dict[Cell, Callable[..., nn.RNNBase]] = {"elman": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
_GATES: dict[Cell, int] = {"elman": 1, "gru": 3, "lstm": 4}


@dataclass(frozen=True, kw_only=True)
class RecurrenceSpec:
    """A recurrent layer: ``h_t = f(x_t, h_{t−1})``, from zeros at the beginning of a document.

    - ``elman``: ``h = tanh(W x + U h + b)``;
    - ``gru``: a gate chooses, number by number, between the old state and a new one, which another gate lets see the
      old state;
    - ``lstm``: a second state c, the memory, is only ever scaled by a forget gate and added to, so that gradients
      reach far back; ``h = o · tanh(c)``.

    Attributes:
        hidden: width of the state; None for that of the residual stream.
        projected: a matrix brings the state back to the width of the residual stream, as a block's sublayers want;
            without it the state itself goes on.
    """

    cell: Cell = "lstm"
    hidden: int | None = None
    projected: bool = True

    def __post_init__(self):
        if self.cell not in _CELLS:
            raise ValueError(f"cell must be one of {', '.join(_CELLS)}, got {self.cell!r}")
        if self.hidden is not None and self.hidden < 1:
            raise ValueError(f"hidden must be at least 1, got {self.hidden}")

    def width(self, d_model: int) -> int:
        return self.hidden or d_model

    def state_spec(self, d_model: int) -> StateSpec:
        """The state, and the LSTM's memory."""
        state = (self.width(d_model),)
        return StateSpec(window=1, recurrent=(state, state) if self.cell == "lstm" else (state,))

    def flops(self, d_model: int, context: int) -> float:
        """Of the gates, per token."""
        return 3.0 * _GATES[self.cell] * self.width(d_model)

    def facts(self, d_model: int) -> dict[str, str]:
        """The spec in words."""
        name = {"elman": "Elman's", "gru": "GRU", "lstm": "LSTM"}[self.cell]
        return {"Recurrence": f"{name}, state of {self.width(d_model)}"}

    def build(self, d_model: int, layer: int) -> "Recurrence":
        return Recurrence(d_model, layer, self)


class Recurrence(nn.Module):
    """A recurrent layer; see `RecurrenceSpec`. Its state lives in the cache, or from zeros to the end of a pass."""

    def __init__(self, d_model: int, layer: int, spec: RecurrenceSpec):
        super().__init__()
        self.spec, self.layer = spec, layer
        width = spec.width(d_model)
        self.cell = _CELLS[spec.cell](d_model, width, batch_first=True)
        self.output = nn.Linear(width, d_model, bias=False) if spec.projected else nn.Identity()

    def forward(self, x_BTD: Float[Tensor, "B T D"], ctx: ForwardContext, rows: Tensor | slice | None = None) -> Tensor:
        """The state after each token (B, T, D); with `rows` only after those of the T tokens."""
        if ctx.cache is not None:
            y_BTH = self._go_on(x_BTD, ctx)
        elif ctx.plain:
            y_BTH = self.cell(x_BTD)[0]
        else:
            y_BTH = self._by_document(x_BTD, ctx)
        return self.output(y_BTH if rows is None else y_BTH[:, rows])

    def _by_document(self, x_BTD: Tensor, ctx: ForwardContext) -> Tensor:
        """Documents that share a row do not share a state: they go through the cell as sequences of their own."""
        lengths = ctx.once("documents", lambda: document_lengths(ctx.positions_BT))
        sizes = [abs(length) for length in lengths] * (len(x_BTD) // len(ctx.positions_BT))
        packed, _ = self.cell(pack_sequence(list(x_BTD.flatten(0, 1).split(sizes)), enforce_sorted=False))
        return torch.cat(unpack_sequence(packed)).unflatten(0, x_BTD.shape[:2])

    def _go_on(self, x_BTD: Tensor, ctx: ForwardContext) -> Tensor:
        cache = cast(RecurrentCache, ctx.cache)
        state = tuple(kept.to(x_BTD.dtype)[None] for kept in cache.recurrent(self.layer))
        if ctx.plain:
            y_BTH, state = self._step(x_BTD, state)
        else:
            steps = []
            for t in range(x_BTD.shape[1]):
                positions_B = ctx.positions_BT[:, t].expand(len(x_BTD))
                before = tuple(kept * (positions_B > 0)[None, :, None] for kept in state)  # 0 begins a document
                y_B1H, after = self._step(x_BTD[:, t : t + 1], before)
                real_1B1 = (positions_B >= 0)[None, :, None]  # padding changes nothing
                state = tuple(torch.where(real_1B1, new, old) for new, old in zip(after, state, strict=True))
                steps.append(y_B1H)
            y_BTH = torch.cat(steps, dim=1)
        cache.set_recurrent(self.layer, *(kept[0] for kept in state))
        return y_BTH

    def _step(self, x_BTD: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        if self.spec.cell == "lstm":
            return self.cell(x_BTD, state)
        y_BTH, last = self.cell(x_BTD, state[0])
        return y_BTH, (last,)

    def initial(self, name: str, parameter: Tensor, generator: torch.Generator) -> Tensor | None:
        """The LSTM's forget gates start half open to remembering: bias 1 (Jozefowicz et al. 2015)."""
        if self.spec.cell != "lstm" or name != "cell.bias_ih_l0":
            return None
        bias_X = torch.zeros_like(parameter)
        bias_X[len(bias_X) // 4 : len(bias_X) // 2] = 1.0
        return bias_X
