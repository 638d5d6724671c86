"""Retrieved passages in the terminal: what answers come from, the sources that one cites, and its passages in full."""

from __future__ import annotations

from rich.text import Text

from underhood.cli.search import print_hit
from underhood.retrieve.index import PassageIndex
from underhood.retrieve.passages import Passage
from underhood.retrieve.retriever import Retrieved
from underhood.ui.formatting import whole
from underhood.ui.terminal import console, visible


def corpus_line(index: PassageIndex) -> str:
    """How many passages there are and of what: "6,123 passages of pydocs"."""
    names = index.facts.data or index.sources
    of = " and ".join(names) if len(names) <= 2 else f"{whole(len(index.sources))} documents"
    return f"{whole(len(index))} {'passage' if len(index) == 1 else 'passages'} of {visible(of)}"


def source_line(number: int, passage: Passage) -> str:
    """One source in one line: "[1] Install > Linux · guide/install.md, line 12"; a first line goes without saying."""
    title = f"{passage.title} · " if passage.title else ""
    line = f", line {passage.line}" if passage.line > 1 else ""
    return visible(f"[{number}] {title}{passage.source}{line}".replace("\n", " "))


def print_citations(retrieved: Retrieved, answer: str) -> None:
    """The sources that an answer cites, each once, dim."""
    cited = {citation.number: citation.passage for citation in retrieved.citations(answer)}
    for number, passage in sorted(cited.items()):
        console().print(Text(source_line(number, passage), style="dim"))


def print_sources(retrieved: Retrieved) -> None:
    """All passages that the model read, by their numbers, with the words of the question that they matched."""
    out = console()
    for number, hit in enumerate(retrieved.hits, 1):
        print_hit(out, number, hit)
