"""Signatures as text: from parsed source, and from functions written in C that have none."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator


def definitions(body: list[ast.stmt]) -> Iterator[ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    """Definitions of a body, those under `if` and `try` included (os.fork is defined under an `if`)."""
    for node in body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node
        elif isinstance(node, ast.If):
            yield from definitions(node.body + node.orelse)
        elif isinstance(node, ast.Try):
            yield from definitions(node.body + [s for handler in node.handlers for s in handler.body] + node.orelse)


def class_signature(node: ast.ClassDef) -> tuple[str | None, tuple[str, ...]]:
    for wanted in ("__init__", "__new__"):
        for inner in definitions(node.body):
            if inner.name == wanted and isinstance(inner, ast.FunctionDef):
                return signature_of(inner.args, skip_first=True)
    return None, ()


def signature_of(args: ast.arguments, *, skip_first: bool) -> tuple[str, tuple[str, ...]]:
    """Text and names of the parameters; annotations are left out, as the standard library hardly has any."""
    positional = [*args.posonlyargs, *args.args]
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(args.defaults)) + list(args.defaults)
    pieces = [_parameter(a.arg, d) for a, d in zip(positional, defaults, strict=True)]
    names = [a.arg for a in positional]
    if skip_first and pieces:
        pieces, names = pieces[1:], names[1:]
    if args.vararg:
        pieces.append("*" + args.vararg.arg)
        names.append("*" + args.vararg.arg)
    elif args.kwonlyargs:
        pieces.append("*")
    pieces += [_parameter(a.arg, d) for a, d in zip(args.kwonlyargs, args.kw_defaults, strict=True)]
    names += [a.arg for a in args.kwonlyargs]
    if args.kwarg:
        pieces.append("**" + args.kwarg.arg)
        names.append("**" + args.kwarg.arg)
    return ", ".join(pieces), tuple(names)


def _parameter(name: str, default: ast.expr | None) -> str:
    if default is None:
        return name
    return f"{name}={default.value!r}" if isinstance(default, ast.Constant) else f"{name}={ast.unparse(default)}"


def c_parameter(parameter: inspect.Parameter) -> str:
    # A default such as <object object at 0x7f…> differs from run to run and would change the corpus digest.
    text = str(parameter.replace(annotation=inspect.Parameter.empty))
    return re.sub(r"<[^<>]* at 0x[0-9a-fA-F]+>", "...", text)
