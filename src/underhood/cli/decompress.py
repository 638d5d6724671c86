"""``underhood decompress``: a file of ``underhood compress`` made whole again."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from underhood.cli.model_options import ModelOptions
from underhood.cli.options import Positional
from underhood.core.errors import UserError

if TYPE_CHECKING:
    from underhood.infer.compress import CompressedHeader
    from underhood.infer.load import LoadedModel


@dataclass(frozen=True)
class Args(ModelOptions):
    """Unpacks a file that underhood compress wrote, with the model that it was
    written with. The content is compared with its checksum before it is written.
    """

    file: Positional[Path]
    """The file to unpack; it stays as it is."""

    model: str | None = None
    """The model it was written with; files of the n-gram need none."""

    stage: str | None = None
    """Which of a run's models; left out, base."""

    out: Path | None = None
    """The file to write; left out, FILE without its .uh."""

    force: bool = False
    """Replaces a file that is there already."""


def run(args: Args) -> int:
    from underhood.cli.compress import SUFFIX, read, refuse_to_replace
    from underhood.cli.model_loading import open_base
    from underhood.cli.progress import share_line
    from underhood.core.files import write_bytes
    from underhood.infer.compress import decompress, unpack
    from underhood.ui.terminal import console

    out = args.out or args.file.with_suffix("")
    if args.out is None and args.file.suffix != SUFFIX:
        raise UserError(f"{args.file} does not end in {SUFFIX}", fix="Say with --out what to write")
    data = read(args.file)
    refuse_to_replace(out, args.force)

    def load(written: CompressedHeader) -> LoadedModel:
        if args.model is None:
            raise UserError(f"it was written with the model {written.name}", fix="Give that model with --model")
        return open_base(args.model, args.stage)

    try:
        length = sum(header.length for header, _ in unpack(data))
        with share_line(console(sys.stderr), "Unpacking", length) as progress:
            content = decompress(data, load=load, progress=progress)
    except UserError as error:
        raise UserError(f"{args.file}: {error.what}", expected=error.expected, got=error.got, fix=error.fix) from error
    write_bytes(out, content)
    print(f"{out}: {len(content):,} bytes")
    return 0
