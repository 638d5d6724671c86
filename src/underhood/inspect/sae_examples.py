"""Maximally activating examples: where in a corpus a feature of a sparse autoencoder is strongest.

A feature is a direction; its meaning is read from the tokens on which it is strong, with their context (Bricken et
al. 2023). Its density, the share of all tokens that use it, tells a rare feature from one that is always on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from underhood.core.errors import UserError
from underhood.infer.load import LoadedModel
from underhood.inspect.corpus_values import SKIPPED, WINDOW, CorpusValues, corpus_values, token_windows
from underhood.inspect.sae import SparseAutoencoder
from underhood.inspect.trace import pieces_of
from underhood.ui import notebook

ROWS = 4096
"""Tokens whose features are worked out at once."""


@dataclass(frozen=True)
class FeatureExample:
    """A token on which a feature is strong, with what is around it."""

    before: str
    token: str
    after: str
    strength: float


@dataclass(frozen=True, repr=False)
class FeatureExamples:
    """A feature with its strongest tokens.

    Attributes:
        feature: its number.
        density: share of the tokens that use it.
        examples: the strongest first, at most one of each window.
    """

    feature: int
    density: float
    examples: tuple[FeatureExample, ...]

    def __repr__(self) -> str:
        tokens = " ".join(example.token for example in self.examples[:5])
        return f"<feature {self.feature}, on {self.density:.2%} of the tokens: {tokens}>"

    def _repr_html_(self) -> str:
        rows = [[each.strength, each.before, each.token, each.after] for each in self.examples]
        title = {"Feature": self.feature, "Used on": f"{self.density:.2%} of the tokens"}
        return notebook.framed(
            notebook.facts_table("Strongest tokens", title), notebook.data_table(["strength", "", "token", ""], rows)
        )


def feature_examples(
    loaded: LoadedModel,
    autoencoder: SparseAutoencoder,
    texts: Sequence[str],
    *,
    features: Sequence[int] | None = None,
    count: int = 5,
    context: int = 8,
    window: int = WINDOW,
) -> list[FeatureExamples]:
    """The tokens of a corpus on which features are strongest.

    Args:
        features: which ones; None takes all that are used at all, the one with the strongest token first.
        count: examples of each.
        context: tokens that are shown before and after.

    Raises:
        UserError: a feature that the autoencoder has not.
    """
    available = len(autoencoder.decoder)
    if features is not None and (unknown := [number for number in features if not 0 <= number < available]):
        raise UserError(f"the autoencoder has no feature {unknown[0]}", expected=f"0 to {available - 1}")
    windows = token_windows(loaded, texts, length=window)
    values = corpus_values(loaded, windows, [autoencoder.site])
    strengths_Nk, chosen_Nk = corpus_features(autoencoder, values)
    used = chosen_Nk[strengths_Nk > 0]
    density_M = used.bincount(minlength=available).float() / max(int((values.positions >= SKIPPED).sum()), 1)
    if features is None:
        largest_M = torch.zeros(available).scatter_reduce(0, chosen_Nk.flatten(), strengths_Nk.flatten(), "amax")
        features = [number for number in largest_M.argsort(descending=True).tolist() if density_M[number] > 0]
    results = []
    for number in features:
        strength_N = torch.where(chosen_Nk == number, strengths_Nk, 0.0).amax(dim=1)
        tokens = _strongest_of_windows(strength_N, values, count)
        shown = [_example(loaded, windows, values, token, float(strength_N[token]), context) for token in tokens]
        results.append(FeatureExamples(number, float(density_M[number]), tuple(shown)))
    return results


def corpus_features(autoencoder: SparseAutoencoder, values: CorpusValues) -> tuple[Tensor, Tensor]:
    """The features of every token of a corpus, strengths and numbers, both (N, k); skipped tokens have strength 0."""
    x_ND = values[autoencoder.site]
    pieces = [autoencoder.features(x_ND[start : start + ROWS]) for start in range(0, len(x_ND), ROWS)]
    strengths_Nk, chosen_Nk = (torch.cat(each) for each in zip(*pieces, strict=True))
    return strengths_Nk * (values.positions >= SKIPPED)[:, None], chosen_Nk


def _strongest_of_windows(strength_N: Tensor, values: CorpusValues, count: int) -> list[int]:
    """The strongest tokens, one of each window, so that a single text does not fill the list."""
    tokens: list[int] = []
    seen: set[int] = set()
    for token in strength_N.argsort(descending=True).tolist():
        if strength_N[token] <= 0 or len(tokens) == count:
            break
        window = int(values.windows[token])
        if window not in seen:
            seen.add(window)
            tokens.append(token)
    return tokens


def _example(
    loaded: LoadedModel,
    windows: Sequence[Sequence[int]],
    values: CorpusValues,
    token: int,
    strength: float,
    context: int,
) -> FeatureExample:
    window, position = windows[int(values.windows[token])], int(values.positions[token])
    pieces = pieces_of(loaded, window[max(0, position - context) : position + context + 1])
    middle = min(position, context)
    return FeatureExample("".join(pieces[:middle]), pieces[middle], "".join(pieces[middle + 1 :]), strength)
