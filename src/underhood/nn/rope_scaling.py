"""RoPE scaling: rotary positions are stretched for texts longer than those a model was first trained on.

Each of these changes the angle per position of every pair of head dimensions. Slow pairs turn less than once within
the first training's context and would meet angles never seen; fast ones have seen them all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor


class RotaryScalingSpec(Protocol):
    """A slot that takes any change of the rotary angles."""

    @property
    def amplitude(self) -> float:
        """A factor on cosines and sines, so its square is one on the attention scores."""
        ...

    def scale(self, frequencies: Float[Tensor, "pairs"], theta: float) -> Float[Tensor, "pairs"]:
        """The new angle per position of each pair, from the unscaled one."""
        ...


@dataclass(frozen=True, kw_only=True)
class LinearScaling:
    """Position interpolation: all angles divided by `factor` (Chen et al. 2023)."""

    factor: float

    @property
    def amplitude(self) -> float:
        return 1.0

    def scale(self, frequencies: Float[Tensor, "pairs"], theta: float) -> Float[Tensor, "pairs"]:
        return frequencies / self.factor


@dataclass(frozen=True, kw_only=True)
class Llama3Scaling:
    """Llama 3.1's: slow pairs divided by `factor`, fast ones left alone, a linear blend between (Llama Team 2024).

    Attributes:
        factor: by how much the slow pairs are slowed.
        low_turns: pairs that turn fewer times than this within `original_context` are slow.
        high_turns: pairs that turn more often are fast.
        original_context: tokens of the first training.
    """

    factor: float
    low_turns: float
    high_turns: float
    original_context: int

    @property
    def amplitude(self) -> float:
        return 1.0

    def scale(self, frequencies: Float[Tensor, "pairs"], theta: float) -> Float[Tensor, "pairs"]:
        turns = self.original_context * frequencies / (2 * math.pi)
        fast = ((turns - self.low_turns) / (self.high_turns - self.low_turns)).clamp(0, 1)
        return (1 - fast) * frequencies / self.factor + fast * frequencies


@dataclass(frozen=True, kw_only=True)
class YarnScaling:
    """YaRN: interpolation by parts and a correction of the scores' temperature (Peng et al. 2023, section 3).

    Attributes:
        factor: by how much slow pairs are slowed.
        original_context: tokens of the first training.
        fast_turns: pairs that turn at least this often within it stay as they are (β, paper's 32).
        slow_turns: pairs that turn at most this often are slowed in full (α, paper's 1).
        attention_factor: the amplitude; None means ``0.1 ln(factor) + 1`` (eq. 22).
        whole_pairs: the ramp's ends are rounded outwards to whole pairs, as the original code does.
    """

    factor: float
    original_context: int
    fast_turns: float = 32.0
    slow_turns: float = 1.0
    attention_factor: float | None = None
    whole_pairs: bool = True

    @property
    def amplitude(self) -> float:
        if self.attention_factor is not None:
            return self.attention_factor
        return 0.1 * math.log(self.factor) + 1.0 if self.factor > 1 else 1.0

    def scale(self, frequencies: Float[Tensor, "pairs"], theta: float) -> Float[Tensor, "pairs"]:
        pairs = len(frequencies)
        first, last = self._pair_of(self.fast_turns, pairs, theta), self._pair_of(self.slow_turns, pairs, theta)
        if self.whole_pairs:
            first, last = math.floor(first), math.ceil(last)
        first, last = max(first, 0), min(last, 2 * pairs - 1)
        index = torch.arange(pairs, device=frequencies.device, dtype=frequencies.dtype)
        slow = ((index - first) / max(last - first, 0.001)).clamp(0, 1)
        return frequencies / self.factor * slow + frequencies * (1 - slow)

    def _pair_of(self, turns: float, pairs: int, theta: float) -> float:
        """The (fractional) pair that turns that often within the original context."""
        return pairs * math.log(self.original_context / (turns * 2 * math.pi)) / math.log(theta)


@dataclass(frozen=True, kw_only=True)
class LongRopeScaling:
    """LongRoPE: each pair has its own divisor, found by search (Ding et al. 2024).

    Checkpoints carry two lists, one for texts within the first training's context and one for longer ones. A spec holds
    the one of them that fits its context, so that a cached key means the same however long the text becomes.

    Attributes:
        divisors: one per pair.
        attention_factor: the amplitude.
    """

    divisors: tuple[float, ...]
    attention_factor: float = 1.0

    @property
    def amplitude(self) -> float:
        return self.attention_factor

    def scale(self, frequencies: Float[Tensor, "pairs"], theta: float) -> Float[Tensor, "pairs"]:
        divisors = torch.tensor(self.divisors, device=frequencies.device, dtype=frequencies.dtype)
        if divisors.shape != frequencies.shape:
            raise ValueError(f"one divisor per pair is needed: {len(frequencies)}, got {len(divisors)}")
        return frequencies / divisors
