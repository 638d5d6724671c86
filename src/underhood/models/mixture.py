"""Linear interpolation of a neural language model with an n-gram: ``p = λ p_neural + (1 − λ) p_counted``.

Bengio et al. 2003 (section 4) publish their best results with such a mixture, half neural and half an interpolated
trigram: the two models err in different places. Here the n-gram is a Kneser–Ney one, which is stronger.

The neural model learns alone. In training mode the mixture gives the scores of that model and nothing else, because on
text that was counted the n-gram is nearly certain, and would leave the neural model little to learn.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from underhood.core.protocols import AttendingCache, Cache, ModelSpec, RecurrentCache
from underhood.core.state import StateSpec
from underhood.models.base import BuiltModel
from underhood.models.ngram import NGramSpec


@dataclass(frozen=True, kw_only=True)
class MixtureSpec:
    """A neural language model mixed with an n-gram.

    Attributes:
        neural: the model that learns by gradients; its vocabulary is the n-gram's.
        counted: the n-gram.
        share: λ, the weight of the neural model, between 0 and 1; see `likeliest_share`.
    """

    neural: ModelSpec
    counted: NGramSpec
    share: float = 0.5

    def __post_init__(self):
        if self.neural.vocab_size != self.counted.vocab_size:
            raise ValueError(
                f"both models need the same vocabulary, got {self.neural.vocab_size} and {self.counted.vocab_size}"
            )
        if not 0 < self.share < 1:
            raise ValueError(f"share must be between 0 and 1, got {self.share}")

    @property
    def vocab_size(self) -> int:
        return self.neural.vocab_size

    @property
    def context_length(self) -> int | None:
        """That of the neural model."""
        return self.neural.context_length

    @property
    def state_specs(self) -> tuple[StateSpec, ...]:
        """The neural model's layers, then the n-gram's."""
        return (*self.neural.state_specs, *self.counted.state_specs)

    @property
    def flops_per_token(self) -> float:
        return self.neural.flops_per_token

    def facts(self) -> dict[str, str]:
        """The spec in words, for a list."""
        return self.neural.facts() | {"Mixed with": f"{1 - self.share:.0%} of a {self.counted.order}-gram"}

    def build(self) -> "Mixture":
        return Mixture(self, self.neural.build(), self.counted.build())

    def initialize(self, *, seed: int, embed_std: float = 0.02) -> "Mixture":
        """A fresh neural model, and an n-gram that has read nothing (see `Mixture.count_documents`)."""
        return Mixture(self, self.neural.initialize(seed=seed, embed_std=embed_std), self.counted.build())


class Mixture(BuiltModel):
    """A neural language model mixed with an n-gram; answers `core.protocols.LanguageModel`.

    Scores are natural-log probabilities of the mixture in evaluation mode, the neural model's scores in training mode.
    """

    sized_by_text = True

    def __init__(self, spec: MixtureSpec, neural: Any, counted: Any):
        super().__init__()
        self.spec, self.neural, self.counted = spec, neural, counted

    @property
    def context_length(self) -> int | None:
        """What the neural model can read."""
        return self.neural.context_length

    def count_documents(self, documents: Iterable[Sequence[int] | NDArray[np.int64]]) -> None:
        """Counts the n-grams of documents of token ids; earlier counts are replaced."""
        self.counted.fit(documents)

    def forward(
        self,
        tokens: Int[Tensor, "B T"],
        *,
        cache: Cache | AttendingCache | None = None,
        positions: Int[Tensor, "#B T"] | None = None,
    ) -> Float[Tensor, "B T V"]:
        """Scores of the next token after each of T tokens; see `LanguageModel` for what positions mean."""
        shared = None if cache is None else _SharedExtension(cache)
        layers = len(self.spec.neural.state_specs)
        logits_BTV = self.neural(tokens, cache=shared and shared.layers_from(0), positions=positions)
        if self.training:
            return logits_BTV
        counted_BTV = self.counted(tokens, cache=shared and shared.layers_from(layers), positions=positions)
        return self._mixed(logits_BTV.log_softmax(dim=-1), counted_BTV)

    def target_log_probs(
        self,
        tokens: Int[Tensor, "B T"],
        targets: Int[Tensor, "B T"],
        *,
        positions: Int[Tensor, "#B T"] | None = None,
    ) -> Float[Tensor, "B T"]:
        """log p of one target per position, 0 where the target is negative: `forward`'s numbers, much cheaper."""
        real_BT = targets >= 0
        log_BTV = self.neural(tokens, positions=positions).log_softmax(dim=-1)
        neural_BT = log_BTV.gather(-1, targets.where(real_BT, 0)[..., None])[..., 0]
        counted_BT = self.counted.target_log_probs(tokens, targets, positions=positions)
        return self._mixed(neural_BT.double(), counted_BT) * real_BT

    def _mixed(self, neural: Tensor, counted: Tensor) -> Tensor:
        share = self.spec.share
        return torch.logaddexp(neural + math.log(share), counted.to(neural.dtype) + math.log1p(-share))


def likeliest_share(neural_N: NDArray[np.float64], counted_N: NDArray[np.float64], *, rounds: int = 100) -> float:
    """The λ of ``λ p + (1 − λ) q`` that makes held-out tokens likeliest, by expectation–maximisation.

    Each round sets λ to the mean probability that a token came from the neural model (Jelinek and Mercer 1980).

    Args:
        neural_N, counted_N: log p of each token under both models, on text that neither was trained on.
    """
    share = 0.5
    for _ in range(rounds):
        ratio_N = np.exp(np.clip(counted_N - neural_N, -700, 700)) * (1 - share)
        share = float((share / (share + ratio_N)).mean())
    return share


class _SharedExtension:
    """One cache for two models that read the same tokens: it is extended once, and each has layers of its own."""

    def __init__(self, cache: Cache | AttendingCache):
        self.cache, self.plain = cache, cache.plain
        self._extension: tuple[Tensor, Tensor] | None = None

    def layers_from(self, first: int) -> Any:
        return (_AttendingLayers if hasattr(self.cache, "attend") else _Layers)(self, first)

    def extend(self, count: int, positions_BT: Tensor | None) -> tuple[Tensor, Tensor]:
        if self._extension is None:
            self._extension = self.cache.extend(count, positions_BT)
        return self._extension


class _Layers:
    """The layers of a cache from number `first` on; answers `core.protocols.RecurrentCache`."""

    def __init__(self, shared: _SharedExtension, first: int):
        self._shared, self._first = shared, first
        self._cache: Any = shared.cache
        self.plain, self.extend = shared.plain, shared.extend

    @property
    def length(self) -> int:
        return self._cache.length

    def update(self, layer: int, *new: Tensor) -> tuple[Tensor, ...]:
        return self._cache.update(self._first + layer, *new)

    def recurrent(self, layer: int) -> tuple[Tensor, ...]:
        return cast(RecurrentCache, self._cache).recurrent(self._first + layer)

    def set_recurrent(self, layer: int, *state: Tensor) -> None:
        cast(RecurrentCache, self._cache).set_recurrent(self._first + layer, *state)


class _AttendingLayers(_Layers):
    """The same for a cache that attends; answers `core.protocols.AttendingCache`."""

    def attend(self, layer: int, *tensors: Tensor, **rules: Any) -> Tensor:
        return self._cache.attend(self._first + layer, *tensors, **rules)

    def recent(self, layer: int, x_BTD: Tensor, count: int) -> Tensor:
        return self._cache.recent(self._first + layer, x_BTD, count)
