"""3Blue1Brown 2024: GPT-3's weights counted, a fact in a neuron, and more features than dimensions."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn

from underhood.core.figures import Series
from underhood.core.trial import Trial
from underhood.models.decoder import DecoderSpec
from underhood.models.fact_store import (
    named,
    random_facts,
    scores,
    scores_without_each,
    trained_store,
    written_store,
)
from underhood.models.superposition import kept, squeeze
from underhood.nn.attention import AttentionSpec
from underhood.nn.block import BlockSpec
from underhood.nn.feedforward import MLPSpec
from underhood.nn.norm import LayerNormSpec
from underhood.nn.positions import LearnedPositionSpec
from underhood.path.lib.sigmoid_layers import initial_layers

FACTS, NAMES, SPORTS, DIMENSIONS = 100, 40, 10, 256
NEURONS = 50
FEATURES, AXES = 100, 20
ENOUGH = 0.5
"""A sport is named if the MLP writes at least this much of it; a clean answer is 1."""
GPT3 = DecoderSpec(
    vocab_size=50_257,
    context_length=2048,
    d_model=12_288,
    layers=96,
    positions=LearnedPositionSpec(),
    norm=LayerNormSpec(),
    blocks=(
        BlockSpec(
            mixer=AttentionSpec(heads=96, rotary=None, bias=True, output_bias=True),
            feedforward=MLPSpec(d_ff=4 * 12_288),
            norm=LayerNormSpec(),
        ),
    ),
)
"""Brown et al. 2020, table 2.1; the unembedding counted as a matrix of its own, as in the video."""


def run(trial: Trial) -> None:
    trial.measure("digits", sum(w.size for w in initial_layers((784, 16, 16, 10), np.random.default_rng(0))))
    counts = matrices(GPT3)
    total = sum(count * size for count, size in counts.values())
    trial.measure("gpt3", total)
    trial.measure("matrices", sum(count for count, _ in counts.values()))
    in_mlps = sum(count * size for name, (count, size) in counts.items() if name.startswith("MLP"))
    trial.measure("mlp_share", in_mlps / total)
    trial.measure("right_angles", welch_angle(10_000, 100))
    features: list[int] = []
    for seed in trial.each_seed():
        if trial.wants("facts", "strangers", "surgery"):
            by_hand(trial, seed)
        if trial.wants("learnt", "spread", "own_neuron"):
            learnt(trial, seed)
        if trial.wants("superposition"):
            on = 1.0 if trial.ablated("rare") else 0.01
            W, b = squeeze(FEATURES, AXES, on, seed=seed, steps=trial.by_scale(smoke=600, report=1500))
            features.append(kept(W, b))
            trial.measure("superposition", features[-1])
    if not trial.is_ablation:
        show(trial, counts, total)


def matrices(spec: DecoderSpec) -> dict[str, tuple[int, int]]:
    """How many matrices of each kind a decoder has, and their size; positions, biases and norms are left out.

    Queries, keys and values are counted for each head, as one draws them, though they are stored together.
    """
    attention = spec.block(0).mixer
    assert isinstance(attention, AttentionSpec)
    with torch.device("meta"):
        model = spec.build()
    counts: dict[str, tuple[int, int]] = {}
    for name, module in model.named_modules():
        if name == "position_embed" or not isinstance(module, nn.Linear | nn.Embedding):
            continue
        kind, weights = name.split(".")[-1], module.weight.numel()
        heads = attention.heads if kind in ("query", "key", "value") else 1
        label = f"MLP, {kind}" if ".feedforward." in name else kind
        count, _ = counts.get(label, (0, 0))
        counts[label] = (count + heads, weights // heads)
    return counts


def welch_angle(vectors: int, dimensions: int) -> float:
    """Degrees by which some pair of so many directions must miss a right angle (Welch 1974)."""
    return math.degrees(math.asin(math.sqrt((vectors - dimensions) / (dimensions * (vectors - 1)))))


def by_hand(trial: Trial, seed: int) -> None:
    """Facts written into the weights, neuron by neuron."""
    facts = random_facts(FACTS, names=NAMES, sports=SPORTS, dimensions=DIMENSIONS, seed=seed)
    mlp = written_store(facts, threshold=not trial.ablated("threshold"))
    answers = named(scores(mlp, facts, facts.people), ENOUGH)
    trial.measure("facts", float((answers == facts.answers).float().mean()))
    trial.measure("strangers", float((named(scores(mlp, facts, facts.strangers()), ENOUGH) >= 0).float().mean()))
    changed_UF = named(scores_without_each(mlp, facts), ENOUGH) != answers
    only_own = changed_UF.diagonal() & (changed_UF.sum(dim=1) == 1)
    trial.measure("surgery", float(only_own.float().mean()))


def learnt(trial: Trial, seed: int) -> None:
    """Facts that gradient descent has put into half as many neurons."""
    facts = random_facts(FACTS, names=NAMES, sports=SPORTS, dimensions=DIMENSIONS, seed=seed)
    mlp = trained_store(facts, NEURONS, steps=400, seed=seed)
    answers = scores(mlp, facts, facts.people).argmax(dim=1)
    changed_UF = scores_without_each(mlp, facts).argmax(dim=2) != answers
    trial.measure("learnt", float((answers == facts.answers).float().mean()))
    trial.measure("spread", float(changed_UF.float().mean(dim=1).max()))
    trial.measure("own_neuron", float(changed_UF.any(dim=0).float().mean()))


def show(trial: Trial, counts: dict[str, tuple[int, int]], total: int) -> None:
    names = {"embed": "embedding", "unembed": "unembedding", "output": "attention, output"}
    rows = [
        (
            names.get(kind, kind if kind.startswith("MLP") else f"attention, {kind}"),
            f"{count:,}",
            f"{size:,}",
            f"{count * size:,}",
            f"{count * size / total:.1%}",
        )
        for kind, (count, size) in counts.items()
    ]
    trial.table(
        title="Where GPT-3's weights are",
        head=("matrix", "how many", "weights in each", "weights", "share"),
        rows=[*rows, ("all", f"{sum(count for count, _ in counts.values()):,}", "", f"{total:,}", "100.0%")],
        note="Biases, norms and positions are not counted; the real GPT-3 shares embedding and unembedding.",
    )
    widths = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 9000)
    trial.plot(
        title="How far from right angles some pair of 10,000 directions must be",
        x="dimensions",
        y="degrees",
        log_x=True,
        series=(Series("Welch's bound", widths, tuple(welch_angle(10_000, d) for d in widths)),),
        levels=((1.0, "the video's animation: 1°, in 100 dimensions"),),
    )
