"""``underhood compress``: a file made small by a language model, beside what gzip and others make of it."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from underhood.cli.model_options import ModelOptions
from underhood.cli.options import Positional
from underhood.core.errors import UserError

if TYPE_CHECKING:
    from underhood.infer.load import LoadedModel

SUFFIX = ".uh"


@dataclass(frozen=True)
class Args(ModelOptions):
    """Makes a file smaller without losing a bit of it, by arithmetic coding with
    a language model: an n-gram that learns as it reads, or a model of yours.

    Whoever unpacks it needs the same model. The table says what gzip and others
    make of the file, and what it costs with the model itself counted in.
    """

    file: Positional[Path]
    """The file to make smaller; it stays as it is."""

    model: str | None = None
    """A run's folder, another model's, or hf:OWNER/NAME; left out, the n-gram, which needs no file."""

    stage: str | None = None
    """Which of a run's models; left out, base, which has learnt to predict text."""

    order: int = 5
    """How many bytes the n-gram looks back."""

    out: Path | None = None
    """The file to write; left out, FILE.uh."""

    force: bool = False
    """Replaces a file that is there already."""

    check: bool = False
    """Unpacks the result again and compares before it is written."""

    compare: bool = True
    """If off, gzip, bzip2, xz and zstd are not shown beside it."""

    json: bool = False
    """Prints JSON in place of the table."""

    def __post_init__(self) -> None:
        if not 0 <= self.order <= 32:
            raise ValueError("--order takes a number from 0 to 32")


def run(args: Args) -> int:
    from underhood.cli.model_loading import open_base
    from underhood.cli.progress import share_line
    from underhood.core.files import write_bytes
    from underhood.infer.compress import compress, decompress
    from underhood.ui.terminal import console

    out = args.out or args.file.with_name(args.file.name + SUFFIX)
    data = read(args.file)
    refuse_to_replace(out, args.force)
    loaded, name = None, f"n-gram, {args.order} bytes back"
    if args.model is not None:
        loaded = open_base(args.model, args.stage)
        name = f"{loaded.run.name} ({loaded.stage})"
    err = console(sys.stderr)
    start = time.perf_counter()
    with share_line(err, "Compressing", len(data)) as progress:
        made = compress(data, loaded=loaded, name=name, order=args.order, progress=progress)
    seconds = time.perf_counter() - start
    if args.check:
        with share_line(err, "Checking", len(data)) as progress:
            same = decompress(made, load=None if loaded is None else lambda _: loaded, progress=progress) == data
        if not same:
            raise UserError("what was unpacked again is not what was packed", fix="Nothing was written; report this")
    write_bytes(out, made)
    sizes = {name: (len(made), 0 if loaded is None else model_bytes(loaded))}
    if args.compare and data:
        from underhood.evals.compression import compressors_bytes

        sizes |= {other: (size, 0) for other, size in compressors_bytes(data).items()}
    report(args, data, out, sizes, seconds)
    return 0


def report(args: Args, data: bytes, out: Path, sizes: dict[str, tuple[int, int]], seconds: float) -> None:
    """The table, or one line of JSON."""
    from underhood.ui.terminal import console, table

    count = max(1, len(data))
    if args.json:
        rows = [
            {"name": name, "bytes": size, "model_bytes": extra, "bits_per_byte": 8 * size / count}
            | {"rate": size / count, "adjusted_rate": (size + extra) / count}
            for name, (size, extra) in sizes.items()
        ]
        facts = {"file": str(args.file), "bytes": len(data), "out": str(out), "seconds": seconds, "compressed": rows}
        print(json.dumps(facts, ensure_ascii=False))
        return
    shown = console()
    ordered = sorted(sizes.items(), key=lambda item: item[1][0])
    rows = [
        (name, f"{size:,}", f"{8 * size / count:.3f}", f"{size / count:.1%}", f"{(size + extra) / count:.1%}")
        for name, (size, extra) in ordered
    ]
    shown.print(f"{args.file}: {len(data):,} bytes in {seconds:.1f} s", soft_wrap=True)
    if data:
        shown.print()
        shown.print(table(("", "bytes", "bits per byte", "of the file", "with the model"), rows))
        shown.print()
    shown.print(str(out), soft_wrap=True)


def read(file: Path) -> bytes:
    """A file's content.

    Raises:
        UserError: it can't be read.
    """
    try:
        return file.read_bytes()
    except OSError as error:
        raise UserError(f"{file} can't be read", got=error.strerror) from error


def refuse_to_replace(out: Path, force: bool) -> None:
    """Raises a `UserError` where something is in the way."""
    if out.is_dir():
        raise UserError(f"{out} is a folder", fix="Choose another --out")
    if out.exists() and not force:
        raise UserError(f"{out} is there already", fix="Choose another --out, or replace it with --force")


def model_bytes(loaded: LoadedModel) -> int:
    """What the model's numbers take in memory, each shared one once."""
    return sum(parameter.numel() * parameter.element_size() for parameter in loaded.model.parameters())
