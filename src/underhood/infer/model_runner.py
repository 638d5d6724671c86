"""One pass of the model over the texts of a step, side by side in a row, with their keys and values in one memory."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from underhood.core.protocols import LanguageModel
from underhood.infer.cache import device_of, dtype_of
from underhood.infer.engine_spec import EngineSpec
from underhood.infer.generate import logits_at
from underhood.infer.memory import paged_states
from underhood.infer.optimize import compiled_decoder
from underhood.infer.paged_cache import PagedCache, Span
from underhood.infer.scheduler import ScheduledBatch
from underhood.kernels.cpu_decoder import DECODE_BATCH_MAX


class ModelRunner:
    """A model and the blocks of its cache.

    Attributes:
        cache: memory for `blocks` blocks.
    """

    def __init__(self, model: LanguageModel, blocks: int, spec: EngineSpec):
        self.model, self.block, self.device = model, spec.block, device_of(model)
        self._compiled = compiled_decoder(model)
        self.cache = PagedCache(
            paged_states(model),
            blocks * spec.block,
            dtype=dtype_of(model),
            device=self.device,
            quantized=spec.quantize_cache,
        )

    def copy(self, batch: ScheduledBatch) -> None:
        """Copies what is about to be written by one of several texts that share it."""
        if batch.copies:
            self.cache.copy(batch.copies, self.block)

    def read(self, batch: ScheduledBatch) -> Float[Tensor, "N V"]:
        """The scores after the last token of each text that is read to its end, and after each token guessed there."""
        tokens: list[int] = []
        ends: list[int] = []
        spans: list[Span] = []
        size = self.block
        for item in batch.scheduled:
            sequence = item.sequence
            last = len(tokens) + item.count - 1
            tokens += (*sequence.tokens[item.start : item.start + item.count], *item.draft)
            if item.last:
                ends.extend(range(last, len(tokens)))
            runs = [(first * size, count * size) for first, count in sequence.runs]
            spans.append(Span(item.start, item.count + len(item.draft), runs, sequence.dropped * size))
        positions_1T = self.cache.arrange(spans)
        if self._compiled is not None and len(tokens) <= DECODE_BATCH_MAX:
            rows = None if len(ends) == len(tokens) else ends or [0]
            return self._compiled(tokens, positions_1T[0].tolist(), self.cache, rows)[: len(ends)]
        tokens_1T = torch.tensor([tokens], device=self.device)
        rows = torch.tensor(ends or [0], device=self.device) if len(ends) < len(tokens) else None
        logits_NV = logits_at(self.model, tokens_1T, self.cache, positions_1T, rows)
        return logits_NV[: len(ends)].contiguous()
