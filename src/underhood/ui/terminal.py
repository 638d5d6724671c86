"""Console, tables and closing hints of every command.

Colour never carries meaning alone. Where the output is not a terminal, or NO_COLOR is set, nothing but text is written:
no colour and no cursor movement.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDTH = 80


def is_plain(stream: TextIO) -> bool:
    """Whether `stream` gets text without any control code."""
    return bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb" or not stream.isatty()


def console(stream: TextIO | None = None) -> Console:
    """A rich console on `stream` (standard output) that obeys `is_plain`, 80 columns wide or what is there, if less.

    Text is printed literally: neither rich's [markup] nor number colouring is applied to it.
    """
    target: TextIO = stream if stream is not None else sys.stdout
    plain = is_plain(target)
    width = WIDTH if plain else min(WIDTH, Console(file=target).width)
    return Console(
        file=target,
        force_terminal=not plain,
        color_system=None if plain else "auto",
        width=width,
        markup=False,
        highlight=False,
        emoji=False,
    )


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """A quiet table: no frame, dim heads, numbers to the right. Cells are shown with `str`, floats to 4 digits."""
    cells = [[f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    layout = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for index, head in enumerate(columns):
        numeric = bool(cells) and all(_starts_numeric(row[index]) for row in cells)
        layout.add_column(Text(head), justify="right" if numeric else "left", overflow="fold")
    for row in cells:
        layout.add_row(*map(Text, row))
    return layout


def next_commands(out: Console, commands: Mapping[str, str]) -> None:
    """The last lines of a verb: what one would type now, each with its purpose."""
    width = max(map(len, commands))
    out.print()
    for command, purpose in commands.items():
        out.print(Text("  " + command.ljust(width), style="bold"), Text(" " + purpose, style="dim"), soft_wrap=True)


def visible(text: str) -> str:
    """Control characters as pictures (␛ for escape), so that nothing a model writes can steer the terminal."""
    shown = (chr(0x2400 + ord(c)) if ord(c) < 32 and c not in "\n\t" else c for c in text)
    return "".join("\u2421" if c == "\x7f" or "\x80" <= c < "\xa0" else c for c in shown)


def _starts_numeric(cell: str) -> bool:
    return cell[:1].isdigit() or cell[:1] in "+-−–" or cell == ""
