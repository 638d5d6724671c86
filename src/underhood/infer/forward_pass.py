"""Forward pass of inference: the logits of new tokens over any cache, compiled where the model has kernels.

Every way of sampling takes its logits from here, so this is also where ids without a token are ruled out: published
embeddings are often padded to a round number of rows (Qwen2.5 has 151,936 for 151,665 tokens), which no text trains.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from underhood.core.protocols import AttendingCache, Cache, HiddenStateModel, LanguageModel
from underhood.infer.cache import device_of
from underhood.infer.optimize import compiled_decoder, select_path
from underhood.kernels.jit import end_deferral


class ForwardPass:
    """Reads new tokens and gives logits, on the path that `optimize.select_path` chooses.

    Attributes:
        hidden_BTD: with `keep_hidden`, the normalised residual stream of the last pass.

    Args:
        compiled: False always takes the model's own forward pass.
        keep_hidden: keeps `hidden_BTD`, which needs a decoder and its own forward pass.
    """

    def __init__(self, model: LanguageModel, *, compiled: bool = True, keep_hidden: bool = False):
        self.model, self.device = model, device_of(model)
        self.keep_hidden = keep_hidden
        self.hidden_BTD: Tensor | None = None
        self._compiled = compiled_decoder(model) if compiled and not keep_hidden else None
        self._started = False

    @torch.inference_mode()
    def __call__(
        self,
        tokens: Sequence[Sequence[int]],
        cache: Cache | AttendingCache | None,
        positions_BT: Int[Tensor, "B T"] | None = None,
        columns: Sequence[int] | None = None,
    ) -> Float[Tensor, "N V"]:
        """Logits after the new tokens (B rows of T) at the given columns, row by row; None means all columns.

        Ids beyond the model's `token_count` get −∞.
        """
        if self._started:
            end_deferral()  # a first token does not wait for compiling, the others are worth it
        self._started = True
        logits_NV = self._logits(tokens, cache, positions_BT, columns)
        token_count = getattr(self.model, "token_count", None)
        if token_count is not None and token_count < logits_NV.shape[-1]:
            logits_NV[:, token_count:] = -math.inf
        return logits_NV

    def _logits(
        self,
        tokens: Sequence[Sequence[int]],
        cache: Cache | AttendingCache | None,
        positions_BT: Int[Tensor, "B T"] | None,
        columns: Sequence[int] | None,
    ) -> Float[Tensor, "N V"]:
        count = len(tokens[0])
        path, model = select_path(self.model, self._compiled, len(tokens), count)
        if path == "compiled" and self._compiled is not None and cache is not None:
            # The cache has one row: a sequence, or the new tokens of many sequences side by side.
            positions, _ = cache.extend(count, positions_BT)
            rows = None if columns is None or len(columns) == count else [*columns] or [0]
            logits_NV = self._compiled(tokens[0], positions[0].tolist(), cache, rows)  # type: ignore[arg-type]
            return logits_NV if columns is None else logits_NV[: len(columns)]
        tokens_BT = torch.tensor(tokens, device=self.device)
        if not isinstance(model, HiddenStateModel):
            logits_BTV = self.model(tokens_BT, cache=cache, positions=positions_BT)
            return (logits_BTV if columns is None else logits_BTV[:, [*columns]]).flatten(0, 1)
        wanted = None if columns is None or len(columns) == count else self._selection(columns, count)
        hidden_BTD = model.hidden_states(
            tokens_BT, cache=cache, positions=positions_BT, rows=None if self.keep_hidden else wanted
        )
        if self.keep_hidden:
            self.hidden_BTD = hidden_BTD
            hidden_BTD = hidden_BTD if wanted is None else hidden_BTD[:, wanted]
        if columns is not None and not columns:
            return hidden_BTD.new_empty(0, self.model.vocab_size)
        return model.unembed(hidden_BTD.flatten(0, 1)).contiguous()

    def _selection(self, columns: Sequence[int], count: int) -> Tensor | slice:
        """Columns as a slice where they are the last ones, which copies nothing; one column where none is wanted."""
        if [*columns] == [*range(count - len(columns), count)] and columns:
            return slice(-len(columns), None)
        return torch.tensor([*columns] or [0], device=self.device)
