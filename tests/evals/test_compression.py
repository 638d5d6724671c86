"""Primed compressors against decompression and against the entropy of known sources."""

from __future__ import annotations

import random
import zlib

import pytest

from underhood.evals.compression import compressors_bits_per_byte, gzip_primed


def noise(count: int, seed: int) -> str:
    return "".join(random.Random(seed).choices("abcdefghijklmnop", k=count))  # exactly 4 bits per byte


def test_compressors_on_random_letters_need_the_entropy_and_little_more():
    actual = compressors_bits_per_byte([noise(50_000, 1)], [noise(50_000, 2)])
    assert set(actual) == {"gzip", "bz2", "xz"}
    for bits in actual.values():
        assert 4.0 <= bits < 4.7


def test_compressors_copy_what_the_training_text_holds():
    text = noise(20_000, 1)
    actual = compressors_bits_per_byte([text], [text])
    unprimed = compressors_bits_per_byte([], [text])
    assert max(actual["gzip"], actual["xz"]) < 0.1
    assert actual["bz2"] < 0.8 * unprimed["bz2"]
    assert all(bits > 3.9 for bits in unprimed.values())


def test_gzip_sees_no_further_back_than_its_window_and_xz_does():
    text = noise(20_000, 1)
    far = compressors_bits_per_byte([text, noise(40_000, 3)], [text])
    assert far["gzip"] > 3.9
    assert far["xz"] < 0.1


def test_gzip_primed_size_is_that_of_a_stream_that_decompresses():
    before, after = noise(70_000, 1).encode(), (noise(70_000, 1)[-500:] + noise(300, 2)).encode()
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_DEFAULT_STRATEGY, before[-32_768:])
    packed = deflate.compress(after) + deflate.flush()
    assert zlib.decompressobj(-15, zdict=before[-32_768:]).decompress(packed) == after
    assert gzip_primed(before, after) == len(packed)


def test_compressors_charge_for_ends_of_documents_but_count_text_bytes_only():
    joined = compressors_bits_per_byte([], ["abc" * 100])
    apart = compressors_bits_per_byte([], ["abc", *["abc"] * 99])
    assert all(apart[name] >= joined[name] for name in joined)
    with pytest.raises(ValueError, match="no held-out text"):
        compressors_bits_per_byte(["abc"], [""])
