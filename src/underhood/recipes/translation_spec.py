"""Settings of an encoder–decoder trained on pairs; reading them loads no PyTorch."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, Self

TRANSLATE_FILE = "translate.toml"
"""The file of a run that holds these settings."""

DATES = "dates"
"""Names, in place of a file, dates as people write them and their ISO form (see `data.dates`)."""


@dataclass(frozen=True, kw_only=True)
class TranslateSpec:
    """Everything that decides what a training on pairs does. The data decide fields that are None.

    Attributes:
        data: files of pairs to learn from, or dates.
        source_column: column of the sources, if not called source, src, input and the like.
        target_column: column of the targets, if not called target, tgt, translation and the like.
        minutes: time for training; the number of steps follows the clock.
        steps: optimiser steps, instead of minutes.
        tokens: byte pairs or single characters; characters where texts are short and have few different ones.
        vocab_size: byte-pair tokens that both sides share.
        context_length: longer pairs, in tokens, are left out.
        d_model: width of the residual stream; 64 for characters, 128 for byte pairs if left out.
        layers: blocks of the encoder, and of the decoder.
        heads: attention heads.
        d_ff: width of the feed-forward layers; four times d_model if left out.
        norm: before each sublayer (pre) or after it, as in 2017 (post).
        positions: sinusoidal or learned embeddings, or relative to the query (Shaw).
        dropout: share of what each sublayer adds that is left out at random; 0 for characters, else 0.1, if not given.
        smoothing: label smoothing: share of each target's probability that all tokens divide.
        batch_tokens: target tokens per step, and as many source tokens, padding included.
        lr: highest learning rate; by the width if left out.
        schedule: linear warms up for a tenth of the steps and falls to 0; noam falls as the root of the step.
        warmup: steps that the noam schedule climbs.
        average: how many of the last checkpoints are averaged; 1 for none.
        test: share of the sources that is held out, 1,000 at most.
        seed: of everything that is random.
        device: where to compute: cpu, cuda or mps; the fastest if left out.
        dtype: format of matrix products; if left out, bfloat16 where that is faster.
    """

    data: tuple[str, ...]
    source_column: str | None = None
    target_column: str | None = None
    minutes: float = 2.0
    steps: int | None = None
    tokens: Literal["bpe", "characters"] | None = None
    vocab_size: int = 4000
    context_length: int = 128
    d_model: int | None = None
    layers: int = 2
    heads: int = 4
    d_ff: int | None = None
    norm: Literal["pre", "post"] = "pre"
    positions: Literal["sinusoidal", "learned", "relative"] = "sinusoidal"
    dropout: float | None = None
    smoothing: float = 0.1
    batch_tokens: int = 1024
    lr: float | None = None
    schedule: Literal["linear", "noam"] = "linear"
    warmup: int = 400
    average: int = 5
    test: float = 0.1
    seed: int = 0
    device: str | None = None
    dtype: Literal["float32", "bfloat16"] | None = None

    def __post_init__(self):
        if not self.data:
            raise ValueError("data must name at least one file")
        for name in ("context_length", "layers", "heads", "batch_tokens", "warmup", "average"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        width = self.width("bpe")
        if width < 1 or width % self.heads or width % 2:
            raise ValueError(f"d_model must be even and a multiple of heads, got {width} and {self.heads}")
        for name, share in (("dropout", self.dropout or 0.0), ("smoothing", self.smoothing)):
            if not 0 <= share < 1:
                raise ValueError(f"{name} is a share from 0 up to 1, got {share}")
        if not 0 < self.test < 1:
            raise ValueError(f"test is a share between 0 and 1, got {self.test}")
        if not self.minutes > 0 or (self.steps is not None and self.steps < 1):
            raise ValueError(f"minutes and steps must be positive, got {self.minutes} and {self.steps}")

    def width(self, tokens: Literal["bpe", "characters"]) -> int:
        """The width of the residual stream, for tokens of a kind."""
        return self.d_model or (64 if tokens == "characters" else 128)

    def dropout_rate(self, tokens: Literal["bpe", "characters"]) -> float:
        """The dropout, for tokens of a kind."""
        return self.dropout if self.dropout is not None else (0.0 if tokens == "characters" else 0.1)

    @property
    def settings(self) -> Self:
        """These settings alone, where a subclass (the options of a command) holds more."""
        own = next(cls for cls in type(self).__mro__ if cls.__module__ == __name__)
        return own(**{each.name: getattr(self, each.name) for each in fields(own)})
