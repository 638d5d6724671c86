"""Hamming 1991: probability by simulation, from means to the first digits of products."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from underhood.core.figures import Frames, Plot, Series
from underhood.core.trial import Trial
from underhood.path.lib.log_slope import log_slope

Floats = NDArray[np.floating]
SIZES = (1, 2, 4, 8, 16, 32, 64)
FACTORS = (1, 2, 3, 4, 5, 6)
BENFORD = np.log10(1 + 1 / np.arange(1, 10))


def run(trial: Trial) -> None:
    waits = not trial.ablated("variance")
    many = trial.by_scale(smoke=20_000, report=100_000)
    spreads, gaps, digits = [], [], []
    for seed in trial.each_seed():
        rng = np.random.default_rng(seed)
        if trial.wants("lln", "clt", "edgeworth"):
            thrown = rng.random((many, 64)) if waits else rng.standard_cauchy((many, 64))
            spreads.append([width(thrown[:, :n].mean(axis=1)) for n in SIZES])
            trial.measure("lln", power(spreads[-1]))
            gaps.append(gaps_to_the_bell(rng.standard_exponential if waits else rng.standard_cauchy))
            trial.measure("clt", power(gaps[-1]))
            trial.measure("edgeworth", gaps[-1][-1] * 8)
        if trial.wants("benford", "exact", "nearer"):
            factors = rng.random((trial.by_scale(smoke=300_000, report=1_000_000), len(FACTORS)))
            joined = np.cumsum(factors, axis=1) if trial.ablated("product") else np.cumprod(factors, axis=1)
            digits.append([first_digits(joined[:, k - 1]) for k in FACTORS])
            trial.measure("benford", digits[-1][-1][0])
            trial.measure(
                "exact", max(np.abs(d - exact_digits(k)).max() for d, k in zip(digits[-1], FACTORS, strict=True))
            )
    apart = [float(np.abs(exact_digits(k) - BENFORD).sum() / 2) for k in FACTORS]
    trial.measure("nearer", float(-np.diff(apart).max()))
    powers = [str(2 * n if trial.ablated("product") else 2**n) for n in range(1000)]
    trial.measure("powers", sum(number.startswith("1") for number in powers))
    if not trial.is_ablation:
        trial.oracle(
            "exact shares of first digits sum to one", all(abs(exact_digits(k).sum() - 1) < 1e-12 for k in FACTORS)
        )
        published = [0.2687, 0.0759, 0.0208, 0.0090, 0.0031, 0.0010]
        trial.oracle("their distances to the law, as worked out elsewhere", np.allclose(apart, published, atol=6e-5))
        show(trial, np.array(spreads), np.array(gaps), np.array(digits))


def width(means: Floats) -> float:
    """Half of the range that holds the middle 68 %: the standard deviation of a bell, and finite without one."""
    low, high = np.quantile(means, (0.1587, 0.8413))
    return float(high - low) / 2


def power(values: list[float]) -> float:
    """The exponent of n that fits the values best, for n from 4 on."""
    return log_slope(SIZES[2:], values[2:])


def gaps_to_the_bell(draw: Callable[[int], Floats], many: int = 1_000_000) -> list[float]:
    """For each size n: the gap between the bell and the distribution of a sum of n, less its mean n, over sqrt(n)."""
    total, gaps = np.zeros(many), []
    for n in range(1, SIZES[-1] + 1):
        total += draw(many)
        if n in SIZES:
            gaps.append(gap((total - n) / n**0.5))
    return gaps


def gap(standardised: Floats) -> float:
    """The largest distance between the distribution of a sample and the normal one (Kolmogorov and Smirnov's)."""
    x = np.sort(standardised)
    step = max(1, len(x) // 20_000)
    places = np.arange(0, len(x), step)
    normal = np.array([0.5 * math.erfc(-value / math.sqrt(2)) for value in x[places]])
    return float(np.maximum(np.abs((places + 1) / len(x) - normal), np.abs(places / len(x) - normal)).max())


def first_digits(numbers: Floats) -> Floats:
    """Shares of the first digits 1 to 9."""
    exponents = np.floor(np.log10(numbers))
    return np.bincount((numbers / 10**exponents).astype(int).clip(1, 9), minlength=10)[1:] / len(numbers)


def exact_digits(k: int) -> Floats:
    """The same shares for a product of k uniform numbers: −log of it is a sum of k waiting times, a gamma variable."""

    def below(x: Floats) -> Floats:  # P(gamma ≤ x) for a whole number k
        return 1 - np.exp(-x) * sum(x**i / math.factorial(i) for i in range(k))

    lengths = np.arange(1, 60)[:, None] * math.log(10)  # how many places behind the point the product begins
    d = np.arange(1, 10)
    return (below(lengths - np.log(d)) - below(lengths - np.log(d + 1))).sum(axis=0)


def show(trial: Trial, spreads: Floats, gaps: Floats, digits: Floats) -> None:
    sizes = tuple(map(float, SIZES))
    trial.plot(
        title="Means settle, and their distribution becomes the bell",
        x="n, how many are averaged",
        y="width of the mean; gap to the bell",
        log_x=True,
        log_y=True,
        series=(
            Series("width, numbers from 0 to 1", sizes, tuple(spreads.mean(axis=0))),
            Series("gap to the bell, waiting times", sizes, tuple(gaps.mean(axis=0))),
            Series("0.133 / sqrt(n)", sizes, tuple(0.133 / n**0.5 for n in sizes), paper=True),
        ),
    )
    places, names = tuple(map(float, range(9))), tuple(map(str, range(1, 10)))
    frames = []
    for k, shares in zip(FACTORS, digits.mean(axis=0), strict=True):
        series = (Series("products", places, tuple(shares)), Series("the law", places, tuple(BENFORD), paper=True))
        plot = Plot(title="First digits", x="first digit", y="share", kind="bars", names=names, series=series)
        frames.append((f"{k} factor{'s' * (k > 1)}", plot))
    trial.figure(Frames(title="Products forget what they were made from", control="factors", frames=tuple(frames)))
