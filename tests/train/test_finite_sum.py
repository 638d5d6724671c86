"""Stochastic and second-order descent against scikit-learn, SciPy and exact identities."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize
from sklearn.linear_model import LogisticRegression

from underhood.grad.check import gradient_error
from underhood.train.curvature import conjugate_gradients, lbfgs, newton
from underhood.train.finite_sum import Logistic, full, saga, stochastic, svrg


@pytest.fixture(scope="module")
def problem() -> Logistic:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 5))
    y = np.where(rng.random(200) < 1 / (1 + np.exp(-x @ rng.standard_normal(5))), 1.0, -1.0)
    return Logistic(x, y, ridge=0.05)


def start(runs: int = 3) -> np.ndarray:
    return np.zeros((runs, 5))


def test_minimum_matches_scikit_learn_and_scipy(problem: Logistic):
    w, value = problem.best()
    theirs = LogisticRegression(C=1 / (problem.ridge * len(problem)), fit_intercept=False, tol=1e-12, max_iter=1000)
    np.testing.assert_allclose(w, theirs.fit(problem.x_ND, problem.y_N).coef_[0], atol=1e-6)
    f = lambda w: float(problem.value(w))  # noqa: E731
    actual = scipy.optimize.minimize(f, np.zeros(5), jac=problem.gradient, method="L-BFGS-B", tol=1e-14)
    assert value == pytest.approx(actual.fun, abs=1e-12)


def test_gradients_and_hessian_match_central_differences(problem: Logistic):
    w = np.random.default_rng(1).standard_normal(5)
    assert gradient_error(lambda arrays: float(problem.value(arrays[0])), [problem.gradient(w)], [w]) < 1e-6
    along = np.random.default_rng(2).standard_normal(5)
    slope = lambda arrays: float(problem.gradient(arrays[0]) @ along)  # noqa: E731
    assert gradient_error(slope, [problem.hessian(w) @ along], [w]) < 1e-6


def test_a_random_gradient_is_right_on_average(problem: Logistic):
    w_RD = np.random.default_rng(3).standard_normal((2, 5))
    everyone = np.broadcast_to(np.arange(200), (2, 200))
    np.testing.assert_allclose(problem.sampled(w_RD, everyone), problem.gradient(w_RD), atol=1e-14)
    item = np.array([[7], [9]])
    signed, pull = problem.pulls(w_RD, item)
    np.testing.assert_allclose(problem.sampled(w_RD, item), pull * signed[:, 0] + problem.ridge * w_RD, atol=1e-14)


def test_bounds_of_curvature_hold(problem: Logistic):
    for w in np.random.default_rng(4).standard_normal((20, 5)):
        assert problem.ridge <= np.linalg.eigvalsh(problem.hessian(w)).max() <= problem.smoothness
    assert problem.smoothness <= problem.example_smoothness


def test_variance_reduction_reaches_the_minimum_and_plain_steps_do_not(problem: Logistic):
    best = problem.best()[1]
    rng = np.random.default_rng(5)
    step = 1 / (3 * problem.example_smoothness)
    for actual in (saga(problem, start(), step, 60, rng), svrg(problem, start(), step, 90, rng)):
        assert (actual.values_TR[-1] - best).max() < 1e-10
        assert actual.passes[-1] == pytest.approx(60, abs=1) or actual.passes[-1] == pytest.approx(90, abs=3)
    for actual in (
        saga(problem, start(), step, 60, rng, refresh=False),
        svrg(problem, start(), step, 90, rng, corrected=False),
        stochastic(problem, start(), lambda k: step, 60, rng),
    ):
        assert (actual.values_TR[-1] - best).min() > 1e-6


def test_batches_are_counted_as_passes(problem: Logistic):
    actual = stochastic(problem, start(), lambda k: 0.1, 3, np.random.default_rng(6), batch=lambda k: 50, marks=12)
    np.testing.assert_allclose(actual.passes, np.arange(13) / 4)
    assert full(problem, start(1), 0.1, 4).passes.tolist() == [0, 1, 2, 3, 4]


def test_average_of_the_iterates_is_exact(problem: Logistic):
    last = stochastic(problem, start(), lambda k: 0.1, 0.02, np.random.default_rng(7), marks=4)
    mean = stochastic(problem, start(), lambda k: 0.1, 0.02, np.random.default_rng(7), marks=4, average=True)
    w1 = stochastic(problem, start(), lambda k: 0.1, 0.005, np.random.default_rng(7)).w_RD
    assert not np.allclose(w1, last.w_RD)
    rng, w_RD, seen = np.random.default_rng(7), start(), []
    for _ in range(4):
        w_RD = w_RD - 0.1 * problem.sampled(w_RD, rng.integers(200, size=(3, 1)))
        seen.append(w_RD)
    np.testing.assert_allclose(last.w_RD, w_RD, atol=1e-15)
    np.testing.assert_allclose(mean.w_RD, np.mean(seen, axis=0), atol=1e-15)


def quadratic(size: int, condition: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(8)
    turn = np.linalg.qr(rng.standard_normal((size, size)))[0]
    return turn @ np.diag(np.logspace(0, np.log10(condition), size)) @ turn.T, rng.standard_normal(size)


@pytest.mark.parametrize("size", [2, 10, 50])
def test_lbfgs_reaches_the_minimum_in_about_as_many_steps_as_scipy(size: int):
    h, b = quadratic(size, 1e4)
    value, gradient = (lambda w: float(0.5 * w @ h @ w - b @ w)), (lambda w: h @ w - b)
    actual = lbfgs(value, gradient, np.zeros(size), steps=2000, tolerance=1e-8)
    np.testing.assert_allclose(actual[-1], np.linalg.solve(h, b), atol=1e-6)
    theirs = scipy.optimize.minimize(
        value, np.zeros(size), jac=gradient, method="L-BFGS-B", options={"gtol": 1e-8, "ftol": 0, "maxiter": 5000}
    )
    assert len(actual) < 2 * theirs.nit + 20


def test_lbfgs_of_logistic_regression_matches_newton(problem: Logistic):
    value = lambda w: float(problem.value(w))  # noqa: E731
    actual = lbfgs(value, problem.gradient, np.zeros(5), steps=100, tolerance=1e-10)
    np.testing.assert_allclose(actual[-1], problem.best()[0], atol=1e-8)
    np.testing.assert_allclose(
        newton(problem.gradient, problem.hessian, np.zeros(5), steps=8)[-1], problem.best()[0], atol=1e-12
    )


def test_conjugate_gradients_need_one_step_per_eigenvalue_and_match_solve():
    h = np.diag([1.0, 1.0, 5.0, 5.0, 9.0, 9.0])
    b = np.random.default_rng(9).standard_normal(6)
    x, count = conjugate_gradients(lambda v: h @ v, b, tolerance=1e-10)
    assert count == 3
    np.testing.assert_allclose(x, np.linalg.solve(h, b), atol=1e-9)
    assert conjugate_gradients(lambda v: h @ v, np.zeros(6))[1] == 0


@pytest.mark.parametrize("size", [2, 10, 50])
def test_lbfgs_is_about_as_quick_as_scipy_in_a_narrow_valley(size: int):
    """To a hundred-millionth of the first slope, from the same start; SciPy keeps as many pairs."""
    h, start = quadratic(size, 1e4)
    end = 1e-8 * float(np.linalg.norm(h @ start))
    actual = lbfgs(lambda w: float(0.5 * w @ h @ w), lambda w: h @ w, start, steps=2000)
    ours = next(step for step, w in enumerate(actual) if np.linalg.norm(h @ w) <= end)
    theirs: list[np.ndarray] = [start]
    options = {"maxcor": 10, "gtol": 0, "ftol": 0, "maxiter": 3000}
    scipy.optimize.minimize(
        lambda w: float(0.5 * w @ h @ w),
        start,
        jac=lambda w: h @ w,
        method="L-BFGS-B",
        callback=lambda w: theirs.append(w.copy()),
        options=options,
    )
    other = next(step for step, w in enumerate(theirs) if np.linalg.norm(h @ w) <= end)
    assert ours <= 1.3 * other + 5
