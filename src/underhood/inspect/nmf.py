"""Non-negative matrix factorisation by hierarchical alternating least squares (Lee & Seung 1999; Cichocki & Phan 2009).

A matrix without negative entries becomes a product of two thin ones without negative entries, ``X ≈ W H``: each row
of X is a sum of factors, and nothing that a factor brings is taken away by another. That makes factors readable. The
problem has many solutions; what comes out depends on the start, so factors of several starts are matched and compared.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from underhood.core.errors import UserError

SMALL = 1e-12


@dataclass(frozen=True, repr=False)
class Factorisation:
    """``X ≈ W H`` with K factors.

    Attributes:
        strengths: W, how much of each factor a row of X has, (N, K).
        factors: H, (K, F).
        error: ``‖X − W H‖``, the Frobenius norm.
        iterations: updates of both that were made.
    """

    strengths: Float[Tensor, "N K"]
    factors: Float[Tensor, "K F"]
    error: float
    iterations: int

    def __repr__(self) -> str:
        return f"<{len(self.factors)} non-negative factors after {self.iterations} iterations, error {self.error:.4g}>"


def factorise(
    x_NF: Float[Tensor, "N F"],
    count: int,
    *,
    seed: int = 0,
    start: tuple[Float[Tensor, "N K"], Float[Tensor, "K F"]] | None = None,
    iterations: int = 300,
    tolerance: float = 1e-5,
) -> Factorisation:
    """Factors of a non-negative matrix.

    Each column of W, and each row of H, is set in turn to its least-squares optimum with all others held, clipped at 0.
    No such update can raise the error.

    Args:
        count: K.
        start: W and H to begin with; None draws them from the seed.
        tolerance: stops when 10 iterations lower the error by less than this share.

    Raises:
        UserError: the matrix has a negative entry, or fewer rows or columns than factors.
    """
    if bool((x_NF < 0).any()):
        raise UserError("the matrix has negative entries", fix="Clip it at 0 first")
    if not 1 <= count <= min(x_NF.shape):
        raise UserError("the number of factors is out of range", expected=f"1 to {min(x_NF.shape)}", got=str(count))
    x_NF = x_NF.double()
    w_NK, h_KF = (each.double().clone() for each in (start or _random_start(x_NF, count, seed)))
    error = before = float((x_NF - w_NK @ h_KF).norm())
    iteration = 0
    for iteration in range(1, iterations + 1):
        _update_columns(w_NK, x_NF @ h_KF.T, h_KF @ h_KF.T)
        _update_columns(h_KF.T, x_NF.T @ w_NK, w_NK.T @ w_NK)
        if iteration % 10 == 0:
            error = float((x_NF - w_NK @ h_KF).norm())
            if before - error <= tolerance * before:
                break
            before = error
    return Factorisation(w_NK, h_KF, float((x_NF - w_NK @ h_KF).norm()), iteration)


def match_factors(
    first_KF: Float[Tensor, "K F"], second_KF: Float[Tensor, "K F"]
) -> tuple[list[int], Float[Tensor, "K"]]:
    """For each factor of the first its counterpart in the second, and how far the two correlate.

    Counterparts are the pairing with the largest sum of correlations (the Hungarian method, Kuhn 1955). Cosines would
    not do: without negative entries even unrelated factors have large ones.
    """
    correlations_KK = _standardised(first_KF) @ _standardised(second_KF).T
    _, partners = linear_sum_assignment(correlations_KK.numpy(), maximize=True)
    return [int(partner) for partner in partners], correlations_KK[range(len(first_KF)), partners]


def _random_start(x_NF: Tensor, count: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    scale = float(x_NF.mean() / count) ** 0.5
    draws = [torch.rand(shape, generator=generator) for shape in ((len(x_NF), count), (count, x_NF.shape[1]))]
    return draws[0] * 2 * scale, draws[1] * 2 * scale


def _update_columns(w_NK: Tensor, xh_NK: Tensor, hh_KK: Tensor) -> None:
    """Sets each column of W in turn to its optimum, given ``X Hᵀ`` and ``H Hᵀ``; in place.

    A column of zeros would never change again. It gets a tiny value instead, from which the next updates can make it
    fit what is left over.
    """
    tiny = 1e-6 * float(w_NK.mean()) + SMALL
    for factor in range(w_NK.shape[1]):
        if hh_KK[factor, factor] > 0:
            change_N = (xh_NK[:, factor] - w_NK @ hh_KK[:, factor]) / hh_KK[factor, factor]
            w_NK[:, factor] = (w_NK[:, factor] + change_N).clamp(min=0)
        if not bool(w_NK[:, factor].any()):
            w_NK[:, factor] = tiny


def _standardised(x_KF: Tensor) -> Tensor:
    x_KF = x_KF - x_KF.mean(dim=1, keepdim=True)
    return x_KF / x_KF.norm(dim=1, keepdim=True).clamp(min=SMALL)
