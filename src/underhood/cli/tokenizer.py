"""``underhood tokenizer``: text into a vocabulary, alone or as the first stage of a run."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from underhood.cli.options import Positional
from underhood.core.errors import UserError
from underhood.recipes.spec import BuildSpec

if TYPE_CHECKING:
    from rich.console import Console

FILE = ".json"


@dataclass(frozen=True, kw_only=True)
class Args:
    """Learns a byte-level BPE tokenizer from text.

    Given a file name ending in .json, it writes the tokenizer there, in a
    format that Hugging Face's tokenizers reads too. Given anything else, it
    makes a run there and takes it through its first stages: the text is read,
    cleaned, split and written as tokens. Of a run that is there, it shows the
    tokenizer.
    """

    out: Positional[Path]
    """Where to write: a run's folder, or a file ending in .json."""

    data: str = "pydocs"
    """What to read: pydocs, a file or folder, or hf:OWNER/NAME."""

    text_field: str | None = None
    """The field or column that holds the text in JSON lines, CSV, TSV or Parquet."""

    vocab_size: int | None = BuildSpec.vocab_size
    """Tokens, special ones included; by the amount of text if left out, up to 2,048."""

    held_out: float = BuildSpec.held_out
    """Share of the bytes that a run never trains on."""

    seed: int = 0
    """Seed of a run's split into training and held-out text."""

    restart: bool = False
    """Replaces a file that is there."""

    json: bool = False
    """Prints one JSON object; progress goes to standard error."""


def run(args: Args) -> int:
    from underhood.ui.terminal import console

    out = console(sys.stderr if args.json else None)
    given = {field.name: getattr(args, field.name) for field in fields(BuildSpec) if hasattr(args, field.name)}
    try:
        spec = BuildSpec(**given)
    except ValueError as error:
        raise UserError(str(error)) from error
    facts = to_file(args, out) if args.out.suffix == FILE else to_run(args.out, spec, out)
    if args.json:
        print(json.dumps(facts, ensure_ascii=False))
        return 0
    from underhood.ui.terminal import table

    out.print(table(["tokenizer", ""], [[key.replace("_", " "), _shown(facts[key])] for key in facts]))
    return 0


def to_file(args: Args, out: Console) -> dict[str, Any]:
    """Learns from all of the text and writes the file."""
    if args.out.exists() and not args.restart:
        raise UserError(f"{args.out} is there already", fix="Choose another name, or replace it by --restart")
    if not args.out.parent.is_dir():
        raise UserError(f"there is no folder {args.out.parent} to write to")
    from underhood.data.clean import clean
    from underhood.data.sources import load_corpus
    from underhood.text.bpe import train_bpe
    from underhood.train.text_amount import fitting_vocabulary

    corpus, _ = clean(load_corpus(args.data, text_field=args.text_field))
    out.print(f"Learning from {len(corpus):,} documents, {corpus.bytes:,} bytes.")
    texts = [document.text for document in corpus.documents]
    tokenizer = train_bpe(texts, vocab_size=args.vocab_size or fitting_vocabulary(corpus.bytes))
    tokens = sum(map(len, tokenizer.encode_batch(texts)))
    tokenizer.save(args.out)
    return {
        "file": str(args.out),
        "data": corpus.name,
        "digest": corpus.digest,
        "vocab_size": tokenizer.vocab_size,
        "documents": len(corpus),
        "bytes": corpus.bytes,
        "tokens": tokens,
        "bytes_per_token": corpus.bytes / tokens,
    }


def to_run(path: Path, spec: BuildSpec, out: Console) -> dict[str, Any]:
    """Takes the run to the end of its tokenizer stage, if it is not there yet."""
    from underhood.cli.progress import StageProgress
    from underhood.recipes.stage_jobs import open_or_create, tokenize

    opened = open_or_create(path, spec, restart=False)
    with StageProgress(opened.log, out):
        noted = tokenize(opened)
    train, held_out = noted["train"], noted["held_out"]
    return {
        "file": str(opened.tokenizer_file),
        "data": noted["name"],
        "digest": noted["digest"],
        "vocab_size": noted["tokenizer"]["vocab_size"],
        "documents": train["documents"],
        "bytes": train["bytes"],
        "tokens": train["tokens"],
        "bytes_per_token": train["bytes"] / train["tokens"],
        "held_out_tokens": held_out["tokens"],
        "held_out_bytes_per_token": held_out["bytes"] / held_out["tokens"],
    }


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
