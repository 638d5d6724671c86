"""What a model has read of a text that grows and changes: nothing is read twice."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from underhood.core.protocols import LanguageModel
from underhood.infer.cache import ContiguousCache
from underhood.infer.generate import device_of, last_logits, new_cache
from underhood.infer.optimize import compiled_decoder
from underhood.infer.request import Request
from underhood.infer.sampler import SequenceSampler, sample_all
from underhood.kernels.cpu_decoder import DECODE_BATCH_MAX

CHUNK = 512
"""Tokens read in one pass: long prompts would otherwise need memory for all their scores at once."""


class CachedSequence:
    """A model's cache for one text, and which tokens are in it.

    Args:
        capacity: tokens there is room for at first; the room grows with the text.

    Attributes:
        read: the tokens in the cache. What a pass that was broken off has left behind them does not count.
    """

    def __init__(self, model: LanguageModel, capacity: int):
        self.model = model
        self.read: list[int] = []
        self._compiled = compiled_decoder(model)
        self._cache = new_cache(model, 1, capacity)

    def rewind(self, ids: Sequence[int]) -> int:
        """Forgets what `ids` does not begin with; returns how much of `ids` is known."""
        common = 0
        # At least the last token must be read, for its scores.
        for known, wanted in zip(self.read, ids[:-1], strict=False):
            if known != wanted:
                break
            common += 1
        del self.read[common:]
        return common

    def scores(self, ids: list[int], guess: Sequence[int] = ()) -> Tensor:
        """Reads what is new in `ids` and then `guess`; the scores (T, V) after the last of `ids` and after each guess.

        `ids` begins with what has been read. What is guessed is in the cache afterwards; `keep` says if it was right.
        """
        cache = self._room(len(ids) + len(guess))
        device, count = device_of(self.model), 1 + len(guess)
        if cache is None:
            return last_logits(self.model, torch.tensor([[*ids, *guess]], device=device), None, None, count)
        while len(ids) - len(self.read) > CHUNK:
            chunk = ids[len(self.read) : len(self.read) + CHUNK]
            last_logits(self.model, torch.tensor([chunk], device=device), cache, None)
            self.read += chunk
        start = len(self.read)
        fresh = ids[start:]
        assert fresh, "there is always a last token to read"
        new = [*fresh, *guess]
        if self._compiled is not None and len(new) <= DECODE_BATCH_MAX:
            cache.extend(len(new), None)
            scores_TV = self._compiled(new, range(start, start + len(new)), cache, range(len(new))[-count:])
        else:
            scores_TV = last_logits(self.model, torch.tensor([new], device=device), cache, None, count)
        self.read += fresh
        return scores_TV

    def keep(self, token: int) -> None:
        """The next guess was right, so it has been read."""
        if self._cache is not None:
            self.read.append(token)

    def _room(self, length: int) -> ContiguousCache | None:
        """The cache, without what does not count and with room for `length` tokens; None for a model that has none."""
        if self._cache is not None:
            if length > self._cache.capacity:
                self._cache.reserve(max(length, 2 * self._cache.capacity))
            # A pass that was interrupted, or a wrong guess, has left its tokens behind.
            self._cache.truncate(len(self.read))
        return self._cache


@torch.inference_mode()
def warm(model: LanguageModel) -> None:
    """Reads texts of some lengths, so that what is compiled for them is ready before somebody waits for it."""
    for length in (1, 12, 60, 80):  # a row, a tile, a long step, a prompt: all that products and attention know
        if model.context_length is None or length <= model.context_length:
            scores_TV = CachedSequence(model, length).scores([0] * length)
            sample_all(scores_TV, [SequenceSampler(Request(prompt=[0], max_new_tokens=1), 0, None)])
