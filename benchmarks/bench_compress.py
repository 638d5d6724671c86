"""The standard library's own text made small: our trained model and the n-gram beside gzip, bzip2, xz and zstd.

Everything is unpacked again and compared byte for byte; the benchmark stops if anything differs. The text is the
language reference by topic that every Python brings along (`pydoc_data.topics`), and, with --run, the documents that
the run's model has never seen: only there does a trained model tell more than it remembers.

    python benchmarks/bench_compress.py --run runs/pydocs
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import torch

import underhood
from harness import machine, options_from_command_line, print_json
from underhood.cli.compress import model_bytes
from underhood.data.pydocs import pydocs_corpus
from underhood.evals.compression import compressors_bytes
from underhood.infer.compress import compress, decompress
from underhood.infer.load import LoadedModel


@dataclass(frozen=True)
class Args:
    """Compares compressors on Python's own documentation."""

    run: Path | None = None
    """A run made by underhood build; its base model joins."""

    orders: tuple[int, ...] = (5,)
    """Orders of the n-gram."""

    threads: int = 2
    """Of PyTorch."""

    kilobytes: int = 0
    """Only so much of each text; 0 takes all."""


def main() -> None:
    args = options_from_command_line(Args)
    torch.set_num_threads(args.threads)
    loaded = None if args.run is None else underhood.load(args.run, "base")
    texts = {"language reference, mostly read in training": "\n".join(topics.values()).encode()}
    if args.run is not None and loaded is not None:
        texts["documents held out of training"] = held_out(args.run).encode()
    actual = {}
    for name, data in texts.items():
        data = data[: 1000 * args.kilobytes or None]
        rows = measure(data, args.orders, loaded)
        actual[name] = {"bytes": len(data), "compressors": rows}
        print(f"{name}: {len(data):,} bytes\n")
        print(f"  {'':24} {'bytes':>10} {'bits/byte':>10} {'rate':>8} {'adjusted':>9} {'pack s':>8} {'unpack s':>9}")
        for each, row in sorted(rows.items(), key=lambda item: item[1]["bytes"]):
            times = " ".join(f"{row.get(key, float('nan')):9.1f}" for key in ("pack_s", "unpack_s"))
            print(
                f"  {each:24} {row['bytes']:10,} {row['bits_per_byte']:10.3f} {row['rate']:8.1%} "
                f"{row['adjusted_rate']:9.1%} {times}"
            )
        print()
    print_json("compress", actual, threads=args.threads, round_trips="byte-exact", **machine("torch", "zstandard"))


def measure(data: bytes, orders: tuple[int, ...], loaded: LoadedModel | None) -> dict[str, dict[str, Any]]:
    """Every compressor's size of the data; ours with the seconds of both directions, after a round trip."""
    rows = {name: row(data, size) for name, size in compressors_bytes(data).items()}
    for order in orders:
        rows[f"n-gram, {order} bytes back"] = ours(data, None, order)
    if loaded is not None:
        rows["trained model"] = ours(data, loaded, 0)
    return rows


def ours(data: bytes, loaded: LoadedModel | None, order: int) -> dict[str, Any]:
    start = time.perf_counter()
    made = compress(data, loaded=loaded, order=order)
    packed = time.perf_counter()
    if decompress(made, load=None if loaded is None else lambda _: loaded) != data:
        raise SystemExit("what came back is not what went in")
    unpacked = time.perf_counter()
    times = {"pack_s": round(packed - start, 1), "unpack_s": round(unpacked - packed, 1)}
    return row(data, len(made), 0 if loaded is None else model_bytes(loaded)) | times


def row(data: bytes, size: int, extra: int = 0) -> dict[str, Any]:
    """Bits per byte, the share of the data's size, and that share with the model's own bytes counted in."""
    actual = {"bytes": size, "bits_per_byte": round(8 * size / len(data), 4), "rate": round(size / len(data), 5)}
    return actual | {"model_bytes": extra, "adjusted_rate": round((size + extra) / len(data), 5)}


def held_out(run: Path) -> str:
    """The documents that the build kept from its models, as it split them.

    Raises:
        SystemExit: this Python's documentation is not what the run was made from.
    """
    made_from = json.loads((run / "data.json").read_text(encoding="utf-8"))
    corpus = pydocs_corpus()
    if made_from["digest"] != corpus.digest:
        raise SystemExit(f"{run} was made from other text than this Python's documentation")
    names = set(made_from["held_out_names"])
    return "\n".join(document.text for document in corpus.documents if document.name in names)


if __name__ == "__main__":
    main()
