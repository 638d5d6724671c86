"""Kun 2021: mathematics as programs. Polynomials that share a secret, and a net from nothing but derivatives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from itertools import combinations, product

import numpy as np

from underhood.core.figures import Grid, Plot, Series
from underhood.core.milestone import Ablation, Claim, Exactly, Milestone, Minutes, Paper, Printed, Seeds, at_least
from underhood.core.trial import Trial
from underhood.data.digits import Pictures, digits, mnist
from underhood.grad.layers import Linear, descend
from underhood.grad.tensor import Tensor

SMALL, LARGE = 7, 2**31 - 1
RATE = 0.05

MILESTONE = Milestone(
    stem="p2021_secret_sharing",
    topics=("kun-math",),
    title="Mathematics as programs: sharing a secret",
    year=2021,
    question="What can a programmer do with polynomials, and with derivatives?",
    asks=(
        "how much mathematics do I need?",
        "how does secret sharing work?",
        "how do I write a neural network from scratch?",
    ),
    papers=(
        Paper(
            authors="J. Kun",
            year=2021,
            title="A programmer's introduction to mathematics, chapters 2 and 14",
            link="https://pimbook.org",
        ),
        Paper(
            authors="A. Shamir",
            year=1979,
            title="How to share a secret",
            link="https://doi.org/10.1145/359168.359176",
        ),
    ),
    idea=r"""
Two points determine a line, three a parabola: through any $k$ points with different $x$ goes exactly one polynomial of
degree below $k$. Lagrange wrote it down. Each term is $y_i$ at its own point and zero at all others:

$$f(x) = \sum_i y_i \prod_{j \ne i} \frac{x - x_j}{x_i - x_j}$$

Nothing in it needs real numbers. It holds wherever one can add, multiply and divide, such as in the remainders of
division by a prime $p$, where no rounding exists. Shamir made a vault of it. Let the secret be $f(0)$, choose the other
$k-1$ coefficients at random, and give each of $n$ people a point of the curve. Any $k$ of them can draw the curve and
read off the secret. To any $k-1$ every secret is still equally likely: through their points and each possible $f(0)$
goes exactly one polynomial. They know *nothing*, whatever computers they have. It only holds if all coefficients are
drawn fairly, zero included.

The book goes on through linear maps and calculus to its last program: a network of two hidden layers that tells the
handwritten digits 1 and 7 apart, from a graph of operations each of which knows its own derivative. Ours is `grad`, the
engine that this path builds elsewhere; the network is the book's.
""",
    claims=(
        Claim(
            key="interpolate",
            statement="The curve through 6 points of a polynomial of degree 5 is that polynomial (wrong values)",
            judge=Exactly(0),
        ),
        Claim(
            key="recover",
            statement="Three of five shares give the secret back: all 343 polynomials modulo 7, all ten choices",
            judge=Exactly(3430),
            paper=Printed("always", "verified", "theorem"),
        ),
        Claim(
            key="nothing",
            statement="With two shares each secret is equally likely: every combination occurs exactly once, of 343",
            judge=Exactly(343),
            middle="min",
            paper=Printed("equally likely", "verified", "theorem"),
        ),
        Claim(
            key="not_zero",
            statement="If the highest coefficient must not be zero, 49 of 343 combinations never occur: shares leak",
            judge=Exactly(49),
        ),
        Claim(
            key="large",
            statement="1,000 secrets of 31 bits come back from any five of nine shares (wrong ones)",
            judge=Exactly(0),
        ),
        Claim(
            key="weights",
            statement="The book's network for 28 × 28 pictures has 7,971 weights",
            judge=Exactly(7971),
            paper=Printed(7971, "computed", "784-10-10-1"),
        ),
        Claim(
            key="small_digits",
            statement="It tells 1 from 7 in pictures of 8 × 8 that it has not seen: at least 95 %",
            judge=at_least(0.95),
        ),
        Claim(
            key="mnist",
            statement="With the book's recipe it does on MNIST: at least 95 %",
            judge=at_least(0.95),
            scale="report",
        ),
    ),
    ablations=(
        Ablation("all", "one share fewer is used than needed", ("recover", "large", "interpolate")),
        Ablation("chance", "all coefficients but the secret and the next are zero", ("nothing",)),
        Ablation("derivatives", "no derivative reaches the weights", ("small_digits",)),
    ),
    minutes=Minutes(read=7, smoke=0.1, report=0.5),
    seeds=Seeds(smoke=1, report=5),
    code=("underhood.path.p2021_secret_sharing:shares", "underhood.path.p2021_secret_sharing:through"),
    hard="""
That two shares tell nothing is checked by going through all polynomials, not by a test of chance. Accounts of the
scheme may ask for a highest coefficient that is not zero, so that the degree is what it says; that breaks the secrecy.
The book's recipe is five passes over a tenth of the pictures each, one at a time, rate 0.05, squared error.
""",
    then="How the derivatives are found: autodiff-reverse. The same with all ten digits: mlp-digits.",
)


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
    found = Fraction(0)
    for x, y in points:
        term = Fraction(y)
        for other, _ in points:
            if other != x:
                term *= Fraction(at - other) / (x - other)
        found += term
    return found


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
    train, test = (part.at(np.flatnonzero((part.y == 1) | (part.y == 7))) for part in (train, test))
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
    trial.figure(
        Grid(
            title="The secret 3, shared among five",
            head=("who", "is given"),
            rows=rows,
            note="f(x) = 3 + 5x + 2x² modulo 7.",
        )
    )
    xs = np.linspace(0, 5.2, 53)
    curves = [np.polyfit([0, 1, 2], [secret, 2.0, 4.0], 2) for secret in (0, 2, 4, 6)]
    trial.figure(
        Plot(
            title="Two points, and every secret still possible",
            x="x (the secret is at 0)",
            y="f(x)",
            series=tuple(
                Series(f"secret {secret}", tuple(xs), tuple(np.polyval(curve, xs)))
                for secret, curve in zip((0, 2, 4, 6), curves, strict=True)
            ),
            note="Drawn with ordinary numbers; modulo a prime the same holds and no value is likelier than another.",
        )
    )
