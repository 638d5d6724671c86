"""Model runners: the forward pass over a scheduled batch, with a paged KV cache or with one cache per sequence."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from underhood.core.protocols import LanguageModel
from underhood.infer.cache import device_of, dtype_of
from underhood.infer.engine_spec import EngineSpec
from underhood.infer.forward_pass import ForwardPass
from underhood.infer.memory import can_be_paged, paged_states
from underhood.infer.paged_cache import PagedCache, Span
from underhood.infer.scheduler import ScheduledBatch, Sequence
from underhood.infer.sequence_runner import SequenceRunner


class ModelRunner:
    """Reads all sequences of a batch side by side in one row, over a paged KV cache.

    Attributes:
        cache: memory for `blocks` blocks.
    """

    paged = True

    def __init__(self, model: LanguageModel, blocks: int, spec: EngineSpec):
        self.block, self._forward = spec.block, ForwardPass(model)
        self.cache = PagedCache(
            paged_states(model),
            blocks * spec.block,
            dtype=dtype_of(model),
            device=device_of(model),
            quantized=spec.quantize_cache,
        )

    def use(self, model: LanguageModel) -> None:
        """Goes on with another model of the same shape; what the cache holds belongs to the old one."""
        self._forward = ForwardPass(model)

    def release(self, sequence: Sequence) -> None:
        """Nothing is kept per sequence: the block manager has its blocks."""

    def copy(self, batch: ScheduledBatch) -> None:
        """Copies the blocks that one of several sequences is about to write (copy on write)."""
        if batch.copies:
            self.cache.copy(batch.copies, self.block)

    def read(self, batch: ScheduledBatch) -> Float[Tensor, "N V"]:
        """Logits after the last token of each sequence that is read to its end, and after each of its draft tokens."""
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
        return self._forward([tokens], self.cache, positions_1T, ends)


class UnpagedModelRunner:
    """Reads the sequences of a batch one after the other, each with a cache of its own.

    For models whose state is not a list of vectors per token (recurrent ones), or that do not say what they keep. No
    prefix is shared between sequences.
    """

    paged = False

    def __init__(self, model: LanguageModel):
        self._model = model
        self._runners: dict[Sequence, SequenceRunner] = {}

    def use(self, model: LanguageModel) -> None:
        """Goes on with another model."""
        self._model = model
        self._runners.clear()

    def release(self, sequence: Sequence) -> None:
        """Frees a sequence's cache."""
        self._runners.pop(sequence, None)

    def copy(self, batch: ScheduledBatch) -> None:
        """No block is shared, so none is copied."""

    def read(self, batch: ScheduledBatch) -> Float[Tensor, "N V"]:
        """See `ModelRunner.read`."""
        logits: list[Tensor] = []
        for item in batch.scheduled:
            runner = self._runners.get(item.sequence)
            if runner is None:
                runner = self._runners[item.sequence] = SequenceRunner(self._model, capacity=item.sequence.limit)
            tokens = [*item.sequence.tokens[: item.start + item.count], *item.draft]
            logits_NV = runner.prefill([tokens], 1 + len(item.draft))
            if item.last:
                logits.append(logits_NV)
        return torch.cat(logits) if logits else torch.empty(0, self._model.vocab_size)


def model_runner(model: LanguageModel, blocks: int, spec: EngineSpec) -> ModelRunner | UnpagedModelRunner:
    """The runner that fits a model."""
    return ModelRunner(model, blocks, spec) if can_be_paged(model) else UnpagedModelRunner(model)
