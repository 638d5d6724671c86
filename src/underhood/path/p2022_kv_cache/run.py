"""Keys and values kept between passes: the same scores for far less work, and the memory that it takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from underhood.core.figures import Series
from underhood.core.state import StateSpec
from underhood.core.trial import Trial
from underhood.infer.cache import ContiguousCache
from underhood.models.decoder import Decoder
from underhood.models.presets import preset
from underhood.nn.attention import Attention, AttentionSpec
from underhood.path.lib.in_memory import with_random_layers
from underhood.path.lib.letter_models import LETTERS, letter_model
from underhood.path.lib.seed_series import over_seeds

LENGTH, PIECES = 96, (40, 17, 30, 1, 1, 1, 1, 1, 1, 1, 1, 1)
WRITTEN = 128
COUNTED = (1, 43, 85, 128)
"""Lengths at which operations are counted; they are a polynomial of the length, of degree 2."""
LENGTHS = (16, 32, 64, 128, 256, 512)


def run(trial: Trial) -> None:
    times: list[list[list[float]]] = []
    for seed in trial.each_seed():
        model = with_random_layers(letter_model(context_length=512).initialize(seed=seed), seed).eval()
        tokens_BT = torch.randint(LETTERS, (2, LENGTH), generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            pieces_BTV = read_in_pieces(model, tokens_BT, numbered=not trial.ablated("positions"))
            trial.measure("same", float((pieces_BTV - model(tokens_BT)).abs().max()))
        if not trial.is_ablation and trial.wants("time"):
            wide = letter_model(d_model=256, layers=4, context_length=512).initialize(seed=seed).eval()
            trial.measure("time", time_writing(wide, 256, cached=False) / time_writing(wide, 256, cached=True))
            times.append([[next_token_seconds(wide, length, cached) for length in LENGTHS] for cached in (False, True)])
    if trial.is_ablation:
        return
    again, kept = work(cached=False), work(cached=True)
    trial.measure("work", again.sum() / kept.sum())
    trial.measure("bytes", kept_bytes(preset("llama-2-7b").state_specs))
    trial.measure(
        "palm", kept_bytes(118 * (AttentionSpec(heads=48, head_dim=128).state_spec(18432),)) * 512 * 2048 / 1e12
    )
    model = letter_model().build()
    cache = ContiguousCache.for_model(model, batch=3, capacity=50)
    expected = kept_bytes(model.spec.state_specs, width=4) * 3 * 50
    trial.oracle(
        "the cache takes what the formula says", cache.bytes == expected, f"{cache.bytes} and {expected} bytes"
    )
    trial.plot(
        title="Multiplications for the next letter",
        x="letters so far",
        y="millions",
        series=[
            Series(name, tuple(range(1, WRITTEN + 1)), tuple(row / 2e6))
            for name, row in (("read again", again), ("cache", kept))
        ],
    )
    if times:
        table = 1000 * torch.tensor(times)
        trial.plot(
            title="Time for the next letter",
            x="letters so far",
            y="milliseconds of processor time",
            log_x=True,
            log_y=True,
            series=[over_seeds(name, table[:, row].T, LENGTHS) for row, name in enumerate(("read again", "cache"))],
            note="Four layers of 256 numbers; mean and range over seeds.",
        )


def read_in_pieces(model: Decoder, tokens_BT: Tensor, *, numbered: bool = True) -> Tensor:
    """Scores (B, T, V) of a text that arrives in pieces; not `numbered` starts each piece at position 0."""
    cache = ContiguousCache.for_model(model, batch=len(tokens_BT), capacity=tokens_BT.shape[1])
    return torch.cat(
        [
            model(piece_BT, cache=cache, positions=None if numbered else torch.arange(piece_BT.shape[1])[None])
            for piece_BT in tokens_BT.split(PIECES, dim=1)
        ],
        dim=1,
    )


def passes(model: Decoder, count: int, *, cached: bool) -> list[Callable[[], Tensor]]:
    """The passes that write `count` letters: over the last one with a cache, over all so far without."""
    cache = ContiguousCache.for_model(model, batch=1, capacity=count) if cached else None
    device = next(model.parameters()).device

    def reading(length: int) -> Callable[[], Tensor]:
        tokens = torch.zeros(1, 1 if cached else length, dtype=torch.long, device=device)
        return lambda: model(tokens, cache=cache)

    return [reading(length) for length in range(1, count + 1)]


@torch.no_grad()
def work(*, cached: bool) -> np.ndarray:
    """Floating-point operations of each pass, counted on a model without values."""
    with torch.device("meta"):
        model = letter_model(context_length=512).build()
    for block in model.blocks:  # attention written out, whose products the counter knows
        cast(Attention, block.mixer).weights.register_forward_hook(lambda *_: None)
    counts = []
    for length in COUNTED:
        cache = ContiguousCache.for_model(model, batch=1, capacity=length) if cached else None
        tokens_BT = torch.zeros(1, length, dtype=torch.long, device="meta")
        if cache is not None and length > 1:
            model(tokens_BT[:, 1:], cache=cache)
        with FlopCounterMode(display=False) as counter:
            model(tokens_BT[:, :1] if cached else tokens_BT, cache=cache)
        counts.append(counter.get_total_flops())
    return np.polyval(np.polyfit(COUNTED, counts, 2), np.arange(1, WRITTEN + 1))


@torch.no_grad()
def time_writing(model: Decoder, count: int, *, cached: bool) -> float:
    start = time.process_time()
    for reading in passes(model, count, cached=cached):
        reading()
    return time.process_time() - start


@torch.no_grad()
def next_token_seconds(model: Decoder, length: int, cached: bool) -> float:
    """Median processor time of the pass that follows `length − 1` letters."""
    seconds = []
    for _ in range(5):
        cache = ContiguousCache.for_model(model, batch=1, capacity=length) if cached else None
        tokens_BT = torch.zeros(1, length, dtype=torch.long)
        if cache is not None:
            model(tokens_BT[:, 1:], cache=cache)
            tokens_BT = tokens_BT[:, :1]
        start = time.process_time()
        model(tokens_BT, cache=cache)
        seconds.append(time.process_time() - start)
    return float(np.median(seconds))


def kept_bytes(states: tuple[StateSpec, ...], width: int = 2) -> int:
    """Bytes per token, in numbers of `width` bytes."""
    return sum(heads * size * width for state in states for heads, size in state.vectors)
