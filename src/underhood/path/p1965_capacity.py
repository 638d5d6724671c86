"""Cover 1965, MacKay 2003: a unit of K weights can memorise 2 K random answers, two bits for each weight."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import numpy as np
from numpy.typing import NDArray

from underhood.core.figures import Grid, Plot, Series
from underhood.core.milestone import Ablation, Claim, Exactly, Milestone, Minutes, Paper, Printed, Seeds, at_most, near
from underhood.core.trial import Trial
from underhood.evals.separable import separable_labellings, separation

Floats = NDArray[np.float64]
SIZES = (10, 20, 50)

MILESTONE = Milestone(
    stem="p1965_capacity",
    topics=("capacity-2bits",),
    title="What one neuron can memorise",
    year=1965,
    question="How much can a model of a certain size learn?",
    asks=(
        "how many facts fit into a parameter?",
        "what is the capacity of a neuron?",
        "when does a model memorise instead of learning?",
    ),
    papers=(
        Paper(
            authors="T. M. Cover",
            year=1965,
            title="Geometrical and statistical properties of systems of linear inequalities with applications in "
            "pattern recognition",
            link="https://doi.org/10.1109/PGEC.1965.264137",
        ),
        Paper(
            authors="D. J. C. MacKay",
            year=2003,
            title="Information theory, inference, and learning algorithms, chapter 40",
            link="https://www.inference.org.uk/mackay/itila/",
        ),
    ),
    idea=r"""
Give a unit with $K$ weights $N$ random points, each with the answer +1 or −1 by the toss of a coin. There is nothing to
understand, only to memorise. For how many points can it do that?

Cover counted. Put in one point after the other. A new point splits in two those of the old labellings for which the
separating plane could just as well pass through it; these are the labellings that the unit could learn with one weight
fewer. So

$$T(N, K) = T(N-1, K) + T(N-1, K-1), \qquad T(N, K) = 2\sum_{k=0}^{K-1} \binom{N-1}{k}$$

of all $2^N$ labellings can be learnt, wherever the points lie, as long as no $K$ of them lie in one plane through zero.
Divided by $2^N$ that is the chance that fewer than $K$ heads come up in $N-1$ tosses. So it is one half at exactly
$N = 2K$, for every $K$. And the more weights, the steeper the fall: with many, nearly everything up to $2K$ points
can be learnt and nearly nothing beyond. Each point's label is one bit: *two bits per weight*, however precisely the
weights are stored.

If points come one by one until the unit fails, the number that it could hold is the number of tosses until the $K$-th
head: $2K$ on average.
""",
    claims=(
        Claim(
            key="count",
            statement="Of all 256 labellings of 8 points in 3 dimensions a unit can learn 58 (each is tried)",
            judge=Exactly(58),
            paper=Printed(58, "computed", "T(8, 3)"),
        ),
        Claim(
            key="half",
            statement="At N = 2K the share is one half for every K up to 500 (largest difference, exact fractions)",
            judge=Exactly(0.0),
            paper=Printed(0.5, "verified", "MacKay 2003, p. 490"),
        ),
        Claim(
            key="steep",
            statement="With 500 weights it falls from 0.9996 at 1.8 points per weight to 0.0013 at 2.2 (formula)",
            judge=Exactly(0.9983, within=0.00005),
            paper=Printed("a step", "verified", "MacKay 2003, figure 40.9"),
        ),
        Claim(
            key="learnt",
            statement="Units with 10, 20 and 50 weights learn half of all random labellings of 2 K points",
            judge=near(0.5, 0.05),
            paper=Printed(0.5, "verified", "MacKay 2003, p. 490"),
        ),
        Claim(
            key="bits",
            statement="Fed point by point until it fails, a unit holds 2 labels per weight on average",
            judge=near(2.0, 0.05),
            paper=Printed(2, "verified", "MacKay 2003, p. 490"),
            unit="bits per weight",
        ),
        Claim(
            key="law",
            statement="How many it holds is distributed as the formula says (largest gap of the two, over sizes)",
            judge=at_most(0.1),
            middle="max",
        ),
    ),
    ablations=(
        Ablation("position", "the points lie in half of the dimensions", ("count", "learnt", "bits", "law")),
        Ablation("chance", "the answers follow a rule that another unit has made up", ("learnt", "bits", "law")),
    ),
    minutes=Minutes(read=6, smoke=0.1, report=1.0),
    seeds=Seeds(smoke=1, report=5),
    code=("underhood.evals.separable:separation", "underhood.evals.separable:separable_labellings"),
    hard="""
A perceptron that has not converged yet proves nothing, so each labelling is decided exactly: the method ends with
weights that separate, or with a mixture of the points that no weights can separate. K counts all weights; a threshold
would be one of them. Answers by a rule can be learnt without end (the search stops at four points per weight): that is
the difference between memorising and understanding.
""",
    then="Trained transformers are measured to hold about as much: roughly 2 bits of facts per parameter (Allen-Zhu "
    "and Li 2024). What a bit is: entropy.",
)


def run(trial: Trial) -> None:
    x = np.random.default_rng(0).standard_normal((8, 3))
    if trial.ablated("position"):
        x = x @ np.diag([1.0, 1.0, 0.0])
    trial.measure("count", sum(separation(x, np.array(y))[0] for y in product((-1.0, 1.0), repeat=8)))
    if not trial.is_ablation:
        trial.measure("half", max(abs(float(share(2 * k, k) - Fraction(1, 2))) for k in range(1, 501)))
        trial.measure("steep", float(share(900, 500) - share(1100, 500)))
    held: dict[int, list[int]] = {k: [] for k in (SIZES[:1] if trial.is_ablation else SIZES)}
    for seed in trial.each_seed():
        rng = np.random.default_rng(seed)
        for k in trial.each(list(held), "weights"):
            draws = range(trial.by_scale(smoke={10: 120, 20: 30, 50: 4}, report={10: 200, 20: 100, 50: 16})[k])
            held[k] += [holds(trial, k, rng) for _ in draws]
    drawn = {k: np.array(found) for k, found in held.items()}
    trial.measure("learnt", np.concatenate([found >= 2 * k for k, found in drawn.items()]).mean())
    trial.measure("bits", np.concatenate([found / k for k, found in drawn.items()]).mean())
    trial.measure("law", max(gap(found, k) for k, found in drawn.items() if len(found) > 50))
    if not trial.is_ablation:
        closed = [separable_labellings(n, k) for n in range(2, 30) for k in range(2, 30)]
        steps = [
            separable_labellings(n - 1, k) + separable_labellings(n - 1, k - 1)
            for n in range(2, 30)
            for k in range(2, 30)
        ]
        trial.oracle("Cover's recursion", closed == steps, f"{len(steps)} pairs of N and K")
        show(trial, drawn)


def share(points: int, weights: int) -> Fraction:
    """Which part of all labellings can be learnt."""
    return Fraction(separable_labellings(points, weights), 2**points)


def holds(trial: Trial, k: int, rng: np.random.Generator) -> int:
    """How many of a sequence of labelled points a unit of k weights can learn before the first that is too much.

    What separates more points separates fewer, so the number is found by halving an interval.
    """
    x = rng.standard_normal((4 * k, k))
    if trial.ablated("position"):
        x[:, k // 2 :] = 0
    y = np.sign(x @ rng.standard_normal(k)) if trial.ablated("chance") else rng.choice((-1.0, 1.0), len(x))
    fine, most = 0, len(x) + 1
    while most - fine > 1:
        middle = (fine + most) // 2 if fine else min(2 * k, most - 1)
        if separation(x[:middle], y[:middle])[0]:
            fine = middle
        else:
            most = middle
    return fine


def gap(found: NDArray[np.int64], k: int) -> float:
    """The largest difference between the shares of sequences held at N points, as found and by Cover's formula."""
    return max(abs(float((found >= n).mean()) - float(share(n, k))) for n in range(1, 4 * k + 1))


def show(trial: Trial, drawn: dict[int, NDArray[np.int64]]) -> None:
    ratios = np.linspace(1, 3, 41)
    series = []
    for k, found in drawn.items():
        points = [round(ratio * k) for ratio in ratios]
        places = tuple(n / k for n in points)
        series.append(Series(f"{k} weights, tried", places, tuple(float((found >= n).mean()) for n in points)))
        series.append(Series(f"{k} weights, formula", places, tuple(float(share(n, k)) for n in points), paper=True))
    trial.figure(
        Plot(
            title="Up to two points per weight, nearly everything can be memorised",
            x="points per weight",
            y="share of random labellings that can be learnt",
            series=tuple(series),
        )
    )
    trial.figure(
        Grid(
            title="How many labels a unit holds",
            head=("weights", "held on average", "per weight", "by the formula"),
            rows=tuple((k, round(float(f.mean()), 2), round(float(f.mean()) / k, 3), 2 * k) for k, f in drawn.items()),
        )
    )
