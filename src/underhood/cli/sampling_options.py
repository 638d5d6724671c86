"""Sampling options that every command that generates text has."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from underhood.infer.sample import SamplingSpec


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """How the next token is drawn, and what ends a text."""

    temperature: float | None = None
    """0 always takes the most probable token; 1 follows the model's own probabilities. Left out, it is what the model's
    files name, else 0 for answers of models below a billion parameters and for answers from documents, else 0.7."""

    top_k: int | None = None
    """Draws from the k most probable tokens only; 0 from all."""

    top_p: float | None = None
    """Draws from the fewest tokens that together reach this probability."""

    min_p: float | None = None
    """Leaves out tokens less probable than this fraction of the most probable; 0.05 where nothing is named."""

    seed: int | None = None
    """Makes the draws repeatable."""

    repetition_penalty: float | None = None
    """Above 1 it makes tokens less probable that the text already holds."""

    stop: tuple[str, ...] = ()
    """Stop strings: they end the text and are left out of it."""

    def sampling(self, default: SamplingSpec) -> SamplingSpec:
        """The model's default with what the options say otherwise.

        Raises:
            UserError: a value out of its range.
        """
        names = ("temperature", "top_k", "top_p", "min_p", "seed", "repetition_penalty")
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        if default.greedy and given.get("temperature"):  # drawn after all: as text is drawn elsewhere
            from underhood.infer.default_sampling import DRAWN

            default = DRAWN
        off = {name: None for name in ("top_k", "min_p") if given.get(name) == 0}
        return replace(default, **given | off | ({"top_p": None} if given.get("top_p") == 1 else {}))
