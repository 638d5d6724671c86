"""Hamming 1991: probability by simulation, from means to the first digits of products."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from underhood.core.figures import Frames, Plot, Series
from underhood.core.milestone import (
    Ablation,
    Claim,
    Exactly,
    Milestone,
    Minutes,
    Paper,
    Printed,
    Seeds,
    at_least,
    at_most,
    near,
)
from underhood.core.trial import Trial

Floats = NDArray[np.floating]
SIZES = (1, 2, 4, 8, 16, 32, 64)
FACTORS = (1, 2, 3, 4, 5, 6)
BENFORD = np.log10(1 + 1 / np.arange(1, 10))

MILESTONE = Milestone(
    stem="p1991_simulation",
    topics=("prob-sim",),
    title="Probability by trying it out",
    year=1991,
    question="What do averages of chance do, and how far can a simulation be trusted?",
    asks=(
        "what is the law of large numbers?",
        "what is the central limit theorem?",
        "why do so many numbers begin with 1?",
        "what is variance?",
    ),
    papers=(
        Paper(
            authors="R. W. Hamming",
            year=1970,
            title="On the distribution of numbers",
            link="https://doi.org/10.1002/j.1538-7305.1970.tb04281.x",
        ),
        Paper(
            authors="F. Benford",
            year=1938,
            title="The law of anomalous numbers",
            link="https://www.jstor.org/stable/984802",
        ),
    ),
    idea=r"""
Hamming's book *The art of probability* (1991) asks the reader to distrust what seems plausible and to try it out. Three
laws come out of trying.

The mean of $n$ independent throws varies less than one throw, by the square root of $n$:

$$\text{sd}(\bar x) = \frac{\sigma}{\sqrt n}$$

Four times the work buys half the error; that is the price of every simulation, and of every measured accuracy. And
whatever one throws, the mean looks more and more like the same bell. How far the two distributions are apart at worst
shrinks as $1/\sqrt n$ again; for waiting times, the factor is $1/(3\sqrt{2\pi}) = 0.133$. Both laws need a variance. Of
numbers that have none, such as quotients of two normal ones, a mean of a million is no better than a single one.

The third law was Hamming's favourite. Multiply random numbers. The logarithm of the product is a sum, it spreads wider
and wider, and its part behind the decimal point can soon be anything with equal chances. So the *first digit* $d$ of a
product has the probability

$$P(d) = \log_{10}\left(1 + \frac1d\right)$$

and almost a third of all products begin with 1 (Benford's law). Computers multiply all day long, so their numbers look
like that. Weights and gradients of networks are products of many factors, too; the same spreading of logarithms is what
makes them explode or vanish.
""",
    claims=(
        Claim(
            key="lln",
            statement="The mean of n random numbers from 0 to 1 varies as n to the power of −1/2 (measured power)",
            judge=near(-0.5, 0.02),
            paper=Printed(-0.5, "computed", "sd of a mean is σ / sqrt(n)"),
        ),
        Claim(
            key="clt",
            statement="The mean of n waiting times comes nearer to the bell as n to the power of −1/2 (measured power)",
            judge=near(-0.5, 0.05),
            paper=Printed(-0.5, "computed", "Berry and Esseen's rate"),
        ),
        Claim(
            key="edgeworth",
            statement="The largest gap between the two, times the root of n, is 0.133 for n = 64",
            judge=near(0.133, 0.01),
            paper=Printed(0.133, "computed", "1 / (3 sqrt(2π))"),
        ),
        Claim(
            key="benford",
            statement="30.1 % of products of six random numbers begin with 1",
            judge=near(0.301, 0.003),
            paper=Printed(0.301, "computed", "log10 2; exactly 0.3007 for six factors"),
        ),
        Claim(
            key="exact",
            statement="First digits of 1 to 6 factors are as frequent as computed (largest error of a share)",
            judge=at_most(0.003),
            middle="max",
        ),
        Claim(
            key="nearer",
            statement="Each further factor brings them nearer to the law (least step of the total variation)",
            judge=at_least(0.0),
            middle="min",
        ),
        Claim(
            key="powers",
            statement="Of the first 1,000 powers of two, 301 begin with 1",
            judge=Exactly(301),
            paper=Printed(301, "computed", "each length of number is begun by one of them"),
        ),
    ),
    ablations=(
        Ablation("variance", "what is averaged has no variance (Cauchy's distribution)", ("lln", "clt", "edgeworth")),
        Ablation("product", "numbers are added, not multiplied", ("benford", "exact", "powers")),
    ),
    minutes=Minutes(read=6, smoke=0.1, report=0.5),
    seeds=Seeds(smoke=1, report=10),
    code=("underhood.path.p1991_simulation:exact_digits", "underhood.path.p1991_simulation:gap"),
    hard="""
Widths are read off quantiles, since a standard deviation may not exist. A simulation has to be larger than it seems: to
see a gap of 0.017 from the bell (n = 64) one needs so many means that chance alone makes a far smaller one. The exact
frequencies of first digits come from the gamma distribution: minus the logarithm of a product of k uniform numbers is a
sum of k waiting times. The distance to the law does not fall smoothly: the first digit 1 overshoots at four factors
(0.3076) and comes back.
""",
    then="Random directions instead of random numbers: highdim-geometry. Surprise as a number: entropy.",
)


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
        found = [0.2687, 0.0759, 0.0208, 0.0090, 0.0031, 0.0010]
        trial.oracle("their distances to the law, as worked out elsewhere", np.allclose(apart, found, atol=6e-5))
        show(trial, np.array(spreads), np.array(gaps), np.array(digits))


def width(means: Floats) -> float:
    """Half of the range that holds the middle 68 %: the standard deviation of a bell, and finite without one."""
    low, high = np.quantile(means, (0.1587, 0.8413))
    return float(high - low) / 2


def power(values: list[float]) -> float:
    """The exponent of n that fits the values best, for n from 4 on."""
    return float(np.polyfit(np.log(SIZES[2:]), np.log(values[2:]), 1)[0])


def gaps_to_the_bell(draw: Callable[[int], Floats], many: int = 1_000_000) -> list[float]:
    """For each size n: the gap between the bell and the distribution of a sum of n, less its mean n, over sqrt(n)."""
    total, found = np.zeros(many), []
    for n in range(1, SIZES[-1] + 1):
        total += draw(many)
        if n in SIZES:
            found.append(gap((total - n) / n**0.5))
    return found


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
    trial.figure(
        Plot(
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
    )
    places, names = tuple(map(float, range(9))), tuple(map(str, range(1, 10)))
    frames = []
    for k, shares in zip(FACTORS, digits.mean(axis=0), strict=True):
        series = (Series("products", places, tuple(shares)), Series("the law", places, tuple(BENFORD), paper=True))
        plot = Plot(title="First digits", x="first digit", y="share", kind="bars", names=names, series=series)
        frames.append((f"{k} factor{'s' * (k > 1)}", plot))
    trial.figure(Frames(title="Products forget what they were made from", control="factors", frames=tuple(frames)))
