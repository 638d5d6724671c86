"""Touvron et al. 2023: from GPT-2's block to Llama's, one part after the other."""

from __future__ import annotations

from functools import partial

import torch

from underhood.core.trial import Trial
from underhood.models.base import parameter_count
from underhood.models.decoder import DecoderSpec
from underhood.models.presets import count_parameters, preset
from underhood.nn.attention import AttentionSpec
from underhood.nn.feedforward import GatedMLPSpec, MLPSpec
from underhood.nn.norm import LayerNormSpec, RMSNormSpec
from underhood.nn.positions import LearnedPositionSpec
from underhood.path.lib.letter_models import held_out_loss, letter_model, trained
from underhood.path.lib.seed_series import over_seeds

PUBLISHED = {"llama-2-13b": 13_015_864_320, "llama-2-70b": 68_976_648_192}
STEPS = {"norm": "RMSNorm", "gate": "+ SwiGLU", "rotary": "+ rotary", "bias": "− biases"}
"""Rungs of the ladder after GPT-2's block, by claim."""


def run(trial: Trial) -> None:
    losses: list[list[float]] = []
    for seed in trial.each_seed():
        d_model, layers, steps, batch = trial.by_scale(smoke=(32, 1, 50, 8), report=(64, 2, 150, 8))
        rungs = ladder(d_model, layers)
        if trial.ablated("parts"):
            rungs = [rungs[0], rungs[1]]
        elif not trial.wants("norm"):
            rungs = [rungs[0], rungs[-1]]
        losses.append([])
        for spec in trial.each(rungs, "model"):
            losses[-1].append(held_out_loss(trained(spec, seed=seed, steps=steps, batch=batch, tell=trial.progress)))
        trial.measure("better", losses[-1][-1] - losses[-1][0])
        if not trial.is_ablation and trial.wants("norm"):
            for key, before, after in zip(STEPS, losses[-1], losses[-1][1:], strict=False):
                trial.measure(key, after - before)
    if trial.is_ablation:
        return
    trial.measure("count", count_parameters(preset("llama-2-7b"))[0])
    for name, expected in PUBLISHED.items():
        total = count_parameters(preset(name))[0]
        trial.oracle(f"{name} has {expected:,} parameters", total == expected, f"{total:,}")
    layers, d, d_ff, vocabulary = 32, 4096, 11008, 32000
    formula = 2 * vocabulary * d + layers * (4 * d * d + 3 * d * d_ff + 2 * d) + d
    trial.oracle("Llama-2 7B by hand", formula == 6_738_415_616, f"{formula:,}")
    table = torch.tensor(losses)
    names = ("GPT-2", *STEPS.values()) if table.shape[1] > 2 else ("GPT-2", "Llama")
    counts = [parameter_count(spec.build()) for spec in ladder()]
    trial.plot(
        title="From GPT-2's block to Llama's",
        x="parts exchanged so far",
        y="nats per letter",
        kind="bars",
        names=names,
        series=[over_seeds("held-out loss", table.T)],
        note=f"Mean and range over seeds. At report scale GPT-2 has {counts[0]:,} weights and Llama {counts[-1]:,}.",
    )


def ladder(d_model: int = 64, layers: int = 2) -> list[DecoderSpec]:
    """GPT-2's block, and after each exchange; the feed-forwards have as many weights."""
    plain = MLPSpec(d_ff=4 * d_model)
    learned = AttentionSpec(heads=4, bias=True, output_bias=True, rotary=None)
    turned = AttentionSpec(heads=4, bias=True, output_bias=True)
    gated, gated_with_bias = (GatedMLPSpec(d_ff=round(8 / 3 * d_model), bias=bias) for bias in (False, True))
    model = partial(letter_model, d_model=d_model, layers=layers)
    return [
        model(norm=LayerNormSpec(), feedforward=plain, mixer=learned, positions=LearnedPositionSpec()),
        model(norm=RMSNormSpec(), feedforward=plain, mixer=learned, positions=LearnedPositionSpec()),
        model(feedforward=gated_with_bias, mixer=learned, positions=LearnedPositionSpec()),
        model(feedforward=gated_with_bias, mixer=turned),
        model(feedforward=gated, mixer=AttentionSpec(heads=4)),
    ]
