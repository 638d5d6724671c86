"""Sequence runner: a batch of sequences and their cache, for every way of decoding (prefill, decode, fork, rewind)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from underhood.core.protocols import LanguageModel
from underhood.infer.cache import ContiguousCache, device_of, states_of
from underhood.infer.forward_pass import ForwardPass
from underhood.infer.request import Request
from underhood.infer.sampler import SequenceSampler, sample_all
from underhood.infer.sliding_window_cache import LEAST_CHUNK, SlidingWindowCache, window_of

PREFILL_CHUNK = 512
"""Tokens read in one pass at most: long prompts would otherwise need memory for all their attention scores at once."""


FIRST_CAPACITY = 256
"""Tokens that memory is reserved for at first where nobody knows how long a sequence becomes."""


def new_cache(model: LanguageModel, batch: int, capacity: int) -> ContiguousCache | None:
    """A cache for the model, or None for one whose needs are not known (it then reads the whole text every time)."""
    return None if states_of(model) is None else ContiguousCache.for_model(model, batch, capacity)


def append_only_cache(model: LanguageModel, batch: int, capacity: int) -> ContiguousCache | SlidingWindowCache | None:
    """A cache that never rewinds: for a model whose layers all have a window, no larger than the window needs."""
    window = window_of(model)
    if window is not None and window + max(window, LEAST_CHUNK) < capacity:
        return SlidingWindowCache.for_model(model, batch)
    return new_cache(model, batch, capacity)


class SequenceRunner:
    """Runs a model over a batch of sequences that grow side by side.

    A pass that was interrupted (Ctrl-C, in any layer) leaves the runner as it was before.

    Attributes:
        tokens: what has been read of each sequence.
        reused: how much of the last prompt was in the cache already.

    Args:
        capacity: tokens per sequence to reserve memory for; more are reserved when needed.
        use_cache: False reads whole sequences again in every pass (slow; what the cache is tested against).
        rewinds: False if the runner never goes back, so that a sliding-window cache will do.
        compiled, keep_hidden: see `ForwardPass`.
    """

    def __init__(
        self,
        model: LanguageModel,
        *,
        capacity: int,
        batch: int = 1,
        use_cache: bool = True,
        rewinds: bool = True,
        compiled: bool = True,
        keep_hidden: bool = False,
    ):
        if isinstance(model, nn.Module):
            model.eval()
        self.model = model
        self.tokens: list[list[int]] = [[] for _ in range(batch)]
        self.reused = 0
        self.hidden_BTD: Tensor | None = None
        self._forward = ForwardPass(model, compiled=compiled, keep_hidden=keep_hidden)
        make_cache = new_cache if rewinds else append_only_cache
        self._cache = make_cache(model, batch, capacity) if use_cache else None
        self._padding: list[int] = [0] * batch  # columns before each sequence's first token

    @torch.inference_mode()
    def prefill(self, prompts: Sequence[Sequence[int]], logits: int = 1) -> Float[Tensor, "N V"]:
        """Reads a prompt per sequence; logits after the last `logits` tokens of each, (B · logits, V).

        A single sequence keeps what its cache already holds of the prompt's beginning. Shorter prompts of a batch are
        padded on the left.
        """
        if len(prompts) == 1:
            self._keep_prefix(prompts[0], logits)
            return self._read([prompts[0][len(self.tokens[0]) :]], logits)
        longest = max(map(len, prompts))
        self.tokens = [[] for _ in prompts]
        self._padding = [longest - len(prompt) for prompt in prompts]
        self._rewind_cache(0)
        padded = [[0] * padding + [*prompt] for padding, prompt in zip(self._padding, prompts, strict=True)]
        return self._read(padded, logits)

    @torch.inference_mode()
    def decode(self, tokens: Sequence[Sequence[int]]) -> Float[Tensor, "N V"]:
        """Reads as many tokens of every sequence; logits after each of them, (B · T, V)."""
        return self._read(tokens, len(tokens[0]))

    @torch.inference_mode()
    def select(self, rows: Sequence[int]) -> None:
        """Goes on with these sequences, in this order: drops the others, and forks those that are named twice."""
        if [*rows] == [*range(len(self.tokens))]:
            return
        if isinstance(self._cache, ContiguousCache) and len(rows) > self._cache.batch:
            self._cache = self._cache.spread(rows)
        elif self._cache is not None:
            self._cache.select(rows)
        if hasattr(self.model, "select_rows"):  # one that reads another source in each row
            self.model.select_rows(rows)  # type: ignore[attr-defined]
        self.tokens = [[*self.tokens[row]] for row in rows]
        self._padding = [self._padding[row] for row in rows]

    def rewind(self, count: int) -> None:
        """Forgets the last `count` tokens of every sequence, such as draft tokens that were rejected."""
        for tokens in self.tokens if count else ():
            del tokens[-count:]

    def reset(self) -> None:
        """Forgets everything that has been read."""
        self.tokens = [[] for _ in self.tokens]

    def _keep_prefix(self, prompt: Sequence[int], logits: int) -> None:
        """Rewinds to the longest common prefix; the last `logits` tokens of the prompt are always read."""
        [tokens] = self.tokens
        common = 0
        for known, wanted in zip(tokens, prompt[:-logits], strict=False):
            if known != wanted:
                break
            common += 1
        if not getattr(self._cache, "rewindable", True) and common < len(tokens):
            common = 0
        del tokens[common:]
        self.reused = common

    def _rewind_cache(self, columns: int) -> None:
        if isinstance(self._cache, ContiguousCache) and self._cache.length > columns:
            self._cache.truncate(columns)

    def _read(self, tokens: Sequence[Sequence[int]], logits: int) -> Tensor:
        """Reads new tokens, padding included, in chunks."""
        done = len(self.tokens[0]) + self._padding[0] if self.tokens[0] else 0
        self._rewind_cache(done)
        if self._cache is None:
            return self._read_all(tokens, logits)
        count = len(tokens[0])
        if isinstance(self._cache, ContiguousCache) and done + count > self._cache.capacity:
            self._cache.reserve(max(done + count, 2 * self._cache.capacity))
        chunk = min(PREFILL_CHUNK, getattr(self._cache, "chunk", PREFILL_CHUNK))
        hidden: list[Tensor] = []
        parts: list[Tensor] = []
        for start in range(0, count, chunk):
            piece = [row[start : start + chunk] for row in tokens]
            width = len(piece[0])
            columns = range(max(0, count - logits - start), width)
            logits_NV = self._forward(piece, self._cache, self._positions(done + start, width), columns)
            if columns:
                parts.append(logits_NV)
            if self._forward.hidden_BTD is not None:
                hidden.append(self._forward.hidden_BTD)
        self._record(tokens, done)
        self.hidden_BTD = torch.cat(hidden, dim=1) if hidden else None
        return parts[0] if len(parts) == 1 else _join(parts, len(tokens))

    def _read_all(self, tokens: Sequence[Sequence[int]], logits: int) -> Tensor:
        """Without a cache: everything is read again."""
        before = [[0] * padding + row if row else [] for padding, row in zip(self._padding, self.tokens, strict=True)]
        whole = [[*old, *new] for old, new in zip(before, tokens, strict=True)]
        width = len(whole[0])
        result_NV = self._forward(whole, None, self._positions(0, width), range(width - logits, width))
        self._record(tokens, len(before[0]))
        self.hidden_BTD = self._forward.hidden_BTD
        return result_NV

    def _positions(self, start: int, count: int) -> Tensor | None:
        """Positions (B, T) of columns `start` … where there is padding, which has −1; None where columns say it all."""
        if not any(self._padding) or start >= max(self._padding):
            return None
        padding_B1 = torch.tensor(self._padding, device=device_of(self.model))[:, None]
        columns_T = torch.arange(start, start + count, device=padding_B1.device)
        return (columns_T - padding_B1).clamp(min=-1)

    def _record(self, tokens: Sequence[Sequence[int]], done: int) -> None:
        for row, new, padding in zip(self.tokens, tokens, self._padding, strict=True):
            row += new[max(0, padding - done) :]


def _join(parts: list[Tensor], batch: int) -> Tensor:
    """Logits of several chunks, each (B · T, V), as one (B · ΣT, V)."""
    return torch.cat([piece.unflatten(0, (batch, -1)) for piece in parts], dim=1).flatten(0, 1)


@torch.inference_mode()
def warm_up(model: LanguageModel) -> None:
    """Reads sequences of some lengths, so that kernels are compiled before anybody waits for them."""
    for length in (1, 12, 60, 80):  # decode, a tile, a long verification, a prefill: all sizes that kernels know
        if model.context_length is None or length <= model.context_length:
            logits_NV = SequenceRunner(model, capacity=length).prefill([[0] * length])
            sample_all(logits_NV, [SequenceSampler(Request(prompt=[0], max_new_tokens=1), 0, None)])
