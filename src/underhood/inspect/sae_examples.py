"""Maximally activating examples: where in a corpus a feature of a sparse autoencoder is strongest.

A feature is a direction; its meaning is read from the tokens on which it is strong, with their context (Bricken et
al. 2023). Its density, the share of all tokens that use it, tells a rare feature from one that is always on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
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


@dataclass(frozen=True, repr=False)
class CorpusFeatures:
    """The features of every token of a corpus.

    Attributes:
        autoencoder: whose features they are.
        windows: token ids of the corpus.
        values: the activations.
        strengths: of the features in use, (N, k); skipped tokens have strength 0.
        chosen: which features, (N, k).
        density: share of the tokens that use each feature, (M,).
    """

    autoencoder: SparseAutoencoder
    windows: Sequence[Sequence[int]]
    values: CorpusValues
    strengths: Float[Tensor, "N k"]
    chosen: Int[Tensor, "N k"]
    density: Float[Tensor, "M"]

    def strength(self, feature: int) -> Float[Tensor, "N"]:
        """How strong a feature is on every token."""
        return torch.where(self.chosen == feature, self.strengths, 0.0).amax(dim=1)

    def strongest(self, feature: int, count: int) -> list[int]:
        """The tokens on which a feature is strongest, one of each window: a single text does not fill the list."""
        strength_N = self.strength(feature)
        tokens: list[int] = []
        seen: set[int] = set()
        for token in strength_N.argsort(descending=True).tolist():
            if strength_N[token] <= 0 or len(tokens) == count:
                break
            window = int(self.values.windows[token])
            if window not in seen:
                seen.add(window)
                tokens.append(token)
        return tokens

    def used(self) -> list[int]:
        """The features that are used at all, the one with the strongest token first."""
        largest_M = torch.zeros(len(self.density))
        largest_M.scatter_reduce_(0, self.chosen.flatten(), self.strengths.flatten(), "amax")
        return [number for number in largest_M.argsort(descending=True).tolist() if self.density[number] > 0]

    def examples(self, loaded: LoadedModel, feature: int, *, count: int, context: int) -> FeatureExamples:
        """A feature with its strongest tokens."""
        strength_N = self.strength(feature)
        shown = []
        for token in self.strongest(feature, count):
            window, position = self.windows[int(self.values.windows[token])], int(self.values.positions[token])
            pieces = pieces_of(loaded, window[max(0, position - context) : position + context + 1])
            middle = min(position, context)
            before, after = "".join(pieces[:middle]), "".join(pieces[middle + 1 :])
            shown.append(FeatureExample(before, pieces[middle], after, float(strength_N[token])))
        return FeatureExamples(feature, float(self.density[feature]), tuple(shown))

    def __repr__(self) -> str:
        return f"<{self.autoencoder!r} on {len(self.values.ids):,} tokens>"


def corpus_features(
    loaded: LoadedModel, autoencoder: SparseAutoencoder, texts: Sequence[str], *, window: int = WINDOW
) -> CorpusFeatures:
    """The features of every token of some texts."""
    windows = token_windows(loaded, texts, length=window)
    return features_of(autoencoder, windows, corpus_values(loaded, windows, [autoencoder.site]))


def features_of(
    autoencoder: SparseAutoencoder, windows: Sequence[Sequence[int]], values: CorpusValues
) -> CorpusFeatures:
    """The features of windows whose values at the autoencoder's site are known."""
    x_ND = values[autoencoder.site]
    pieces = [autoencoder.features(x_ND[start : start + ROWS]) for start in range(0, len(x_ND), ROWS)]
    strengths_Nk, chosen_Nk = (torch.cat(each) for each in zip(*pieces, strict=True))
    strengths_Nk = strengths_Nk * (values.positions >= SKIPPED)[:, None]
    used = chosen_Nk[strengths_Nk > 0]
    density_M = used.bincount(minlength=len(autoencoder.decoder)) / max(int((values.positions >= SKIPPED).sum()), 1)
    return CorpusFeatures(autoencoder, windows, values, strengths_Nk, chosen_Nk, density_M)


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
    corpus = corpus_features(loaded, autoencoder, texts, window=window)
    wanted = corpus.used() if features is None else features
    return [corpus.examples(loaded, number, count=count, context=context) for number in wanted]
