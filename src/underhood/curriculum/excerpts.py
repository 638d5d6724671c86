"""Excerpts: functions and classes cut out of the library's source for the pages of the path."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

import underhood


@dataclass(frozen=True)
class Excerpt:
    """One function or class: `name` as one would import it, `file` within the repository, `first` line number."""

    name: str
    file: str
    first: int
    lines: tuple[str, ...]


def excerpt(name: str) -> Excerpt:
    """The source of ``"underhood.models.ngram:NGram._discount"`` without its docstrings.

    The file is parsed, not imported. LookupError if there is no such thing.
    """
    module, _, inner = name.partition(":")
    file = _file(module)
    text = file.read_text(encoding="utf-8")
    node: ast.AST = ast.parse(text)
    for attribute in inner.split("."):
        node = _inside(node, attribute, name)
    assert isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign))
    lines = text.splitlines()
    first = min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))])
    assert node.end_lineno is not None
    dropped = {number for inner_node in ast.walk(node) for number in _docstring(inner_node, lines)}
    taken = [lines[number - 1] for number in range(first, node.end_lineno + 1) if number not in dropped]
    indent = min((len(line) - len(line.lstrip()) for line in taken if line.strip()), default=0)
    shown = tuple(line[indent:].rstrip() for line in taken)
    return Excerpt(name, file.relative_to(Path(underhood.__file__).parents[1]).as_posix(), first, shown)


def _file(module: str) -> Path:
    parts = module.split(".")
    if parts[0] != "underhood":
        raise LookupError(f"{module} is not a module of underhood")
    base = Path(underhood.__file__).parent.joinpath(*parts[1:])
    for file in (base.with_suffix(".py"), base / "__init__.py"):
        if file.is_file():
            return file
    raise LookupError(f"there is no module {module}")


def _inside(node: ast.AST, attribute: str, name: str) -> ast.AST:
    for child in getattr(node, "body", ()):
        if isinstance(child, (ast.FunctionDef, ast.ClassDef)) and child.name == attribute:
            return child
        targets = child.targets if isinstance(child, ast.Assign) else [getattr(child, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == attribute for target in targets):
            return child
    raise LookupError(f"{name}: there is no {attribute}")


def _docstring(node: ast.AST, lines: list[str]) -> range:
    """The line numbers of a node's docstring and of the empty line after it."""
    if not isinstance(node, (ast.FunctionDef, ast.ClassDef)) or ast.get_docstring(node) is None:
        return range(0)
    text = node.body[0]
    assert text.end_lineno is not None
    if len(node.body) == 1:
        return range(0)  # nothing else is in it
    after = text.end_lineno
    return range(text.lineno, after + 1 + (not lines[after].strip()))
