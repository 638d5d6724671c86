"""Jiang et al. 2023: attention to the last W tokens, a cache of that size, and how far layers reach together."""

from __future__ import annotations

import torch
from torch import Tensor

from underhood.core.figures import Heat
from underhood.core.trial import Trial
from underhood.infer.sliding_window_cache import SlidingWindowCache
from underhood.models.decoder import Decoder, DecoderSpec
from underhood.models.presets import count_parameters, preset
from underhood.nn.attention import AttentionSpec
from underhood.nn.block import BlockSpec
from underhood.nn.feedforward import GatedMLPSpec
from underhood.path.lib.in_memory import with_random_layers
from underhood.path.lib.seed_series import over_seeds
from underhood.path.lib.short_training import train_by_step
from underhood.train.cross_entropy import cross_entropy

VOCABULARY, WINDOW, LENGTH = 16, 8, 40
NEAR, FAR = 12, 16
"""Distances of the copy task: within and beyond the reach of two layers, 2 × (8 − 1)."""
TASK_STEPS, EVERY, TASK_LENGTH = 300, 30, 28
PIECES = (5, 8, 3, *[1] * 24)


def run(trial: Trial) -> None:
    curves: dict[str, list[list[float]]] = {}
    for seed in trial.each_seed():
        trial.measure("ring", ring_error(seed, whole=trial.ablated("window")))
        if trial.is_ablation or not trial.wants("relay"):
            continue
        tasks = {"relay": (2, NEAR), "single": (1, NEAR), "far": (2, FAR)}
        for key, (layers, distance) in trial.each(tasks.items(), "task"):
            shares = copying(trial, layers, distance, seed)
            curves.setdefault(f"{layers} layer{'s' * (layers > 1)}, {distance} back", []).append(shares)
            trial.measure(key, shares[-1])
    influence_TT = influence(None if trial.ablated("window") else 4)
    trial.measure("reach", int((influence_TT[-1] > 0).sum()))
    if trial.is_ablation:
        return
    mistral = preset("mistral-7b-v0.1")
    window = mistral.state_specs[0].window
    assert window is not None
    trial.measure("memory", 32_768 / min(window, 32_768))
    trial.measure("count", count_parameters(mistral)[0])
    check_memory(trial)
    labels = tuple(str(at + 1) for at in range(len(influence_TT)))
    trial.figure(
        Heat(
            title="Which tokens change which scores: three layers, window 4",
            values=tuple(map(tuple, (influence_TT > 0).double().tolist())),
            rows=labels,
            columns=labels,
            note="Rows are tokens that are read, columns those that have any influence on their scores (derivatives).",
        )
    )
    if curves:
        trial.plot(
            title="Copying from outside the window",
            x="steps",
            y="share right",
            series=[
                over_seeds(name, torch.tensor(rows).T, range(0, TASK_STEPS + 1, EVERY)) for name, rows in curves.items()
            ],
            levels=((1 / VOCABULARY, "chance"),),
            note="Window 8. Two layers reach back 14 tokens.",
        )


def windowed(window: int | None, layers: int, d_model: int = 32) -> DecoderSpec:
    block = BlockSpec(mixer=AttentionSpec(heads=4, window=window), feedforward=GatedMLPSpec(d_ff=2 * d_model))
    return DecoderSpec(vocab_size=VOCABULARY, context_length=64, d_model=d_model, layers=layers, blocks=(block,))


@torch.no_grad()
def ring_error(seed: int, *, whole: bool) -> float:
    """Largest difference between scores through a cache of one window and those of the whole text at once."""
    spec = windowed(None if whole else WINDOW, layers=3)
    model = with_random_layers(spec.initialize(seed=seed), seed).eval()
    tokens_BT = torch.randint(VOCABULARY, (2, LENGTH), generator=torch.Generator().manual_seed(seed))
    cache = SlidingWindowCache(windowed(WINDOW, layers=3).state_specs, batch=2, window=WINDOW)
    pieces_BTV = torch.cat([model(piece, cache=cache) for piece in tokens_BT.split(PIECES, dim=1)], dim=1)
    return float((pieces_BTV - model(tokens_BT)).abs().max())


def influence(window: int | None) -> Tensor:
    """Size of the derivative of every token's scores by every token's embedding, (T, T), for three layers."""
    model = with_random_layers(windowed(window, layers=3).initialize(seed=0), 0).double().eval()
    tokens_BT = torch.randint(VOCABULARY, (1, 24), generator=torch.Generator().manual_seed(0))
    embedded: list[Tensor] = []

    def keep(_: object, __: object, x_BTD: Tensor) -> None:
        embedded.append(x_BTD)

    model.embed.register_forward_hook(keep)
    scores_TV = model(tokens_BT)[0]
    rows = [torch.autograd.grad(row.square().sum(), embedded[0], retain_graph=True)[0][0] for row in scores_TV]
    return torch.stack(rows).norm(dim=-1)


def copying(trial: Trial, layers: int, distance: int, seed: int) -> list[float]:
    """Shares of tokens copied rightly, while a model learns to name the token `distance` places back."""
    model, shares = windowed(WINDOW, layers, d_model=64).initialize(seed=seed), []
    test_BT = random_tokens(10**6 + seed, 64)

    def loss(step: int) -> Tensor:
        if step % EVERY == 0:
            shares.append(share_right(model, test_BT, distance))
        row_BT = random_tokens(seed * 10_000 + step, 16)
        return cross_entropy(model(row_BT)[:, distance:].flatten(0, 1), row_BT[:, :-distance].flatten())

    train_by_step(model, loss, TASK_STEPS, fall=2.0, tell=trial.progress)
    return [*shares, share_right(model, test_BT, distance)]


def random_tokens(seed: int, rows: int) -> Tensor:
    return torch.randint(VOCABULARY, (rows, TASK_LENGTH), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def share_right(model: Decoder, test_BT: Tensor, distance: int) -> float:
    best_BT = model(test_BT)[:, distance:].argmax(dim=-1)
    return float((best_BT == test_BT[:, :-distance]).double().mean())


def check_memory(trial: Trial) -> None:
    states = windowed(WINDOW, layers=3).state_specs
    cache = SlidingWindowCache(states, batch=1, window=WINDOW, chunk=1)
    expected = 3 * 2 * 4 * 8 * (WINDOW + 1) * 4
    trial.oracle("the cache holds a window and a chunk", cache.bytes == expected, f"{cache.bytes} and {expected} bytes")
