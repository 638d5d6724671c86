"""Texts as vectors, a few at a time between an engine's steps."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future

import torch
from jaxtyping import Float
from torch import Tensor

from underhood.core.protocols import HiddenStateModel
from underhood.infer.cache import device_of


def mean_hidden(model: HiddenStateModel, rows: Sequence[Sequence[int]]) -> Float[Tensor, "N D"]:
    """The mean of the last layer's normalised output over each row's tokens, in fp32.

    The rows are read side by side as documents of one row.
    """
    tokens_1T = torch.tensor([[token for row in rows for token in row]], device=device_of(model))
    positions_1T = torch.cat([torch.arange(len(row), device=tokens_1T.device) for row in rows])[None]
    hidden_TD = model.hidden_states(tokens_1T, positions=None if len(rows) == 1 else positions_1T)[0].float()
    return torch.stack([part_TD.mean(dim=0) for part_TD in hidden_TD.split([len(row) for row in rows])])


class EmbeddingJob:
    """Rows to be embedded, and where the result is awaited: an (n, D) tensor on the CPU."""

    def __init__(self, rows: Sequence[Sequence[int]]):
        self.result: Future[Tensor] = Future()
        self._rows = [list(row) for row in rows]
        self._done: list[Tensor] = []

    def go_on(self, model: HiddenStateModel, tokens: int) -> None:
        """Reads the next rows, of at most so many tokens together but at least one; the last call sets the result."""
        try:
            count, length = 1, len(self._rows[0])
            while count < len(self._rows) and length + len(self._rows[count]) <= tokens:
                length += len(self._rows[count])
                count += 1
            self._done.append(mean_hidden(model, self._rows[:count]).cpu())
            del self._rows[:count]
            if not self._rows:
                self.result.set_result(torch.cat(self._done))
        except Exception as error:
            self.result.set_exception(error)
