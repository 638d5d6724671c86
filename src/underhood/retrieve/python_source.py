"""Docstrings and signatures of a Python source file as blocks, each below the dotted name of what it describes."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import replace
from pathlib import PurePosixPath

from underhood.data.signatures import class_signature, definitions, signature_of
from underhood.retrieve.blocks import TextBlock, text_blocks

BODY_CHARACTERS = 2_000
"""How much of a function's body is searched: enough for the names it uses."""

Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def python_blocks(source: str, name: str) -> list[TextBlock] | None:
    """The blocks of a source file, or None where it isn't valid Python.

    A function's first block is its call and the first paragraph of its docstring; its body is searched, not shown.

    Args:
        name: the file's name; ``src/tools/paths.py`` is the module ``tools.paths``.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return None
    lines, module = source.splitlines(), module_name(name)
    blocks = list(_docstring_blocks(tree, module))
    for node in definitions(tree.body):
        blocks += _definition_blocks(node, module, lines)
    return blocks


def module_name(file: str) -> str:
    """The dotted name of the module that a file holds."""
    parts = list(PurePosixPath(file).with_suffix("").parts)
    if "src" in parts:
        parts = parts[parts.index("src") + 1 :]
    if parts[-1:] == ["__init__"] and len(parts) > 1:
        parts.pop()
    return ".".join(segment for segment in parts if segment not in ("/", ".", ".."))


def _definition_blocks(node: Definition, prefix: str, lines: list[str]) -> Iterator[TextBlock]:
    name = f"{prefix}.{node.name}" if prefix else node.name
    if isinstance(node, ast.ClassDef):
        signature, _ = class_signature(node)
        call = node.name if signature is None else f"{node.name}({signature})"
        searched = ""
    else:
        inside_class = bool(node.args.args) and node.args.args[0].arg in ("self", "cls")
        call = f"{node.name}({signature_of(node.args, skip_first=inside_class)[0]})"
        searched = "\n".join(lines[node.lineno : node.end_lineno])[:BODY_CHARACTERS]
    documented = list(_docstring_blocks(node, name))
    if documented and not documented[0].verbatim:
        first = replace(documented[0], text=f"{call}: {documented[0].text}")
        blocks = [first, *documented[1:]]
    else:
        blocks = [TextBlock(text=call, line=node.lineno, headings=(name,)), *documented]
    yield replace(blocks[0], line=node.lineno, search_text=searched)
    yield from blocks[1:]
    if isinstance(node, ast.ClassDef):
        for inner in definitions(node.body):
            yield from _definition_blocks(inner, name, lines)


def _docstring_blocks(node: ast.Module | Definition, name: str) -> Iterator[TextBlock]:
    doc = ast.get_docstring(node)
    if doc:
        statement = node.body[0]
        assert isinstance(statement, ast.Expr)
        assert isinstance(statement.value, ast.Constant)
        raw = str(statement.value.value)
        skipped = raw[: len(raw) - len(raw.lstrip())].count("\n")
        for block in text_blocks(doc, kind="rst"):
            yield replace(block, line=statement.lineno + skipped + block.line - 1, headings=(name, *block.headings))
