"""High dimensions: almost everything is almost orthogonal, and there is room for more features than axes."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from underhood.core.figures import Series
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


def run(trial: Trial) -> None:
    flat = trial.ablated("dimensions")
    trial.measure("tokens", TOKENS * (TOKENS - 1) / 2 * space.share_beyond(GPT3, 0.06))
    features_kept: dict[float, list[int]] = {}
    for seed in trial.each_seed():
        rng = np.random.default_rng(seed)
        if trial.wants("mean_cosine", "gpt3", "sample"):
            near_by = {d: np.abs(space.cosines(space.random_directions(500, 3 if flat else d, rng))) for d in DRAWN}
            trial.measure("mean_cosine", worst(cosines.mean() / space.mean_cosine(d) for d, cosines in near_by.items()))
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
            trial.measure("variance", worst(product.var() / d for d, product in products.items()))
            scores = [torch.from_numpy(products[d] / (1 if trial.ablated("root") else d**0.5)) for d in (8, 512)]
            low, high = (score.softmax(dim=-1).amax(dim=-1).mean().item() for score in scores)
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
                features_kept.setdefault(on, []).append(kept(W, b, relu))
            trial.measure("superposition", features_kept[0.01][-1])
            if not trial.is_ablation:
                trial.measure("dense", features_kept[1.0][-1])
    if not trial.is_ablation:
        third = space.share_beyond(3, 0.4)
        trial.oracle("on an ordinary sphere the share is 1 − t (Archimedes)", abs(third - 0.6) < 1e-9, f"{third:.9f}")
        show(trial, features_kept)


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


def show(trial: Trial, features_kept: dict[float, list[int]]) -> None:
    rng = np.random.default_rng(0)
    edges = np.linspace(0, 1, 51)
    middles = tuple((edges[1:] - 0.01).tolist())
    drawn = {d: np.abs(space.cosines(space.random_directions(500, d, rng))) for d in DRAWN}
    angles = {d: np.histogram(angle, edges)[0] / len(angle) for d, angle in drawn.items()}
    trial.plot(
        title="In many dimensions directions are nearly at right angles",
        x="|cos| of two random directions",
        y="share of pairs",
        series=tuple(Series(f"{d:,} dimensions", middles, tuple(shares.tolist())) for d, shares in angles.items()),
    )
    x = texts(trial.scale == "smoke")
    sizes = (10.0, 30.0, 100.0, 300.0, 1000.0)
    errors = {"measured": [space.distortion(x, space.projected(x, int(m), rng)) for m in sizes]}
    errors["sqrt(8 ln n / m)"] = [(8 * np.log(len(x)) / m) ** 0.5 for m in sizes]
    trial.plot(
        title=f"Distances of {len(x)} texts survive a random projection from 19,683 dimensions",
        x="dimensions kept",
        y="largest relative error",
        log_x=True,
        log_y=True,
        series=tuple(Series(name, sizes, tuple(error)) for name, error in errors.items()),
    )
    rows = tuple((f"{on:.0%}", round(float(np.mean(counts)), 1)) for on, counts in features_kept.items())
    title = f"Of {FEATURES} features through {AXES} dimensions, so many come back at half of their value or more"
    trial.table(title=title, head=("each is on", "kept"), rows=rows)
