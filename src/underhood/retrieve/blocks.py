"""Paragraphs, list items, tables and code of Markdown, reStructuredText or plain text, with headings and lines."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field

from underhood.data.files import SEPARATOR


@dataclass(frozen=True, kw_only=True)
class TextBlock:
    """A paragraph or a piece of code of a document.

    Attributes:
        text: a paragraph's lines as they are; code without its common indentation.
        line: its first line, counted from 1.
        headings: the headings above it, the outermost first.
        verbatim: whether its line breaks mean something (code, tables).
        search_text: text that is searched beside it.
    """

    text: str
    line: int
    headings: tuple[str, ...] = ()
    verbatim: bool = False
    search_text: str = ""


_HASHES = re.compile(r" {0,3}(#{1,6})\s")
_UNDERLINE = re.compile(r"([=\-~^*+#\"'`.:_])\1{2,}\s*$")
_FENCE = re.compile(r"\s{0,3}(`{3,}|~{3,})")
_ITEM = re.compile(r"\s*(?:[-*+•]|\d{1,3}[.)])\s+\S")


def text_blocks(text: str, *, kind: str = "md") -> Iterator[TextBlock]:
    """The blocks of a text in order.

    Args:
        kind: ``md`` knows headings with ``#`` and fenced code; ``txt`` has paragraphs only, which may be indented.
            Underlined headings are known everywhere.
    """
    yield from _BlockParser(text.splitlines(), kind).blocks()


@dataclass
class _BlockParser:
    lines: list[str]
    kind: str
    headings: list[tuple[int, str]] = field(default_factory=list)
    underlines: list[str] = field(default_factory=list)
    pending: list[str] = field(default_factory=list)
    first: int = 0

    def blocks(self) -> Iterator[TextBlock]:
        at = 0
        while at < len(self.lines):
            line = self.lines[at]
            fence = _FENCE.match(line) if self.kind == "md" else None
            hashes = _HASHES.match(line) if self.kind == "md" else None
            underlined = self._underlined_heading(at)
            if line.strip() == SEPARATOR:
                yield from self._flush()
                self.headings.clear()
            elif fence:
                yield from self._flush()
                end = self._end_of_fence(at, fence[1])
                yield from self._code(at + 1, end)
                at = end
            elif hashes:
                yield from self._flush()
                self._open_section(len(hashes[1]), line[hashes.end() :].strip().rstrip("#").rstrip())
            elif underlined:
                yield from self._flush()
                at = underlined
            elif not line.strip() or (_UNDERLINE.match(line) and not self.pending):
                yield from self._flush()
            else:
                if self.pending and (_ITEM.match(line) or self._is_table(line) != self._is_table(self.pending[-1])):
                    yield from self._flush()
                if not self.pending:
                    self.first = at
                self.pending.append(line)
            at += 1
        yield from self._flush()

    def _flush(self) -> Iterator[TextBlock]:
        if self.pending:
            lines, self.pending = self.pending, []
            indented = self.kind != "txt" and not _ITEM.match(lines[0]) and all(x[:4].isspace() for x in lines)
            verbatim = indented or self._is_table(lines[0])
            text = textwrap.dedent("\n".join(lines)) if verbatim else "\n".join(lines)
            yield self._block(text.strip("\n") if verbatim else text, self.first, verbatim)

    def _code(self, start: int, end: int) -> Iterator[TextBlock]:
        text = textwrap.dedent("\n".join(self.lines[start:end]))
        if text.strip():
            skipped = len(text) - len(text.lstrip("\n"))
            yield self._block(text.strip("\n"), start + skipped, True)

    def _block(self, text: str, at: int, verbatim: bool) -> TextBlock:
        return TextBlock(text=text, line=at + 1, headings=tuple(title for _, title in self.headings), verbatim=verbatim)

    def _end_of_fence(self, at: int, fence: str) -> int:
        closing = re.compile(rf"\s{{0,3}}{re.escape(fence[0])}{{{len(fence)},}}\s*$")
        return next((i for i in range(at + 1, len(self.lines)) if closing.match(self.lines[i])), len(self.lines))

    def _underlined_heading(self, at: int) -> int:
        """Opens the section whose heading begins at line `at` and returns the heading's last line; 0 if none does."""
        over = _UNDERLINE.match(self.lines[at])
        title_at = at + 1 if over else at
        if self.pending or title_at + 1 >= len(self.lines):
            return 0
        title, under = self.lines[title_at], _UNDERLINE.match(self.lines[title_at + 1])
        if not title.strip() or not under or (over and over[1] != under[1]) or _UNDERLINE.match(title):
            return 0
        enough = len(self.lines[title_at + 1].strip()) >= (3 if self.kind == "md" else len(title.strip()))
        if not enough or _ITEM.match(title) or self._is_table(title) or (title[0].isspace() and not over):
            return 0
        style = under[1] * (2 if over else 1)
        if style not in self.underlines:
            self.underlines.append(style)
        level = self.underlines.index(style) + 1
        self._open_section({"=": 1, "-": 2}.get(style, level) if self.kind == "md" else level, title.strip())
        return title_at + 1

    def _open_section(self, level: int, title: str) -> None:
        self.headings = [heading for heading in self.headings if heading[0] < level]
        if title:
            self.headings.append((level, title))

    def _is_table(self, line: str) -> bool:
        return self.kind == "md" and line.lstrip().startswith("|")
