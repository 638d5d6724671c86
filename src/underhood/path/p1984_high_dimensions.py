"""High dimensions: almost everything is almost orthogonal, and there is room for more features than axes."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from underhood.core.figures import Grid, Plot, Series
from underhood.core.milestone import Ablation, Claim, Milestone, Minutes, Paper, Printed, Seeds, at_least, at_most, near
from underhood.core.trial import Trial
from underhood.data.letters import block_counts, plain_english, symbols
from underhood.evals import directions as space
from underhood.models.superposition import kept, squeeze

Floats = NDArray[np.float64]
GPT3, TOKENS = 12_288, 50_257
FEATURES = 40
AXES = 8
ERROR = 0.25
DRAWN = (3, 64, 768, GPT3)
KEYS = (8, 64, 512)
RARE = (1.0, 0.3, 0.1, 0.03, 0.01)

MILESTONE = Milestone(
    stem="p1984_high_dimensions",
    topics=("highdim-geometry",),
    title="High dimensions have room",
    year=1984,
    question="Why do models think in thousands of dimensions, and how do so many meanings fit in?",
    asks=(
        "why does attention divide by the square root of d?",
        "what is superposition?",
    ),
    papers=(
        Paper(
            authors="W. B. Johnson, J. Lindenstrauss",
            year=1984,
            title="Extensions of Lipschitz mappings into a Hilbert space",
            link="https://doi.org/10.1090/conm/026/737400",
        ),
        Paper(
            authors="N. Elhage et al.",
            year=2022,
            title="Toy models of superposition",
            link="https://transformer-circuits.pub/2022/toy_model/index.html",
        ),
    ),
    idea=r"""
On a plane, two random directions can lie in any relation. In $d$ dimensions the cosine between them is a mean of $d$
products, some positive and some negative, and such a mean shrinks:

$$\mathbb E\,|\cos| \approx \sqrt{\frac{2}{\pi d}}, \qquad P(|\cos| \ge t) \approx 2\,e^{-d\,t^2/2}$$

In GPT-3's 12,288 dimensions nearly all directions are nearly at right angles. Exactly orthogonal ones there are only
$d$, but *almost* orthogonal ones exponentially many, $e^{c\,d}$. So each of 50,257 tokens can have a direction of its
own, and so can many more things that a model wants to tell apart. Products, on the other hand, grow: that of two
vectors with components of variance 1 has variance $d$, and a softmax of such scores would look at a single key. That is
why attention divides by $\sqrt d$.

Distances become alike as well: far and near differ by little. And they need few dimensions to be kept. Whatever space
$n$ points come from, a *random* projection to

$$m \ge \frac{8 \ln n}{\varepsilon^2}$$

dimensions keeps all their distances within $1 \pm \varepsilon$ (Johnson and Lindenstrauss).

Do networks use the room? Let $n$ features pass through $m < n$ dimensions and back, $\text{ReLU}(W^\top W x + b)$. If
they are always on, they disturb each other, and the net learns about as many as there are axes, or fewer. If each is
rarely on, two seldom meet, the ReLU cuts off the small echoes, and the net stores many times more than it has axes: in
*superposition*. That is why single neurons are so hard to read.
""",
    claims=(
        Claim(
            key="mean_cosine",
            statement="In 3, 64, 768 and 12,288 dimensions, the mean |cos| is that of the formula (worst ratio)",
            judge=near(1.0, 0.02),
            middle="max",
        ),
        Claim(
            key="gpt3",
            statement="In GPT-3's 12,288 dimensions it is 0.0072",
            judge=near(0.0072, 0.0001),
            paper=Printed(0.0072, "computed", "sqrt(2 / (π d))"),
        ),
        Claim(
            key="tokens",
            statement="Of 50,257 random directions in there, pairs with |cos| above 0.06 are not to be expected (mean)",
            judge=at_most(0.1),
        ),
        Claim(
            key="sample",
            statement="Pairs nearer than |cos| = 0.02 are as frequent as the law says that gave that number (ratio)",
            judge=near(1.0, 0.1),
        ),
        Claim(
            key="growth",
            statement="In 96 dimensions fit 50 times as many random directions, all 60° apart or more, as in 32",
            judge=at_least(50, shape=10),
        ),
        Claim(
            key="variance",
            statement="The product of a query and a key has variance d (worst ratio at d = 8, 64, 512)",
            judge=near(1.0, 0.05),
            middle="max",
        ),
        Claim(
            key="scaled",
            statement="Divided by √d, attention looks at one of 64 keys as hard in 512 dimensions as in 8 (ratio)",
            judge=near(1.0, 0.15),
        ),
        Claim(
            key="concentrate",
            statement="The farthest of 500 points is at most 1.3 times as far as the nearest (1,000 dimensions)",
            judge=at_most(1.3),
            middle="max",
        ),
        Claim(
            key="projection",
            statement="Of texts in 19,683 dimensions, a projection to 8 ln n / ε² keeps all distances within ε = 0.25",
            judge=at_most(ERROR),
            middle="max",
            paper=Printed(0.25, "verified", "the lemma"),
        ),
        Claim(
            key="superposition",
            statement="A net learns to keep 3 times as many rare features as it has axes (of 40, in 8)",
            judge=at_least(24, shape=9),
        ),
        Claim(
            key="dense",
            statement="Of features that are always on it keeps no more than it has axes",
            judge=at_most(AXES),
            middle="max",
        ),
    ),
    ablations=(
        Ablation("dimensions", "all vectors lie in three dimensions", ("mean_cosine", "gpt3", "growth", "concentrate")),
        Ablation("root", "attention scores are not divided by √d", ("scaled",)),
        Ablation("random", "the first coordinates are kept in place of random ones", ("projection",)),
        Ablation("rare", "all features are always on", ("superposition",)),
        Ablation("relu", "nothing cuts the echoes off", ("superposition",)),
    ),
    minutes=Minutes(read=8, smoke=0.2, report=1.0),
    seeds=Seeds(smoke=1, report=5),
    code=("underhood.evals.directions:share_beyond", "underhood.models.superposition:squeeze"),
    hard="""
A feature counts as kept if at least half of it comes back when it is on alone. Random directions are only the floor of
what is possible: directions that are placed with care fit in many more. How many random ones fit is a birthday problem,
and chance moves it by half; ten draws are averaged at report scale. The texts are counts of letter triples.
""",
    errata=(
        "A token of GPT-3 is no vector in a space of about 50,000 dimensions, as one can read. 50,257 is the number of "
        "tokens, and so the length of a one-hot code; the vectors that the model works with have 12,288 components "
        "(Brown et al. 2020, table 2.1).",
    ),
    then="Directions that mean something: linalg-essence, and word vectors.",
)


def run(trial: Trial) -> None:
    flat = trial.ablated("dimensions")
    trial.measure("tokens", TOKENS * (TOKENS - 1) / 2 * space.share_beyond(GPT3, 0.06))
    found: dict[float, list[int]] = {}
    for seed in trial.each_seed():
        rng = np.random.default_rng(seed)
        if trial.wants("mean_cosine", "gpt3", "sample"):
            near_by = {d: np.abs(space.cosines(space.random_directions(500, 3 if flat else d, rng))) for d in DRAWN}
            trial.measure("mean_cosine", worst(one.mean() / space.mean_cosine(d) for d, one in near_by.items()))
            trial.measure("gpt3", near_by[GPT3].mean())
            trial.measure("sample", (near_by[GPT3] > 0.02).mean() / space.share_beyond(GPT3, 0.02))
        if trial.wants("growth"):
            draws = range(trial.by_scale(smoke=2, report=10))
            many, few = (sum(space.until_close(3 if flat else d, 0.5, rng) for _ in draws) for d in (96, 32))
            trial.measure("growth", many / few)
        if trial.wants("concentrate"):
            x = rng.random((501, 3 if flat else 1000))
            away = space.distances(x)[:500]  # of the first point to all others
            trial.measure("concentrate", away.max() / away.min())
        if trial.wants("variance", "scaled"):
            products = {d: products_of(rng, d) for d in KEYS}
            trial.measure("variance", worst(one.var() / d for d, one in products.items()))
            scores = [torch.from_numpy(products[d] / (1 if trial.ablated("root") else d**0.5)) for d in (8, 512)]
            low, high = (one.softmax(dim=-1).amax(dim=-1).mean().item() for one in scores)
            trial.measure("scaled", high / low)
        if trial.wants("projection"):
            x = texts(trial.scale == "smoke")
            m = space.enough_dimensions(len(x), ERROR)
            y = x[:, :m] * (x.shape[1] / m) ** 0.5 if trial.ablated("random") else space.projected(x, m, rng)
            trial.measure("projection", space.distortion(x, y))
        if trial.wants("superposition"):
            relu = not trial.ablated("relu")
            for on in (0.01,) if trial.is_ablation else trial.by_scale(smoke=(1.0, 0.01), report=RARE):
                chance = 1.0 if trial.ablated("rare") else on
                W, b = squeeze(
                    FEATURES, AXES, chance, seed=seed, relu=relu, steps=trial.by_scale(smoke=300, report=1500)
                )
                found.setdefault(on, []).append(kept(W, b, relu))
            trial.measure("superposition", found[0.01][-1])
            if not trial.is_ablation:
                trial.measure("dense", found[1.0][-1])
    if not trial.is_ablation:
        third = space.share_beyond(3, 0.4)
        trial.oracle("on an ordinary sphere the share is 1 − t (Archimedes)", abs(third - 0.6) < 1e-9, f"{third:.9f}")
        show(trial, found)


def products_of(rng: np.random.Generator, d: int) -> Floats:
    """Queries times 64 keys each, (queries, 64): more queries where few dimensions leave more to chance."""
    queries = max(200, 32_000 // d)
    return (rng.standard_normal((queries, 64, d)) @ rng.standard_normal((queries, d, 1)))[..., 0]


def worst(ratios: Iterable[float]) -> float:
    """The one that is farthest from 1."""
    return max(ratios, key=lambda ratio: abs(ratio - 1))


@lru_cache(maxsize=2)
def texts(only_topics: bool) -> Floats:
    """Documents as counts of their letter triples, (documents, 27³), each of length 1."""
    long = [text for text in plain_english(only_topics=only_topics)[0] if len(text) > 300]
    counts = np.stack([block_counts(symbols(text), 3) for text in long])
    return counts / np.linalg.norm(counts, axis=1, keepdims=True)


def show(trial: Trial, found: dict[float, list[int]]) -> None:
    rng = np.random.default_rng(0)
    edges = np.linspace(0, 1, 51)
    middles = tuple((edges[1:] - 0.01).tolist())
    drawn = {d: np.abs(space.cosines(space.random_directions(500, d, rng))) for d in DRAWN}
    angles = {d: np.histogram(one, edges)[0] / len(one) for d, one in drawn.items()}
    trial.figure(
        Plot(
            title="In many dimensions directions are nearly at right angles",
            x="|cos| of two random directions",
            y="share of pairs",
            series=tuple(Series(f"{d:,} dimensions", middles, tuple(shares.tolist())) for d, shares in angles.items()),
        )
    )
    x = texts(trial.scale == "smoke")
    sizes = (10.0, 30.0, 100.0, 300.0, 1000.0)
    errors = {"measured": [space.distortion(x, space.projected(x, int(m), rng)) for m in sizes]}
    errors["sqrt(8 ln n / m)"] = [(8 * np.log(len(x)) / m) ** 0.5 for m in sizes]
    trial.figure(
        Plot(
            title=f"Distances of {len(x)} texts survive a random projection from 19,683 dimensions",
            x="dimensions kept",
            y="largest relative error",
            log_x=True,
            log_y=True,
            series=tuple(Series(name, sizes, tuple(one)) for name, one in errors.items()),
        )
    )
    rows = tuple((f"{on:.0%}", round(float(np.mean(counts)), 1)) for on, counts in found.items())
    title = f"Of {FEATURES} features through {AXES} dimensions, so many come back at half of their value or more"
    trial.figure(Grid(title=title, head=("each is on", "kept"), rows=rows))
