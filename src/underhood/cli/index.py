"""``underhood index``: documents into an index of passages that can be searched and asked."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from underhood.cli.options import Positional
from underhood.core.errors import UserError

if TYPE_CHECKING:
    from underhood.retrieve.passages import Passage


@dataclass(frozen=True, kw_only=True)
class Args:
    """Makes an index of passages from documents, to search or to ask a model.

    Reads pydocs, hf:OWNER/NAME, and files and folders (.md, .rst, .txt, .py,
    .html, .pdf, .csv, .tsv, .jsonl, .parquet). Documents are cut at headings, paragraphs and functions; each
    passage knows its source and line.

      underhood index docs --out notes.index
      underhood index more.md --out notes.index --add
      underhood index --out notes.index --remove docs/old.md
    """

    data: Positional[tuple[str, ...]] = ()
    """What to read: pydocs, files, folders, hf:OWNER/NAME."""

    out: Path
    """The file of the index."""

    add: bool = False
    """Adds to the index that is there; documents of the same name are replaced."""

    remove: tuple[str, ...] = ()
    """Removes these documents, or all below a folder, from the index that is there."""

    restart: bool = False
    """Replaces a file that is there."""

    text_field: str | None = None
    """The field or column that holds the text in JSON lines, CSV, TSV or Parquet."""

    limit: int | None = None
    """Reads at most this many documents of each DATA."""

    max_characters: int = 600
    """Length of a passage."""

    overlap: int = 1
    """Sentences that neighbouring pieces of one long paragraph share."""

    json: bool = False
    """Prints one JSON object; progress goes to standard error."""

    def __post_init__(self):
        if not self.data and not self.remove:
            raise ValueError("DATA or --remove missing; name what to read, e.g. underhood index docs --out notes.index")
        if self.max_characters < 40 or self.overlap < 0:
            raise ValueError("--max-characters takes 40 or more, --overlap 0 or more")
        if self.limit is not None and self.limit < 1:
            raise ValueError("--limit takes 1 or more")


def run(args: Args) -> int:
    from underhood.core.run_lock import RunLock
    from underhood.retrieve.index import PassageIndex
    from underhood.ui.formatting import duration, size
    from underhood.ui.terminal import console, next_commands

    started = time.perf_counter()
    changing = args.add or bool(args.remove)
    if args.out.exists() and not changing and not args.restart:
        raise UserError(f"{args.out} is there already", fix="Add to it by --add, or replace it by --restart")
    if not args.out.absolute().parent.is_dir():
        raise UserError(f"there is no folder {args.out.parent} to write to")
    # Two that add to one index at once would each write what only it has read.
    lock = RunLock.acquire(args.out.absolute().parent, f".{args.out.name}.lock")
    index = PassageIndex.load(args.out) if changing else PassageIndex.build(())
    removed = [source for name in args.remove for source in index.sources_named(name)]
    index.remove(*removed)
    passages = list(read_passages(args))
    added = list(dict.fromkeys(passage.source for passage in passages))
    replaced = index.remove(*(set(added) & set(index.sources)))
    index.add(passages)
    index.touch(tuple(dict.fromkeys((*index.facts.data, *args.data))))
    index.save(args.out)
    lock.release()

    facts = {
        "index": str(args.out),
        "passages": len(index),
        "documents": len(index.sources),
        "bytes": args.out.stat().st_size,
        "added": len(added),
        "removed": len(removed),
        "seconds": round(time.perf_counter() - started, 3),
    }
    if args.json:
        print(json.dumps(facts, ensure_ascii=False))
        return 0
    out = console()
    if removed:
        out.print(f"Removed {_documents(len(removed))}.")
    if replaced:
        out.print(f"Replaced {replaced:,} passages of documents that were there already.")
    out.print(
        f"{args.out}: {len(index):,} passages of {_documents(len(index.sources))}, {size(facts['bytes'])}, "
        f"in {duration(facts['seconds'])}."
    )
    quoted = shlex.quote(str(args.out))
    next_commands(
        out,
        {
            f'underhood search {quoted} "…"': "find what answers a question",
            f"underhood chat runs/NAME --retrieve {quoted}": "ask a model about it",
        },
    )
    return 0


def read_passages(args: Args) -> Iterator[Passage]:
    """The passages of every DATA."""
    from underhood.retrieve.collect import collect_passages

    for data in args.data:
        if len(args.data) > 1:
            print(f"Reading {data}", file=sys.stderr)
        yield from collect_passages(
            data,
            text_field=args.text_field,
            limit=args.limit,
            max_characters=args.max_characters,
            overlap=args.overlap,
        )


def _documents(number: int) -> str:
    return f"{number:,} document{'' if number == 1 else 's'}"
