"""Passages, the pieces of documents that are searched and read; and how a document is cut into them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from underhood.data.documents import Document
from underhood.retrieve.blocks import TextBlock, text_blocks
from underhood.retrieve.python_source import python_blocks
from underhood.retrieve.sentences import sentence_spans
from underhood.retrieve.structured_blocks import expand_block

MAX_CHARACTERS = 600
"""Length of a passage unless told otherwise: three of them and a question fit into a small model's context."""


@dataclass(frozen=True, kw_only=True)
class Passage:
    """A piece of a document that can answer a question by itself.

    Attributes:
        title: what it is about: a function's dotted name, or headings such as "Install > Linux"; may be empty.
        text: what a model reads: whole sentences, one line where possible.
        source: the document's name, e.g. ``guide/install.md`` or ``module os.path``.
        line: the line of the source where it begins.
        search_text: text that is searched beside title and text, but never shown.
        weight: factor of its score: above 1 for what more people look for, below 1 for what few do.
    """

    title: str
    text: str
    source: str
    line: int = 1
    search_text: str = ""
    weight: float = 1.0

    @property
    def shown(self) -> str:
        """How models, pages and the terminal show it: "`title`: text", or the text alone if it has no title."""
        return f"`{self.title}`: {self.text}" if self.title else self.text


MARKDOWN = ("md", "html", "record")
"""Kinds of documents whose text is Markdown."""


def split_document(
    document: Document, *, max_characters: int = MAX_CHARACTERS, overlap: int = 1, facts: bool = False
) -> list[Passage]:
    """Cuts a document into passages of at most `max_characters` characters.

    Python sources (kind ``py``) give passages for each module, class and function, titled by its dotted name. In
    everything else the headings are the title. Neighbouring paragraphs below the same heading share a passage as long
    as they fit. A paragraph that is too long is cut between sentences, and neighbouring pieces share `overlap`
    sentences; a sentence is cut, between words, only if it is too long by itself.

    Args:
        facts: every row of a Markdown table and every definition in a list becomes a passage of its own.

    Raises:
        ValueError: passages of fewer than 40 characters, or a negative overlap.
    """
    if max_characters < 40 or overlap < 0:
        raise ValueError(f"expected 40 characters or more and an overlap of 0 or more, got {max_characters}, {overlap}")
    blocks = python_blocks(document.text, document.name) if document.kind == "py" else None
    if blocks is None:
        kind = "md" if document.kind in MARKDOWN else document.kind
        blocks = list(text_blocks(document.text, kind=kind if kind in ("md", "rst", "topic", "module") else "txt"))
        if facts and kind == "md":
            blocks = [fact for block in blocks for fact in expand_block(block)]
    passages: list[Passage] = []
    for group in _packed(blocks, max_characters):
        title = " > ".join(group[0].headings)
        searched = "\n".join(block.search_text for block in group if block.search_text)
        for text, line in _pieces(group, max_characters, overlap):
            passages.append(
                Passage(
                    title=title,
                    text=text,
                    source=document.source,
                    line=document.source_line(line),
                    search_text=searched,
                )
            )
            searched = ""
    return passages


def _packed(blocks: Sequence[TextBlock], max_characters: int) -> Iterator[list[TextBlock]]:
    """Neighbours below the same headings together, as many as fit into a passage."""
    group: list[TextBlock] = []
    length = 0
    for block in blocks:
        size = len(_shown(block)) + 1
        if group and (block.headings != group[0].headings or length + size > max_characters + 1):
            yield group
            group, length = [], 0
        group.append(block)
        length += size
    if group:
        yield group


def _shown(block: TextBlock) -> str:
    return block.text if block.verbatim else " ".join(block.text.split())


def _pieces(group: Sequence[TextBlock], max_characters: int, overlap: int) -> Iterator[tuple[str, int]]:
    """Texts and their first lines: one for a group that fits, several for a single block that is too long."""
    text = "\n".join(map(_shown, group))
    if len(text) <= max_characters:
        yield text, group[0].line
        return
    (block,) = group
    spans = _line_spans(block.text) if block.verbatim else sentence_spans(block.text)
    units = [short for span in spans for short in _short_spans(block.text, span, max_characters)]
    line, counted = block.line, 0
    for first, last in _filled(block, units, max_characters, 0 if block.verbatim else overlap):
        start, end = units[first][0], units[last][1]
        line += block.text.count("\n", counted, start)
        counted = start
        yield _piece(block, start, end), line


def _filled(
    block: TextBlock, units: Sequence[tuple[int, int]], max_characters: int, overlap: int
) -> Iterator[tuple[int, int]]:
    """First and last unit of each piece: as many units as fit, after `overlap` of the piece before it if they fit."""
    first = 0
    for number in range(1, len(units)):
        if len(_piece(block, units[first][0], units[number][1])) <= max_characters:
            continue
        yield first, number - 1
        first = max(first + 1, number - overlap)
        while first < number and len(_piece(block, units[first][0], units[number][1])) > max_characters:
            first += 1
    yield first, len(units) - 1


def _piece(block: TextBlock, start: int, end: int) -> str:
    text = block.text[start:end]
    return text if block.verbatim else " ".join(text.split())


def _line_spans(text: str) -> list[tuple[int, int]]:
    spans, start = [], 0
    for line in text.splitlines(keepends=True):
        if line.strip():
            spans.append((start, start + len(line.rstrip())))
        start += len(line)
    return spans


def _short_spans(text: str, span: tuple[int, int], max_characters: int) -> Iterator[tuple[int, int]]:
    """The span itself, or pieces of it that are short enough, cut at spaces where there are any."""
    start, end = span
    while end - start > max_characters:
        space = max(
            text.rfind(" ", start + 1, start + max_characters), text.rfind("\n", start + 1, start + max_characters)
        )
        cut = space if space > start else start + max_characters
        yield start, start + len(text[start:cut].rstrip())
        start = next((at for at in range(cut, end) if not text[at].isspace()), end)
    if start < end:
        yield start, end
