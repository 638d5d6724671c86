"""Help texts of the command line, read from the docstrings and sources of option dataclasses."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from itertools import pairwise

_ENTRY = re.compile(r"^ {4}(\w+(?:, \w+)*): (.*)$")


def field_docs(cls: type) -> dict[str, str]:
    """Texts by field name, those of base classes included, each in one line.

    Two ways of writing them are read: a string under the field, and an entry ``name: text`` or ``name, other: text``
    in the ``Attributes:`` section of the class's docstring. The string under the field wins.
    """
    docs: dict[str, str] = {}
    for owner in reversed(cls.__mro__[:-1]):
        docs |= _from_section(owner.__dict__.get("__doc__") or "") | _from_source(owner)
    return {name: " ".join(text.replace("``", "").split()) for name, text in docs.items()}


def description(cls: type) -> list[str]:
    """The paragraphs of the class's docstring before its ``Attributes:`` section."""
    text = inspect.cleandoc(cls.__doc__ or "").partition("\nAttributes:\n")[0]
    return [paragraph for paragraph in text.strip().split("\n\n") if paragraph]


def _from_section(docstring: str) -> dict[str, str]:
    docs: dict[str, str] = {}
    current: tuple[str, ...] = ()
    for line in inspect.cleandoc(docstring).partition("\nAttributes:\n")[2].splitlines():
        entry = _ENTRY.match(line)
        if entry:
            current = tuple(entry[1].split(", "))
            docs |= dict.fromkeys(current, _sentence(entry[2]))
        elif line.startswith(" " * 8):
            docs |= {name: f"{docs[name]} {line.strip()}" for name in current}
        elif line.strip():  # the next section
            break
    return docs


def _from_source(cls: type) -> dict[str, str]:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    except (OSError, TypeError):  # no source at hand (a frozen program): help without texts
        return {}
    docs = {}
    for field, below in pairwise(tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
            text = below.value.value if isinstance(below.value, ast.Constant) else None
            if isinstance(text, str):
                docs[field.target.id] = text
    return docs


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
