"""Search entries of the source: one per module, by its docstring and those of its public classes and functions.

A search must not take the second that parsing 400 files takes, so docstrings are read by pattern; a test holds the
patterns to Python's own parser.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import underhood
from underhood.curriculum.search.doc_entries import first_sentence, shown_path
from underhood.curriculum.search.entries import SearchEntry

LEFT_OUT = {"path", "cli"}
"""Folders with entries of another kind: milestones, and commands with their options."""

MODULE_DOCSTRING = re.compile(r'\s*(r?)"""(.*?)"""', re.DOTALL)
DEFINITION = re.compile(
    r'^(?:class|(?:async )?def) ([A-Za-z]\w*)(?:(?!^[@\w"#]).)*?:[^\S\n]*\n(?:[^\S\n]*\n)*    (r?)"""(.*?)"""',
    re.DOTALL | re.MULTILINE,
)
"""Name and docstring of a class or function at the left margin; a closing bracket there ends no definition."""


def package_folder() -> Path:
    """The folder of the package."""
    return Path(underhood.__file__).parent


def module_files() -> list[Path]:
    """The files of the library in order, those of `LEFT_OUT` and ``__init__.py`` left out."""
    package = package_folder()
    files = sorted(package.rglob("*.py"))
    return [file for file in files if file.name[:2] != "__" and file.relative_to(package).parts[0] not in LEFT_OUT]


def module_docstring(source: str) -> str:
    """The docstring of a module; empty if it has none."""
    match = MODULE_DOCSTRING.match(source)
    return _docstring(*match.groups()) if match else ""


def definitions(source: str) -> list[tuple[str, str]]:
    """Name and docstring of the public classes and functions that have a docstring."""
    return [(match[1], _docstring(match[2], match[3])) for match in DEFINITION.finditer(source)]


def _docstring(prefix: str, text: str) -> str:
    """The text of a literal; of the escapes only that of the backslash occurs."""
    return inspect.cleandoc(text if prefix else text.replace("\\\\", "\\"))


def summary_of(docstring: str) -> str:
    """The first sentence of a docstring, without its full stop."""
    return first_sentence(docstring.split("\n\n")[0].replace("`", "")).rstrip(".")


def code_entries() -> Iterator[SearchEntry]:
    """One entry per module."""
    package = package_folder()
    for file in module_files():
        source = file.read_text(encoding="utf-8")
        docstring, name = module_docstring(source), file.relative_to(package).as_posix()
        yield SearchEntry(
            kind="code",
            target=name,
            title=name,
            summary=summary_of(docstring),
            named=file.stem.replace("_", " "),
            text=docstring,
            names="\n".join(f"{member} {summary_of(text)}" for member, text in definitions(source)),
            page=f"code.html#{name.removesuffix('.py').replace('/', '-')}",
            see=shown_path(file),
        )
