"""A scanner for JavaScript sources that tells code from texts: strings, template literals and comments."""

from __future__ import annotations

import re
from collections.abc import Iterator

NAME = re.compile(r"(?<![\w$#])(?:(?<=\.\.\.)|(?<!\.))[A-Za-z_$][\w$]*(?![\w$])(?!\s*:)")
"""A name that is neither a property nor a key."""

BEFORE_REGEX = re.compile(r"(?:[(,=:\[!&|?{};]|\breturn|=>)\s*$")
"""What a slash follows where it begins a regular expression and not a division."""


def scan(source: str) -> Iterator[tuple[int, bool, str]]:
    """Splits a source into (line, is code, text); what ``${…}`` holds inside a template literal is code."""
    pieces: list[tuple[int, bool, str]] = []
    depths: list[int] = []  # open braces inside each ${…} that the scanner is in
    code, at = 0, 0

    def add(start: int, end: int, is_code: bool) -> None:
        if end > start:
            pieces.append((source.count("\n", 0, start) + 1, is_code, source[start:end]))

    def template_end(start: int) -> int:
        """The end of a stretch of template text that begins at `start`: behind its backtick or its ``${``."""
        match = re.compile(r"(?:\\.|[^\\`$]|\$(?!\{))*(`|\$\{)", re.DOTALL).match(source, start)
        assert match is not None, "a template literal without an end"
        if match[1] == "${":
            depths.append(0)
        return match.end()

    while at < len(source):
        end = None
        if source.startswith("//", at):
            end = source.find("\n", at) % (len(source) + 1)
        elif source.startswith("/*", at):
            end = source.index("*/", at) + 2
        elif source[at] in "\"'":
            match = re.compile(r"(['\"])(?:\\.|(?!\1)[^\\])*\1", re.DOTALL).match(source, at)
            assert match is not None, "a string without an end"
            end = match.end()
        elif source[at] == "/" and BEFORE_REGEX.search(source[max(0, at - 12) : at]):
            match = re.compile(r"/(?:\\.|\[(?:\\.|[^\]\\])*\]|[^/\\\[\n])+/").match(source, at)
            end = match.end() if match else None
        elif source[at] == "`" or (source[at] == "}" and depths and depths[-1] == 0):
            if source[at] == "}":
                depths.pop()
            add(code, at, True)
            code = template_end(at + 1)
            add(at, code, False)
            at = code
            continue
        elif depths and source[at] in "{}":
            depths[-1] += 1 if source[at] == "{" else -1
        if end is None:
            at += 1
            continue
        add(code, at, True)
        add(at, end, False)
        code = at = end
    add(code, len(source), True)
    yield from pieces


def texts(source: str) -> Iterator[tuple[int, str]]:
    """Strings and comments with their lines; neighbouring comments are one text."""
    first, comment = 0, ""
    for line, is_code, text in scan(source):
        if text.startswith("//") and not is_code:
            first = first or line
            comment += " " + text[2:]
            continue
        if comment and text.strip():
            yield first, comment
            first, comment = 0, ""
        if not is_code:
            yield line, text
    if comment:
        yield first, comment


def names(source: str) -> Iterator[tuple[int, str]]:
    """Names in code with their lines, without properties (``.name``) and keys (``name:``)."""
    for line, is_code, text in scan(source):
        for match in NAME.finditer(text if is_code else ""):
            yield line + text.count("\n", 0, match.start()), match[0]
