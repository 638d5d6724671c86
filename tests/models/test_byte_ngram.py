"""The n-gram over bytes that learns as it reads: a distribution at every step, and Witten and Bell's own."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from underhood.data.arithmetic import TOTAL_LIMIT
from underhood.models.byte_ngram import ByteNGram

TEXT = b"the cat sat on the mat; the cat ate the rat that sat on the mat. "


def read(data: bytes, order: int, **options: int) -> ByteNGram:
    model = ByteNGram(order, **options)
    for byte in data:
        model.learn(byte)
    return model


@settings(max_examples=25)
@given(st.binary(max_size=60), st.integers(0, 6))
def test_intervals_of_all_bytes_lie_end_to_end(data: bytes, order: int):
    model = read(data, order)
    at = 0
    for byte in range(256):
        start, end = model.interval(byte)
        assert start == at < end
        assert model.find(start) == model.find(end - 1) == (byte, start, end)
        at = end
    assert at == TOTAL_LIMIT


def witten_bell(data: bytes, order: int, byte: int) -> Fraction:
    """p(byte | data) by the equation, in exact fractions, from counts made anew."""
    p = Fraction(1, 256)
    for size in range(min(order, len(data)) + 1):
        context = data[len(data) - size :]
        after = Counter(data[at + size] for at in range(len(data) - size) if data[at : at + size] == context)
        if not after:
            break
        total, kinds = sum(after.values()), len(after)
        p = (after[byte] + kinds * p) / (total + kinds)
    return p


@given(st.text(alphabet="ab ", max_size=40).map(str.encode), st.integers(0, 5), st.sampled_from(b"ab cx"))
def test_probability_is_witten_and_bells_to_the_last_digits_that_it_keeps(data: bytes, order: int, byte: int):
    start, end = read(data, order).interval(byte)
    assert abs(Fraction(end - start, TOTAL_LIMIT) - witten_bell(data, order, byte)) < Fraction(20, 1 << 20)


def test_longer_context_tells_more():
    """The ablation: without context, what precedes a byte changes nothing."""

    def share(before: bytes, order: int) -> float:
        start, end = read(TEXT * 3 + before, order).interval(ord("t"))
        return (end - start) / TOTAL_LIMIT

    assert share(b"on the ma", 5) > 0.8 > 5 * share(b"on the c", 5)
    assert abs(share(b"on the ma", 0) - share(b"on the c", 0)) < 0.01


def test_memory_has_an_end_and_the_model_goes_on_with_what_it_has():
    small = read(TEXT * 3, 5, contexts=50)
    assert len(small._known) == 50
    at = 0
    for byte in range(256):
        start, end = small.interval(byte)
        assert start == at < end
        at = end
