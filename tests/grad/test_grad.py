"""Our engines against PyTorch, on random programs and by the survey's own example."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import sympy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from underhood.grad import layers
from underhood.grad.counting import cost_of_forward_pass, cost_of_function, cost_of_reverse
from underhood.grad.dual import Dual, directional, gradient
from underhood.grad.programs import BINARY, UNARY, Program, helmholtz, logistic, rosenbrock, run, survey
from underhood.grad.second import hessian_vector
from underhood.grad.symbolic import Formula
from underhood.grad.tensor import Tensor, concatenate
from underhood.grad.value import Value

CLOSE = {"rtol": 1e-10, "atol": 1e-10}
programs = st.lists(
    st.tuples(st.sampled_from([*UNARY, *BINARY]), st.integers(0, 99), st.integers(0, 99)), min_size=1, max_size=25
)


numbers = st.floats(-3, 3).filter(lambda x: abs(x) > 1e-3)


@settings(deadline=None, max_examples=150)
@given(programs, st.lists(numbers, min_size=1, max_size=4))
def test_scalar_gradients_match_torch_on_random_graphs(program: Program, point: list[float]):
    theirs = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in point]
    expected = run(program, theirs)
    expected.backward()
    slopes = [0.0 if t.grad is None else float(t.grad) for t in theirs]
    ours = [Value(x) for x in point]
    end = run(program, ours)
    end.backward()
    assert end.data == pytest.approx(float(expected.detach()), rel=1e-10)
    np.testing.assert_allclose([v.grad for v in ours], slopes, **CLOSE)
    np.testing.assert_allclose(gradient(lambda *xs: run(program, list(xs)), point), slopes, **CLOSE)


shapes = st.sampled_from([(), (1,), (3,), (2, 1), (2, 3), (4, 1, 3), (1, 2, 1)])


@settings(deadline=None, max_examples=150)
@given(programs, st.lists(shapes, min_size=1, max_size=3), st.integers(0, 2**32 - 1))
def test_tensor_gradients_match_torch_on_random_graphs_with_broadcasting(
    program: Program, sizes: list[tuple[int, ...]], seed: int
):
    generator = np.random.default_rng(seed)
    arrays = [generator.standard_normal(size) for size in sizes]
    theirs = [torch.tensor(array, requires_grad=True) for array in arrays]
    expected = run(program, theirs).sum()
    expected.backward()
    ours = [Tensor(array) for array in arrays]
    end = run(program, ours).sum()
    end.backward()
    np.testing.assert_allclose(end.data, expected.detach().numpy(), **CLOSE)
    for mine, other in zip(ours, theirs, strict=True):
        if other.grad is None:
            assert mine.grad is None
        else:
            assert mine.grad is not None
            np.testing.assert_allclose(mine.grad, other.grad.numpy(), **CLOSE)


def _shaped(x: Any, y: Any) -> Any:
    """One use of each operation that moves elements about; NumPy's and PyTorch's spelling agree."""
    product = x @ y  # (2, 3, 4) @ (4, 5)
    picked = product[:, [0, 2, 2], 1:4]  # an element twice
    return (product.reshape(6, 5) * 0.3).exp().sum(0).log().sum() + (picked * picked).sum() + product[1, 0, 0] * 2.0


def test_moving_elements_about_matches_torch():
    generator = np.random.default_rng(0)
    x, y = generator.standard_normal((2, 3, 4)), generator.standard_normal((4, 5))
    ours, theirs = (Tensor(x), Tensor(y)), (torch.tensor(x, requires_grad=True), torch.tensor(y, requires_grad=True))
    _shaped(*ours).backward()
    _shaped(*theirs).backward()
    joined = concatenate([ours[0].max(2), ours[0].mean(2), ours[0].transpose(2, 0, 1)[0]], axis=1).log_softmax()
    (joined * joined).sum().backward()
    a = theirs[0]
    other = torch.cat([a.max(dim=2).values, a.mean(2), a.permute(2, 0, 1)[0]], dim=1).log_softmax(-1)
    (other * other).sum().backward()
    for mine, their in zip(ours, theirs, strict=True):
        assert mine.grad is not None
        assert their.grad is not None
        np.testing.assert_allclose(mine.grad, their.grad.numpy(), **CLOSE)


def test_a_network_learns_as_in_torch():
    """The same losses as PyTorch, step by step, from the same start."""
    generator = np.random.default_rng(0)
    x = generator.standard_normal((32, 6))
    truth = x[:, :3].argmax(axis=1)
    first, second = layers.Linear(6, 16, generator), layers.Linear(16, 3, generator)
    parameters = first.parameters + second.parameters
    copies = [torch.tensor(p.data, requires_grad=True) for p in parameters]
    losses, expected = [], []
    for _ in range(30):
        loss = layers.cross_entropy(second(first(Tensor(x)).tanh()), truth)
        loss.backward()
        layers.descend(parameters, 0.5)
        losses.append(float(loss.data))
        hidden = (torch.tensor(x) @ copies[0] + copies[1]).tanh()
        theirs = torch.nn.functional.cross_entropy(hidden @ copies[2] + copies[3], torch.tensor(truth))
        theirs.backward()
        with torch.no_grad():
            for copy in copies:
                assert copy.grad is not None
                copy -= 0.5 * copy.grad
                copy.grad = None
        expected.append(float(theirs.detach()))
    np.testing.assert_allclose(losses, expected, rtol=1e-10)
    assert losses[-1] < 0.7 * losses[0]


def test_the_surveys_example_gives_its_printed_numbers():
    """Baydin et al. 2015, tables 2 and 3: f = ln x1 + x1 x2 − sin x2 at (2, 5)."""

    value, slope = directional(survey, (2.0, 5.0), (1.0, 0.0))
    assert round(value, 3) == 11.652
    assert slope == 5.5
    x1, x2 = Value(2.0), Value(5.0)
    survey(x1, x2).backward()
    assert x1.grad == 5.5
    assert round(x2.grad, 3) == 1.716
    assert x2.grad == pytest.approx(2 - math.cos(5), rel=1e-15)


def test_micrograds_readme_gives_its_printed_numbers():
    """Karpathy's example expression: g = 24.7041, dg/da = 138.8338, dg/db = 645.5773."""
    a, b = Value(-4.0), Value(2.0)
    c = a + b
    d = a * b + b**3
    c = c + c + 1
    c = c + 1 + c + (-a)
    d = d + d * 2 + (b + a).relu()
    d = d + 3 * d + (b - a).relu()
    e = c - d
    f = e**2
    g = f / 2.0
    g = g + 10.0 / f
    g.backward()
    assert (round(g.data, 4), round(a.grad, 4), round(b.grad, 4)) == (24.7041, 138.8338, 645.5773)


@pytest.mark.parametrize("inputs", [5, 50, 500])
@pytest.mark.parametrize("f", [rosenbrock, helmholtz])
def test_a_gradient_costs_a_small_multiple_of_the_function_however_many_inputs(f: Callable[..., Any], inputs: int):
    """The cheap gradient principle, in operations counted: at most 5 times those of the function."""
    point = [1.0 + 0.01 * math.sin(n) for n in range(min(inputs, 100 if f is helmholtz else inputs))]
    alone = cost_of_function(f, point)
    assert alone < cost_of_reverse(f, point) <= 5 * alone
    assert alone < cost_of_forward_pass(f, point) <= 5 * alone


def test_every_operation_is_counted_once():
    def f(x: Any, y: Any) -> Any:
        return -(x + 1.0 - y) * 2.0 / x**3 + 1.0 / x.exp().log().sin().cos().tanh()

    assert cost_of_function(f, [1.5, 0.5]) == 13
    assert cost_of_function(lambda x: 3.0, [1.0]) == 0


@settings(deadline=None, max_examples=60)
@given(programs, st.lists(numbers, min_size=1, max_size=3), st.integers(0, 2**32 - 1))
def test_hessian_vector_products_match_torch_on_random_graphs(program: Program, point: list[float], seed: int):
    direction = np.random.default_rng(seed).standard_normal(len(point))
    slopes, product = hessian_vector(lambda *xs: run(program, xs), point, direction.tolist())
    theirs = torch.tensor(point, dtype=torch.float64)
    f = lambda x: run(program, list(x))  # noqa: E731
    _, expected = torch.autograd.functional.hvp(f, theirs, torch.from_numpy(direction))
    np.testing.assert_allclose(product, expected.numpy(), rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(slopes, gradient(lambda *xs: run(program, xs), point), **CLOSE)


def test_formulas_differentiate_as_in_sympy_and_are_as_long_as_they_say():
    """Down to the survey's table 1: the fourth iterate of the logistic map."""
    x = Formula("x")
    for times in range(5):
        made = logistic(x, times)
        theirs = sympy.sympify(str(made))
        assert sympy.expand(sympy.diff(theirs) - sympy.sympify(str(made.slope))) == 0
        for formula in (made, made.slope):
            assert formula.length == sum(isinstance(node, ast.BinOp) for node in ast.walk(ast.parse(str(formula))))
        assert made.slope.at({"x": 0.3}) == pytest.approx(logistic(Dual(0.3, 1.0), times).slope, rel=1e-12)


def test_forward_mode_costs_as_many_passes_as_there_are_inputs():
    """What reverse mode is for: take it away and the gradient's cost grows with the inputs."""
    passes = 0

    def f(*xs: Dual) -> Dual:
        nonlocal passes
        passes += 1
        return sum(xs[1:], xs[0])

    assert gradient(f, [1.0] * 7) == [1.0] * 7
    assert passes == 7


def test_a_deep_graph_needs_no_recursion():
    end = start = Value(1.0)
    for _ in range(20_000):
        end = end + 1.0
    end.backward()
    assert start.grad == 1.0


def test_only_a_single_number_can_be_traced_back():
    with pytest.raises(ValueError, match="single number"):
        Tensor([1.0, 2.0]).backward()
