"""Attention over the blocked cache against attention over each text by itself."""

from __future__ import annotations

import random
from typing import Literal

import pytest
import torch
from torch import Tensor

from underhood.core.protocols import AttendingCache
from underhood.core.state import StateSpec
from underhood.infer.paged_cache import MOST_PIECES, PagedCache, Span
from underhood.nn.attention import attend

Layout = Literal["side by side", "even", "scattered", "shared", "two pieces"]
BLOCK, HEADS, GROUPS, WIDTH = 4, 4, 2, 8


def keys_and_values(heads: int, width: int) -> StateSpec:
    return StateSpec(vectors=((heads, width), (heads, width)))


def layout(kind: Layout, lengths: list[int], rng: random.Random) -> tuple[list[list[int]], int]:
    """Blocks of each text, and how many there are in all."""
    counts = [-(-length // BLOCK) for length in lengths]
    total = 2 * sum(counts) + 40
    free = list(range(total))
    if kind == "scattered":
        rng.shuffle(free)
        return [[free.pop() for _ in range(count)] for count in counts], total
    if kind == "even":
        step = max(counts) + 1
        return [list(range(step * index, step * index + count)) for index, count in enumerate(counts)], len(
            counts
        ) * step
    texts, start = [], 0
    for count in counts:
        texts.append(list(range(start, start + count)))
        start += count + rng.randrange(3)
    if kind == "two pieces":
        texts = [[*text[: len(text) // 2], *(block + start for block in text[len(text) // 2 :])] for text in texts]
    if kind == "shared":  # all begin in the first one's first three blocks
        texts = [texts[0], *(texts[0][:3] + text[3:] for text in texts[1:])]
    return texts, total


def runs(blocks: list[int]) -> list[tuple[int, int]]:
    actual: list[tuple[int, int]] = []
    for block in blocks:
        if actual and sum(actual[-1]) == block * BLOCK:
            actual[-1] = (actual[-1][0], actual[-1][1] + BLOCK)
        else:
            actual.append((block * BLOCK, BLOCK))
    return actual


def alone(q: Tensor, k: Tensor, v: Tensor, window: int | None, scale: float | None, cap: float | None) -> Tensor:
    """The last T of S tokens of one text."""
    count, span = q.shape[2], k.shape[2]
    query, key = torch.arange(span - count, span)[:, None], torch.arange(span)
    visible = key <= query
    if window is not None:
        visible &= query - key < window
    return attend(q, k, v, visible[None, None], scale=scale, softcap=cap)


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["side by side", "even", "scattered", "shared", "two pieces"])
@pytest.mark.parametrize(
    ("window", "scale", "cap", "dtype", "tolerance"),
    [
        (None, None, None, torch.float32, 1e-5),
        (None, 0.3, None, torch.float64, 1e-9),
        (6, None, None, torch.float32, 1e-5),
        (40, None, None, torch.float32, 1e-5),
        (None, None, 2.0, torch.float32, 1e-5),
        (6, 0.3, 2.0, torch.float32, 1e-5),
        (None, None, None, torch.bfloat16, 3e-2),
        (None, None, None, torch.int8, 3e-2),  # an 8-bit cache of fp32
    ],
    ids=["plain", "scaled", "window", "wide window", "capped", "capped window", "bfloat16", "8 bits"],
)
def test_blocked_cache_matches_attention_over_each_text(
    kind: Layout, window: int | None, scale: float | None, cap: float | None, dtype: torch.dtype, tolerance: float
) -> None:
    quantized = dtype == torch.int8
    dtype = torch.float32 if quantized else dtype
    rng = random.Random(f"{kind} {window} {cap}")
    generator = torch.Generator().manual_seed(0)
    lengths = [30, 29, 17, 90, 31, 33, 13, 30]
    texts, total = layout(kind, lengths, rng)
    data = [
        [torch.randn(1, heads, length, WIDTH, generator=generator).to(dtype) for heads in (HEADS, GROUPS, GROUPS)]
        for length in lengths
    ]
    if kind == "shared":
        for text in data[1:]:
            for piece in (1, 2):
                text[piece][:, :, : 3 * BLOCK] = data[0][piece][:, :, : 3 * BLOCK]
    cache = PagedCache([keys_and_values(GROUPS, WIDTH)], total * BLOCK, dtype=dtype, quantized=quantized)
    assert isinstance(cache, AttendingCache)
    done = [0] * len(lengths)
    shared_done = 3 * BLOCK if kind == "shared" else 0
    seen_pieces = set()
    while any(at < length for at, length in zip(done, lengths, strict=True)):
        spans, parts = [], []
        for index, length in enumerate(lengths):
            if done[index] == length:
                continue
            # Chunks first, single tokens towards the end; the first text reads the shared beginning for all.
            count = min(rng.choice([1, 7, 20]), length - done[index]) if done[index] < length - 3 else 1
            if kind == "shared" and index and done[index] == 0:
                if done[0] < shared_done:
                    continue
                done[index] = shared_done
            count = min(count, length - done[index])
            spans.append(Span(done[index], count, runs(texts[index])))
            parts.append((index, done[index], count))
            seen_pieces.add(len(spans[-1].slots(0, spans[-1].end)))
            done[index] += count
        positions = cache.arrange(spans)
        assert positions[0].tolist() == [start + step for _, start, count in parts for step in range(count)]
        q, k, v = (
            torch.cat([data[index][piece][:, :, start : start + count] for index, start, count in parts], dim=2)
            for piece in range(3)
        )
        cache.extend(q.shape[2], positions)
        actual = cache.attend(0, q, k, v, scale=scale, window=window, softcap=cap)
        row = 0
        for index, start, count in parts:
            own_q, own_k, own_v = data[index]
            end = start + count
            expected = alone(own_q[:, :, start:end], own_k[:, :, :end], own_v[:, :, :end], window, scale, cap)
            torch.testing.assert_close(actual[:, :, row : row + count], expected, rtol=tolerance, atol=tolerance)
            row += count
    pieces = {"side by side": 1, "even": 1, "two pieces": 2, "shared": 2, "scattered": MOST_PIECES + 1}[kind]
    assert max(seen_pieces) >= pieces


@torch.inference_mode()
def test_blocked_cache_takes_heads_whose_numbers_lie_apart() -> None:
    # As the transposed product of `SmallBatchLinear` leaves them.
    torch.manual_seed(0)
    straight = [torch.randn(1, heads, 3, WIDTH) for heads in (HEADS, GROUPS, GROUPS)]
    apart = [x.permute(3, 1, 2, 0).contiguous().permute(3, 1, 2, 0) for x in straight]
    assert apart[0].stride(-1) != 1
    actual = []
    for q, k, v in (straight, apart):
        cache = PagedCache([keys_and_values(GROUPS, WIDTH)], 64)
        cache.arrange([Span(0, 2, [(0, 4)]), Span(0, 1, [(8, 4)])])
        actual.append(cache.attend(0, q, k, v, scale=None, window=None, softcap=None))
    torch.testing.assert_close(actual[0], actual[1])


@torch.inference_mode()
def test_blocked_cache_copies_blocks_in_the_order_given() -> None:
    cache = PagedCache([keys_and_values(1, 2)], 12, quantized=True)
    cache.arrange([Span(0, 8, [(0, 8)])])
    x = torch.arange(16.0).view(1, 1, 8, 2)
    cache.attend(0, x, x, x, scale=None, window=None, softcap=None)
    cache.copy([(0, 2), (1, 0)], 4)
    stored = cache._stores[0][0].read(0, 12)
    torch.testing.assert_close(stored[:, :, 8:], x[:, :, :4], rtol=0.02, atol=0.02)
    torch.testing.assert_close(stored[:, :, :4], x[:, :, 4:], rtol=0.02, atol=0.02)
