"""The arithmetic coder: everything comes back, at the length that the probabilities allow, whatever they are."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from underhood.data.arithmetic import BITS, TOTAL_LIMIT, ArithmeticDecoder, ArithmeticEncoder, TruncatedError

Step = tuple[int, int, int]


@st.composite
def steps(draw: st.DrawFn) -> Step:
    """An interval of a total, with the awkward ones often: everything, almost everything, the rarest, the middle."""
    total = draw(st.sampled_from((1, 2, 3, 255, 256, 65_537, TOTAL_LIMIT - 1, TOTAL_LIMIT)))
    middle = max(0, total // 2 - 1)
    start, end = draw(
        st.sampled_from(((0, total), (0, max(1, total - 1)), (total - 1, total), (middle, min(total, middle + 2))))
        | st.tuples(st.integers(0, total - 1), st.integers(1, total)).map(lambda pair: (min(pair), max(*pair, 1)))
    )
    return (start, end, total) if start < end else (start, start + 1, total)


def encode(message: list[Step]) -> bytes:
    coder = ArithmeticEncoder()
    for step in message:
        coder.encode(*step)
    return coder.finish()


def check_decodes(code: bytes, message: list[Step]) -> None:
    coder = ArithmeticDecoder(code)
    for start, end, total in message:
        assert start <= coder.target(total) < end
        coder.decode(start, end, total)


def bits_of(message: list[Step]) -> float:
    return -sum(math.log2((end - start) / total) for start, end, total in message)


@given(st.lists(steps(), max_size=60))
def test_message_comes_back_and_needs_at_most_16_bits_more_than_its_probability(message: list[Step]):
    code = encode(message)
    check_decodes(code, message)
    assert 8 * len(code) <= bits_of(message) + 16


@pytest.mark.parametrize("seed", range(3))
def test_long_message_needs_its_bits_and_no_more(seed: int):
    draw = random.Random(seed)
    shares = [2**-k for k in range(1, 16)] + [2**-15]
    starts = [round(sum(shares[:k]) * TOTAL_LIMIT) for k in range(len(shares) + 1)]
    chosen = draw.choices(range(len(shares)), shares, k=20_000)
    message = [(starts[k], starts[k + 1], TOTAL_LIMIT) for k in chosen]
    code = encode(message)
    assert abs(8 * len(code) - bits_of(message)) <= 16
    check_decodes(code, message)


def test_carry_runs_through_bytes_that_are_written_already():
    """An interval just below a half for a long time, that then turns out to lie above it."""
    creep = [(TOTAL_LIMIT // 2 - 1, TOTAL_LIMIT // 2 + 1, TOTAL_LIMIT)] * 40
    for last in ((0, 1, 2), (1, 2, 2)):
        message = [(0, 3, 4), *creep, last]
        check_decodes(encode(message), message)
    low, high = (encode([(0, 3, 4), *creep, last]) for last in ((0, 1, 2), (1, 2, 2)))
    assert low < high  # in order, as numbers between 0 and 1 are


def test_a_certain_message_takes_no_room_and_an_empty_one_neither():
    assert encode([]) == b""
    assert encode([(0, 7, 7)] * 1000) == b""


def test_code_that_is_cut_off_is_noticed():
    message = [(n % 256, n % 256 + 1, 256) for n in range(200)]
    code = encode(message)

    def read_on(cut: bytes) -> None:
        coder = ArithmeticDecoder(cut)
        for _ in message:
            byte = coder.target(256)
            coder.decode(byte, byte + 1, 256)

    read_on(code)
    with pytest.raises(TruncatedError):
        read_on(code[:20])


def test_range_never_shrinks_below_half_of_its_bits():
    """The ablation: a coder that forgets to widen the range again has none left after a few symbols."""
    coder, width = ArithmeticEncoder(), (1 << BITS) - 1
    for _ in range(50):
        coder.encode(TOTAL_LIMIT // 2 - 1, TOTAL_LIMIT // 2 + 1, TOTAL_LIMIT)
        assert coder._range >= 1 << BITS - 1
        width = width * 2 // TOTAL_LIMIT
    assert width == 0
