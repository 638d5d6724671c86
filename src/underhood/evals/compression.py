"""Compression baselines: bits per byte of gzip, bzip2 and xz on the held-out text, primed with the training text.

Each compressor is primed as far as its format allows, and pays for the held-out text only:

- gzip (Deflate) sees 32 KiB back, so it gets the last 32 KiB of the training text as a preset dictionary. More of it
  could not help.
- bzip2 sorts blocks of 900 kB, each alone: the held-out text shares its blocks with the end of the training text only.
- xz (LZMA2) gets a window as large as both texts, so it can copy from all of them.

bzip2 and xz take no dictionary: their cost is the size of training and held-out text together minus that of the
training text. A zero byte closes each document, as the end-of-text token does for a model; it costs bits and counts
as no byte of text.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

GZIP_WINDOW = 32_768


def compressors_bits_per_byte(train: Iterable[str], held_out: Iterable[str]) -> dict[str, float]:
    """Bits per byte of the held-out documents for ``gzip``, ``bz2`` and ``xz``, each primed with the training ones.

    Takes a few seconds for some megabytes (xz works longest; the compressors run side by side).

    Raises:
        ValueError: the held-out documents hold no text.
    """
    held_out = list(held_out)
    text_bytes = sum(len(text.encode("utf-8", "surrogatepass")) for text in held_out)
    if text_bytes == 0:
        raise ValueError("no held-out text to compress")
    before, after = _joined(train), _joined(held_out)
    with ThreadPoolExecutor() as pool:  # all three let go of Python's lock while they work
        deflated = pool.submit(gzip_primed, before, after)
        sizes = {
            name: (pool.submit(size, before + after), pool.submit(size, before))
            for name, size in (("bz2", _bz2_size), ("xz", _xz_size(len(before) + len(after))))
        }
        sizes_by_name = {"gzip": deflated.result()} | {
            name: both.result() - alone.result() for name, (both, alone) in sizes.items()
        }
    return {name: 8 * size / text_bytes for name, size in sizes_by_name.items()}


def gzip_primed(before: bytes, after: bytes) -> int:
    """Bytes that Deflate at its best level needs for `after`, given the last 32 KiB of `before`; no header."""
    deflate = zlib.compressobj(level=9, wbits=-15, memLevel=9, zdict=before[-GZIP_WINDOW:])
    return len(deflate.compress(after) + deflate.flush())


def compressors_bytes(data: bytes) -> dict[str, int]:
    """Size of the data as a file of ``gzip``, ``bz2`` and ``xz`` at their best, and ``zstd`` if it is installed.

    Nothing is primed: the files are what their programs write (``gzip -9``, ``bzip2 -9``, ``xz -9e``, ``zstd -19``).
    """
    size: dict[str, Callable[[], bytes]] = {
        "gzip": lambda: gzip.compress(data, 9, mtime=0),
        "bz2": lambda: bz2.compress(data, 9),
        "xz": lambda: lzma.compress(data, preset=9 | lzma.PRESET_EXTREME),
    }
    with contextlib.suppress(ImportError):
        import zstandard

        size["zstd"] = lambda: zstandard.ZstdCompressor(level=19).compress(data)
    with ThreadPoolExecutor() as pool:
        packed = {name: pool.submit(make) for name, make in size.items()}
        return {name: len(made.result()) for name, made in packed.items()}


def _bz2_size(data: bytes) -> int:
    return len(bz2.compress(data, 9))


def _xz_size(span: int) -> Callable[[bytes], int]:
    # The window must be the same for both sizes that are subtracted: it covers the longer of them.
    window = max(1 << 16, span)
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": window}]
    return lambda data: len(lzma.compress(data, format=lzma.FORMAT_RAW, filters=filters))


def _joined(texts: Iterable[str]) -> bytes:
    return b"".join(text.encode("utf-8", "surrogatepass") + b"\0" for text in texts)
