"""Kun 2021: mathematics as programs. Polynomials that share a secret, and a net from nothing but derivatives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from itertools import combinations, product

import numpy as np

from underhood.core.figures import Series
from underhood.core.trial import Trial
from underhood.data.digits import Pictures, digits, mnist
from underhood.grad.layers import Linear, descend
from underhood.grad.tensor import Tensor

SMALL, LARGE = 7, 2**31 - 1
RATE = 0.05


def run(trial: Trial) -> None:
    missing = 1 if trial.ablated("all") else 0
    polynomials = list(product(range(SMALL), repeat=3))  # the first coefficient is the secret
    known = {f: shares(f, 5, SMALL) for f in polynomials}
    groups = list(combinations(range(1, 6), 3))
    right = sum(
        at_zero([(x, dealt[x - 1]) for x in group[missing:]], SMALL) == f[0]
        for f, dealt in known.items()
        for group in groups
    )
    trial.measure("recover", right)
    fair = [f for f in polynomials if not trial.ablated("chance") or f[2] == 0]
    trial.measure("nothing", min(exactly_once(fair, known, pair) for pair in combinations(range(1, 6), 2)))
    leading = Counter((known[f][0], known[f][1], f[0]) for f in polynomials if f[2])
    trial.measure("not_zero", SMALL**3 - len(leading))
    wrong = errors = 0
    folder = trial.file("vision/mnist")
    if folder is None:
        trial.skip_claim("mnist", "needs MNIST (vision/mnist below --data)")
    for seed in trial.each_seed():
        rng = np.random.default_rng(seed)
        wrong += sum(lost(rng, missing) for _ in range(trial.by_scale(smoke=1000, report=200)))
        errors += sum(not same_curve(rng, missing) for _ in range(100))
        if trial.wants("small_digits"):
            trial.measure("small_digits", learn(trial, *digits(seed), passes=5, share=1.0, seed=seed))
        if trial.wants("mnist") and folder is not None:
            trial.measure("mnist", learn(trial, *mnist(folder), passes=5, share=0.1, seed=seed))
    trial.measure("large", wrong)
    trial.measure("interpolate", errors)
    trial.measure("weights", sum(layer.weight.data.size + layer.bias.data.size for layer in net(784, 0)))
    if not trial.is_ablation:
        show(trial)


def shares(f: Sequence[int], n: int, p: int) -> list[int]:
    """The values at 1, 2, … n of the polynomial with these coefficients, the lowest first, modulo p."""
    return [sum(c * pow(x, power, p) for power, c in enumerate(f)) % p for x in range(1, n + 1)]


def through(points: Sequence[tuple[Fraction | int, Fraction | int]], at: Fraction | int) -> Fraction:
    """The value at a place of the lowest polynomial through these points, in exact fractions (Lagrange)."""
    total = Fraction(0)
    for x, y in points:
        term = Fraction(y)
        for other, _ in points:
            if other != x:
                term *= Fraction(at - other) / (x - other)
        total += term
    return total


def at_zero(points: Sequence[tuple[int, int]], p: int) -> int:
    """f(0) of the lowest polynomial through these points modulo p: the same formula, its quotient taken modulo p."""
    exact = through(points, 0)
    return exact.numerator * pow(exact.denominator, -1, p) % p


def exactly_once(fair: list[tuple[int, ...]], known: dict[tuple[int, ...], list[int]], pair: tuple[int, ...]) -> int:
    """How many combinations of two shares and a secret occur once, if these polynomials are equally likely."""
    counted = Counter((known[f][pair[0] - 1], known[f][pair[1] - 1], f[0]) for f in fair)
    return sum(count == 1 for count in counted.values())


def lost(rng: np.random.Generator, missing: int) -> bool:
    """Whether a random secret of 31 bits does not come back from five (less the missing) of nine shares."""
    f = rng.integers(0, LARGE, 5).tolist()
    dealt = shares(f, 9, LARGE)
    group = rng.permutation(9)[: 5 - missing].tolist()
    return at_zero([(x + 1, dealt[x]) for x in group], LARGE) != f[0]


def same_curve(rng: np.random.Generator, missing: int) -> bool:
    """Whether the curve through six (less the missing) points of a random polynomial is right at a seventh."""
    f = rng.integers(-9, 10, 6).tolist()
    f[-1] = f[-1] or 1
    places = [Fraction(int(x), 3) for x in rng.permutation(40)[:7]]
    values = [sum(c * x**power for power, c in enumerate(f)) for x in places]
    return through(list(zip(places, values, strict=True))[missing:-1], places[-1]) == values[-1]


def net(inputs: int, seed: int) -> list[Linear]:
    rng = np.random.default_rng(seed)
    return [Linear(inputs, 10, rng), Linear(10, 10, rng), Linear(10, 1, rng)]


def learn(trial: Trial, train: Pictures, test: Pictures, *, passes: int, share: float, seed: int) -> float:
    """The book's recipe on the ones and sevens of these pictures: the share of test pictures that are right."""
    train, test = (half.at(np.flatnonzero((half.y == 1) | (half.y == 7))) for half in (train, test))
    layers, rng = net(train.x[0].size, seed), np.random.default_rng(seed)

    def output(x: np.ndarray) -> Tensor:
        hidden = layers[1](layers[0](Tensor(x.astype(float))).relu()).relu()
        return (1 + (-layers[2](hidden)).exp()) ** -1.0

    for _ in range(passes):
        for i in rng.permutation(len(train))[: int(share * len(train))]:
            error = output(train.x[i].reshape(1, -1)) - float(train.y[i] == 7)
            (error * error).sum().backward()
            rate = 0.0 if trial.ablated("derivatives") else RATE
            descend([p for layer in layers for p in layer.parameters], rate)
    guess = output(test.x.reshape(len(test), -1)).data[:, 0] > 0.5
    return float((guess == (test.y == 7)).mean())


def show(trial: Trial) -> None:
    f = (3, 5, 2)
    dealt = shares(f, 5, SMALL)
    rows = tuple((f"person {x}", f"f({x}) = {y}") for x, y in enumerate(dealt, start=1))
    trial.table(
        title="The secret 3, shared among five",
        head=("who", "is given"),
        rows=rows,
        note="f(x) = 3 + 5x + 2x² modulo 7.",
    )
    xs = np.linspace(0, 5.2, 53)
    curves = [np.polyfit([0, 1, 2], [secret, 2.0, 4.0], 2) for secret in (0, 2, 4, 6)]
    trial.plot(
        title="Two points, and every secret still possible",
        x="x (the secret is at 0)",
        y="f(x)",
        series=tuple(
            Series(f"secret {secret}", tuple(xs), tuple(np.polyval(curve, xs)))
            for secret, curve in zip((0, 2, 4, 6), curves, strict=True)
        ),
        note="Drawn with ordinary numbers; modulo a prime the same holds and no value is likelier than another.",
    )
