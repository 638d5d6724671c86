"""HTML pages as Markdown: headings, paragraphs, lists, definition lists, tables and preformatted text.

Through the parser of the standard library: it reads any page, however broken, knows the line of every tag, and needs no
package. What a parser that builds a tree adds (closing tags put where they are missing) isn't needed to read the text.
Scripts, styles, navigation, footers and whatever is hidden are dropped.
"""

from __future__ import annotations

import re
from html.parser import HTMLParser

DROPPED = frozenset(
    ("script", "style", "nav", "footer", "template", "noscript", "svg", "math", "select", "button", "iframe", "object")
)
VOID = frozenset(("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"))
BLOCKS = frozenset(
    """
    address article aside blockquote body center details dialog div dl fieldset figcaption figure form head header hr
    html legend main ol p section summary ul table caption thead tbody tfoot
    """.split()  # noqa: SIM905
)
"""Tags that end the paragraph before them."""

_HEADING = re.compile(r"h[1-6]")


def html_to_markdown(html: str) -> tuple[str, list[int]]:
    """The text of a page as Markdown, and for each line of it the line of the page that it comes from.

    A page without a first-level heading gets its title as one. A definition becomes a list item "term: description".
    """
    parser = _Page()
    parser.feed(html)
    parser.close()
    parser.end_block()
    lines = parser.lines
    if parser.title and not any(line.startswith("# ") for line, _ in lines):
        lines = [(f"# {parser.title}", parser.title_line), ("", parser.title_line), *lines]
    return "\n".join(line for line, _ in lines), [number for _, number in lines]


class _Page(HTMLParser):
    """Collects Markdown lines while the parser goes through a page.

    Attributes:
        lines: Markdown lines with their lines in the page.
        title: of the page, on one line.
    """

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.lines: list[tuple[str, int]] = []
        self.title, self.title_line = "", 1
        self._text: list[str] = []
        self._line = 1
        self._prefix = ""
        self._dropped: list[str] = []
        self._lists: list[int | None] = []  # number of the next item, None for bullets
        self._preformatted: list[str] | None = None
        self._cells: list[str] | None = None
        self._in_cell = False
        self._table_rows = 0
        self._term = ""
        self._in_title = False

    # The parser's events

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        hidden = tag in DROPPED or "hidden" in given or given.get("role") == "navigation"
        if self._dropped or (hidden and tag not in VOID):
            if self._dropped and self._dropped[-1] != tag:
                return
            self._dropped.append(tag)
            return
        if tag == "title":
            self._in_title, self.title_line = True, self.getpos()[0]
        elif tag in ("td", "th"):
            self._close_cell()
            if self._cells is None:  # no <tr>
                self._cells, self._line = [], self.getpos()[0]
            self._in_cell = True
        elif self._cells is not None and tag not in ("tr", "table"):
            self._inline(tag, given)
        elif _HEADING.fullmatch(tag):
            self._begin("#" * int(tag[1]) + " ")
        elif tag in ("ul", "ol"):
            self.end_block()
            self._lists.append(1 if tag == "ol" else None)
        elif tag == "li":
            self._begin(self._item_prefix())
        elif tag in ("dt", "dd"):
            self.end_block()
            self._begin("- " if tag == "dd" else "\0term")
        elif tag == "pre":
            self.end_block()
            self._preformatted, self._line = [], self.getpos()[0]
        elif tag == "tr":
            self._close_row()
            self._cells, self._line = [], self.getpos()[0]
        elif tag in BLOCKS:
            if not (self._prefix and not "".join(self._text).strip()):  # <li><p>: the paragraph is the item's
                self.end_block()
            if tag == "table":
                self._table_rows = 0
        else:
            self._inline(tag, given)

    def handle_endtag(self, tag: str) -> None:
        if self._dropped:
            if self._dropped[-1] == tag:
                self._dropped.pop()
            return
        if tag == "title":
            self._in_title = False
        elif tag in ("td", "th"):
            self._close_cell()
        elif tag in ("tr", "table"):
            self._close_row()
            if tag == "table":
                self._end_paragraph()
        elif tag == "pre" and self._preformatted is not None:
            self._close_preformatted()
        elif self._cells is not None:
            self._inline(f"/{tag}", {})
        elif tag in ("ul", "ol"):
            self.end_block()
            if self._lists:
                self._lists.pop()
        elif tag in BLOCKS or tag in ("li", "dt", "dd") or _HEADING.fullmatch(tag):
            self.end_block()
        else:
            self._inline(f"/{tag}", {})

    def handle_data(self, data: str) -> None:
        if self._dropped:
            return
        if self._in_title:
            self.title = " ".join(f"{self.title} {data}".split())
        elif self._preformatted is not None:
            self._preformatted.append(data)
        else:
            if not self._prefix and not "".join(self._text).strip():
                leading = len(data) - len(data.lstrip())
                self._line = self.getpos()[0] + data.count("\n", 0, leading)
            self._text.append(data)

    # Blocks

    def end_block(self) -> None:
        """Writes the paragraph, heading or item that was being read."""
        text = " ".join("".join(self._text).replace("\u200b", "").split())
        prefix, self._prefix, self._text = self._prefix, "", []
        if not text or text in ("``", "¶"):
            return
        if prefix == "\0term":
            self._term = f"{self._term}, {text}" if self._term else text
            return
        if prefix.startswith("#"):
            text = text.removesuffix("¶").rstrip()
        elif self._term:
            text, self._term = f"{self._term}: {text}", ""
        item = bool(prefix.strip()) and not prefix.startswith("#")
        if not item:
            self._separate()
        self.lines.append((prefix + text, self._line))
        if not item:
            self._end_paragraph()

    def _begin(self, prefix: str) -> None:
        self.end_block()
        self._prefix, self._line = prefix, self.getpos()[0]

    def _separate(self) -> None:
        """A blank line before a paragraph, a heading, a table or code."""
        if self.lines and self.lines[-1][0]:
            self._end_paragraph()

    def _end_paragraph(self) -> None:
        self.lines.append(("", self._line))

    def _item_prefix(self) -> str:
        indent = "  " * max(0, len(self._lists) - 1)
        if not self._lists or self._lists[-1] is None:
            return indent + "- "
        number = self._lists[-1]
        self._lists[-1] = number + 1
        return f"{indent}{number}. "

    def _inline(self, tag: str, given: dict[str, str | None]) -> None:
        name = tag.removeprefix("/")
        if name in ("code", "kbd", "samp", "tt") and self._preformatted is None:
            self._text.append("`")
        elif name == "br":
            self._text.append(" ") if self._preformatted is None else self._preformatted.append("\n")
        elif name == "img" and given.get("alt"):
            self._text.append(f" {given['alt']} ")
        elif name in BLOCKS or name == "li":
            self._text.append(" ")

    def _close_preformatted(self) -> None:
        text = "".join(self._preformatted or ()).removeprefix("\n").rstrip()
        self._preformatted = None
        fence = "````" if "```" in text else "```"
        self._separate()
        self.lines.append((fence, self._line))
        self.lines += [(line, self._line + number) for number, line in enumerate(text.split("\n"))]
        self.lines.append((fence, self._line))
        self._end_paragraph()

    def _close_cell(self) -> None:
        text = " ".join("".join(self._text).split()).replace("|", "\\|")
        self._text = []
        if self._cells is not None and self._in_cell:
            self._cells.append(text)
        self._in_cell = False

    def _close_row(self) -> None:
        self._close_cell()
        cells, self._cells = self._cells, None
        if cells is None or not any(cells):
            return
        if not self._table_rows:
            self._separate()
        self.lines.append((f"| {' | '.join(cells)} |", self._line))
        if not self._table_rows:
            self.lines.append((f"|{' --- |' * len(cells)}", self._line))
        self._table_rows += 1
