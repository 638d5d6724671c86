"""Warm-up, annealing and clipping: what the learning rate does between the first step and the last."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR

from underhood.core.figures import Series
from underhood.core.trial import Trial
from underhood.data.letters import plain_english, symbols
from underhood.train.classic_optimizers import AdamW
from underhood.train.optim import scale_lr
from underhood.train.schedule import ScheduleSpec, noam

RATE, WARMUP = 6e-3, 0.33
SIZE = (300, 32, 8, 32)  # steps, width, rows of a batch, letters in a row


def run(trial: Trial) -> None:
    shorter = 0 if trial.ablated("warmup") else 1
    trial.measure("torch", from_torch(shorter))
    trial.measure("gpt", from_nanogpt(shorter))
    rates = [noam(step, 512) for step in range(1, 20_001)]
    trial.measure("noam", 1e6 * max(rates) if rates.index(max(rates)) == 3999 else math.nan)
    curves: dict[str, list[float]] = {}
    for seed in trial.each_seed():
        trial.measure("clip", with_spikes(seed, trial.ablated("clip")))
        if trial.wants("post"):
            gains = {}
            for before in (False, True):
                ends = []
                for name, share in (("no warm-up", 0.0), ("warm-up", WARMUP)):
                    curve, _ = learn(trial, seed, before, ScheduleSpec(warmup=share, decay=0))
                    curves.setdefault(f"{'pre' if before else 'post'}-LN, {name}", curve)
                    ends.append(float(np.mean(curve[-len(curve) // 10 :])))
                gains[before] = ends[0] - ends[1]
            trial.measure("post", gains[False])
            trial.measure("pre", max(gains[True], 0.0) / gains[False])
            flat, falling = (ScheduleSpec(warmup=0.1, decay=d, floor=0.1, shape="cosine") for d in (0.0, 0.9))
            trial.measure("anneal", learn(trial, seed, True, flat)[1] - learn(trial, seed, True, falling)[1])
    if not trial.is_ablation:
        show(trial, rates, curves)


def from_torch(kept: int, steps: int = 1000, warmup: int = 100) -> float:
    """How far our course (`kept` 0: without its warm-up) is from warm-up and cosine of torch.optim.lr_scheduler."""
    seen = []
    for make, count in (
        (lambda o: LinearLR(o, start_factor=1 / warmup, total_iters=warmup - 1), warmup),
        (lambda o: CosineAnnealingLR(o, steps - warmup + 1, eta_min=0.1), steps - warmup + 1),
    ):
        optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
        scheduler = make(optimiser)
        for step in range(count):
            if step or count == warmup:  # both courses have the peak; it counts once
                seen.append(float(optimiser.param_groups[0]["lr"]))
            optimiser.step()
            scheduler.step()
    spec = ScheduleSpec(warmup=kept * warmup / steps, decay=1 - warmup / steps, floor=0.1, shape="cosine")
    return max(abs(spec.lr_factor(step, steps) - rate) for step, rate in enumerate(seen))


def from_nanogpt(kept: int, warmup: int = 715, steps: int = 19_073) -> float:
    """The largest difference from the closed form: a line up, then half a cosine from 1 to 0.1."""
    spec = ScheduleSpec(warmup=kept * warmup / steps, decay=1 - warmup / steps, floor=0.1, shape="cosine")
    fall = [0.1 + 0.45 * (1 + math.cos(math.pi * (s - warmup) / (steps - warmup))) for s in range(warmup, steps)]
    theirs = [(s + 1) / warmup for s in range(warmup)] + fall
    return max(abs(spec.lr_factor(step, steps) - rate) for step, rate in enumerate(theirs))


def with_spikes(seed: int, ablated: bool) -> float:
    """How much of the way to the right weights is left, where some batches' inputs are 100 times too large."""
    rng = np.random.default_rng(seed)
    truth, w = rng.standard_normal(20), np.zeros(20)
    for step in range(2000):
        x = rng.standard_normal((8, 20)) * (100 if step % 50 == 49 else 1)
        g = x.T @ (x @ (w - truth) + rng.standard_normal(8)) / 8
        size = float(np.linalg.norm(g))
        w = w - 0.01 * g * (1.0 if ablated else min(1.0, 1.0 / size))
        if size > 1e100:
            return math.inf
    return float(np.linalg.norm(w - truth) / np.linalg.norm(truth))


def learn(trial: Trial, seed: int, before: bool, spec: ScheduleSpec) -> tuple[list[float], float]:
    """Losses of a Transformer on letters, step by step, and at the end on held-out text; `before`: pre-LN."""
    steps, width, rows, context = SIZE
    texts = [torch.from_numpy(symbols(" ".join(half))) for half in plain_english(only_topics=True, seed=0)]
    torch.manual_seed(seed)
    layer = nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, batch_first=True, norm_first=before)
    encoder = nn.TransformerEncoder(layer, 6, nn.LayerNorm(width) if before else None, enable_nested_tensor=False)
    for p in encoder.parameters():  # copies of one layer would start alike
        if p.ndim > 1:
            nn.init.xavier_uniform_(p)
    letters, places, out = nn.Embedding(27, width), nn.Embedding(context, width), nn.Linear(width, 27)
    model = nn.ModuleList([letters, places, encoder, out])
    mask = nn.Transformer.generate_square_subsequent_mask(context)

    def loss(text: Tensor, generator: torch.Generator, count: int) -> Tensor:
        start = torch.randint(len(text) - context - 1, (count, 1), generator=generator)
        ids = text[start + torch.arange(context + 1)]
        hidden = encoder(letters(ids[:, :-1]) + places.weight, mask=mask, is_causal=True)
        return F.cross_entropy(out(hidden).flatten(0, 1), ids[:, 1:].flatten())

    rule = AdamW(list(model.parameters()), lr=RATE, betas=(0.9, 0.98))
    generator, curve = torch.Generator().manual_seed(seed), []
    for step in range(steps):
        trial.progress(step / steps, "steps")
        model.zero_grad()
        now = loss(texts[0], generator, rows)
        now.backward()
        scale_lr(rule, spec.lr_factor(step, steps))
        rule.step()
        curve.append(float(now.detach()))
    with torch.no_grad():
        return curve, float(loss(texts[1], torch.Generator().manual_seed(0), 200))


def show(trial: Trial, rates: list[float], curves: dict[str, list[float]]) -> None:
    places = tuple(map(float, range(1, 20_001, 100)))
    gpt = ScheduleSpec(warmup=715 / 19_073, decay=1 - 715 / 19_073, floor=0.1, shape="cosine")
    courses = {"Transformer": rates, "GPT-3": [6e-4 * gpt.lr_factor(min(s, 19_072), 19_073) for s in range(20_000)]}
    series = (Series(name, places, tuple(course[::100])) for name, course in courses.items())
    trial.plot(title="Two courses", x="step", y="rate", series=series)
    smooth = {name: np.convolve(curve, np.ones(10) / 10, "valid") for name, curve in curves.items()}
    trial.plot(
        title="Six layers, with and without warm-up",
        x="steps",
        y="loss, nats per letter",
        series=tuple(
            Series(name, tuple(map(float, range(len(curve)))), tuple(curve.tolist())) for name, curve in smooth.items()
        ),
    )
