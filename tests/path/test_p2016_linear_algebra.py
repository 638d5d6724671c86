"""Principal components against scikit-learn's, determinants against LAPACK's, and angles by definition."""

from __future__ import annotations

import numpy as np
from sklearn.decomposition import PCA

from underhood.data.digits import digits
from underhood.path.p2016_linear_algebra.run import at_right_angles, decomposed, determinant, stretched_most


def test_components_of_digits_match_scikit_learn():
    x = np.concatenate([piece.x for piece in digits(0)]).reshape(-1, 64).astype(float)
    theirs = PCA(10).fit(x)
    values, vectors = stretched_most(np.cov(x.T), 15, np.random.default_rng(0))
    np.testing.assert_allclose(values[:10], theirs.explained_variance_, rtol=1e-8)
    products = (vectors[:, :5] * np.asarray(theirs.components_)[:5].T).sum(axis=0)
    np.testing.assert_allclose(np.abs(products), 1, atol=1e-8)
    np.testing.assert_allclose((values / np.cov(x.T).trace())[:2].sum(), 0.2851, atol=5e-5)


def test_determinant_and_decomposition_match_lapack():
    A = np.random.default_rng(1).standard_normal((5, 5))
    np.testing.assert_allclose(determinant(A), np.linalg.det(A))
    U, stretch, V = decomposed(A, np.random.default_rng(0))
    np.testing.assert_allclose(stretch, np.linalg.svd(A, compute_uv=False))
    np.testing.assert_allclose(U * stretch @ V.T, A, atol=1e-9)


def test_columns_are_put_at_right_angles_even_where_they_nearly_agree():
    V = np.ones((6, 3)) + 1e-7 * np.random.default_rng(0).standard_normal((6, 3))
    actual = at_right_angles(V)
    np.testing.assert_allclose(actual.T @ actual, np.eye(3), atol=1e-12)
