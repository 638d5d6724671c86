"""Similarity of representations: linear CKA (Kornblith et al. 2019) and SVCCA (Raghu et al. 2017).

Two layers, checkpoints or models that see the same tokens give two clouds of points. Both measures ask how alike the
clouds are, whatever way they are turned: CKA compares which tokens are close to which and weighs directions by their
variance; SVCCA looks for directions of the two that correlate, among those that hold most of the variance.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from underhood.core.errors import UserError
from underhood.infer.load import LoadedModel
from underhood.inspect.corpus_values import SKIPPED, corpus_values, token_windows
from underhood.inspect.trace import Trace
from underhood.ui import notebook

Measure = Literal["cka", "unbiased_cka", "svcca"]
VARIANCE_KEPT = 0.99
"""Share of the variance that SVCCA keeps of each cloud, as in the paper."""


@dataclass(frozen=True, repr=False)
class LayerSimilarity:
    """Similarity of each residual stream of one model with each of another, or of itself.

    Attributes:
        measure: ``cka``, ``unbiased_cka`` or ``svcca``.
        values: (L + 1, M + 1), from 0 to 1 (unbiased CKA may fall a little below 0).
        tokens: how many they are measured on.
    """

    measure: Measure
    values: Float[Tensor, "L M"]
    tokens: int

    def __repr__(self) -> str:
        rows, columns = self.values.shape
        return f"<{self.measure} of {rows} × {columns} residual streams on {self.tokens:,} tokens>"

    def _repr_html_(self) -> str:
        rows, columns = self.values.shape
        shares = self.values.clamp(0, 1).tolist()
        return notebook.framed(notebook.heat_table([*map(str, range(rows))], [*map(str, range(columns))], shares))


def layer_similarity(
    first: Trace | Float[Tensor, "L N D"],
    second: Trace | Float[Tensor, "M N E"] | None = None,
    *,
    measure: Measure = "cka",
) -> LayerSimilarity:
    """Compares the residual streams of one model with each other, or with those of another model.

    Args:
        first: a trace with ``residual`` of every layer, or the streams themselves (see `stream_values`).
        second: of the same tokens in another model; None compares the first with itself.

    Raises:
        UserError: the two are of different tokens, or there are too few for the measure.
    """
    streams = [
        each.layers("residual") if isinstance(each, Trace) else each
        for each in (first, first if second is None else second)
    ]
    same_ids = not isinstance(first, Trace) or not isinstance(second, Trace) or first.ids == second.ids
    if streams[0].shape[1] != streams[1].shape[1] or not same_ids:
        raise UserError("the two are of different tokens", expected="the same tokens in both models")
    streams = [each.double() for each in streams]
    if measure == "svcca":
        prepared = [[_directions(x_ND) for x_ND in each] for each in streams]
        values = [[_mean_correlation(first_NP, second_NQ) for second_NQ in prepared[1]] for first_NP in prepared[0]]
    else:
        alignment = _alignment if measure == "cka" else _unbiased_alignment
        prepared = [[_gram(x_ND) for x_ND in each] for each in streams]
        values = [[alignment(k_NN, l_NN) for l_NN in prepared[1]] for k_NN in prepared[0]]
    return LayerSimilarity(measure, torch.tensor(values), streams[0].shape[1])


def stream_values(loaded: LoadedModel, texts: Sequence[str], *, tokens: int = 1000) -> Float[Tensor, "L N D"]:
    """The residual streams of every layer for the first tokens of some texts, first tokens of windows left out.

    The streams of those few are so large in some layers of most models that they alone would decide the similarity.
    """
    windows = token_windows(loaded, texts)
    kept = itertools.accumulate(len(each) - SKIPPED for each in windows)
    windows = windows[: sum(count < tokens for count in kept) + 1]
    values = corpus_values(loaded, windows, ["residual"])
    later_N = values.positions >= SKIPPED
    return torch.stack(
        [values[f"residual.{layer}"][later_N][:tokens] for layer in range(len(loaded.decoder.blocks) + 1)]
    )


def linear_cka(x_ND: Float[Tensor, "N D"], y_NE: Float[Tensor, "N E"], *, unbiased: bool = False) -> float:
    """Centred kernel alignment with linear kernels: ``‖Yᵀ X‖² / (‖Xᵀ X‖ ‖Yᵀ Y‖)`` of centred X and Y.

    It does not change when either is rotated or scaled as a whole.

    Args:
        unbiased: estimates each product without its diagonal (Song et al. 2012, eq. 5). With fewer tokens than
            dimensions the plain one calls even random clouds similar.

    Source: Kornblith et al. 2019, eqs 4 and 5.
    """
    alignment = _unbiased_alignment if unbiased else _alignment
    return alignment(_gram(x_ND.double()), _gram(y_NE.double()))


def svcca(x_ND: Float[Tensor, "N D"], y_NE: Float[Tensor, "N E"]) -> float:
    """Mean canonical correlation of the directions that hold most of the variance of each.

    It does not change when either is rotated or scaled as a whole.

    Raises:
        UserError: there are no more tokens than directions; correlations are then 1 whatever the values are.
    """
    return _mean_correlation(*(_directions(each.double()) for each in (x_ND, y_NE)))


def canonical_correlations(x_ND: Float[Tensor, "N D"], y_NE: Float[Tensor, "N E"]) -> Float[Tensor, "C"]:
    """Canonical correlations, the largest first (Hotelling 1936).

    They do not change under any invertible linear map of either.
    """
    bases = [torch.linalg.qr(each.double() - each.double().mean(dim=0)).Q for each in (x_ND, y_NE)]
    return torch.linalg.svdvals(bases[0].T @ bases[1]).clamp(max=1.0)


def _gram(x_ND: Tensor) -> Tensor:
    x_ND = x_ND - x_ND.mean(dim=0)
    return x_ND @ x_ND.T


def _alignment(k_NN: Tensor, l_NN: Tensor) -> float:
    norms = k_NN.norm() * l_NN.norm()
    return float((k_NN * l_NN).sum() / norms) if norms > 0 else 0.0


def _unbiased_alignment(k_NN: Tensor, l_NN: Tensor) -> float:
    if len(k_NN) < 4:
        raise UserError("unbiased CKA needs at least 4 tokens", got=str(len(k_NN)))
    norms = _unbiased_hsic(k_NN, k_NN) * _unbiased_hsic(l_NN, l_NN)
    return _unbiased_hsic(k_NN, l_NN) / norms**0.5 if norms > 0 else 0.0


def _unbiased_hsic(k_NN: Tensor, l_NN: Tensor) -> float:
    n = len(k_NN)
    k_NN, l_NN = (each - each.diag().diag() for each in (k_NN, l_NN))
    product = (k_NN * l_NN).sum() + k_NN.sum() * l_NN.sum() / ((n - 1) * (n - 2))
    return float((product - 2 / (n - 2) * (k_NN.sum(dim=0) @ l_NN.sum(dim=0))) / (n * (n - 3)))


def _directions(x_ND: Tensor) -> Tensor:
    """An orthonormal basis, over the tokens, of the directions that hold `VARIANCE_KEPT` of the variance: (N, P)."""
    left, sizes, _ = torch.linalg.svd(x_ND - x_ND.mean(dim=0), full_matrices=False)
    shares = sizes.square().cumsum(0) / sizes.square().sum().clamp(min=1e-30)
    return left[:, : int((shares < VARIANCE_KEPT).sum()) + 1]


def _mean_correlation(first_NP: Tensor, second_NQ: Tensor) -> float:
    tokens, directions = len(first_NP), first_NP.shape[1] + second_NQ.shape[1]
    if tokens <= directions:
        raise UserError(
            f"{tokens} tokens are too few for SVCCA of {directions} directions",
            expected="more tokens than directions, better ten times as many",
            fix="Give a longer text, or use CKA",
        )
    return float(torch.linalg.svdvals(first_NP.T @ second_NQ).clamp(max=1.0).mean())
