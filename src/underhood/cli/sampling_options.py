"""Sampling options that every command that generates text has."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """How the next token is drawn, and what ends a text."""

    temperature: float | None = None
    """0 always takes the most probable token; 1 follows the model's own probabilities. Left out, it is 0.7, and 0 for
    answers from documents."""

    top_k: int | None = None
    """Draws from the k most probable tokens only."""

    top_p: float | None = None
    """Draws from the fewest tokens that together reach this probability."""

    min_p: float | None = 0.05
    """Leaves out tokens less probable than this fraction of the most probable."""

    seed: int | None = None
    """Makes the draws repeatable."""

    repetition_penalty: float = 1.0
    """Above 1 it makes tokens less probable that the text already holds."""

    stop: tuple[str, ...] = ()
    """Stop strings: they end the text and are left out of it."""

    def temperature_or(self, default: float = 0.7) -> float:
        """The temperature asked for, or the default."""
        return default if self.temperature is None else self.temperature
