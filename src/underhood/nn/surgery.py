"""Surgery on a built model: modules found by name and swapped for others.

LoRA and quantisation are not kinds of model. They take a built model, replace some of its layers, and leave the
rest as it was.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import TypeVar

from torch import nn

from underhood.core.errors import UserError, nearest

M = TypeVar("M", bound=nn.Module)

REGEX = "re:"
"""A pattern that begins so is a regular expression for the whole name."""


def name_matches(name: str, pattern: str) -> bool:
    """Whether a module's dotted name fits a pattern.

    A pattern is a glob for the whole name or for its last parts (``query``, ``mixer.*``, ``blocks.0.*``), where ``*``
    matches any characters, dots included; or a regular expression for the whole name, after ``re:``.
    """
    if pattern.startswith(REGEX):
        return re.fullmatch(pattern[len(REGEX) :], name) is not None
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}")


def find_modules(model: nn.Module, patterns: str | Sequence[str], kind: type[M] = nn.Module) -> Iterator[tuple[str, M]]:
    """The modules of a kind whose name fits one of the patterns, in the model's order."""
    patterns = [patterns] if isinstance(patterns, str) else patterns
    for name, module in model.named_modules():
        if name and isinstance(module, kind) and any(name_matches(name, pattern) for pattern in patterns):
            yield name, module


def replace_modules(
    model: nn.Module, patterns: str | Sequence[str], make: Callable[[str, M], nn.Module], kind: type[M] = nn.Module
) -> list[str]:
    """Puts ``make(name, module)`` in the place of every module that `find_modules` finds; returns their names.

    All are found before the first is replaced, so what `make` builds around a module is not searched again.

    Raises:
        UserError: a pattern fits no module of that kind; names that come near are suggested.
    """
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    matches = list(find_modules(model, patterns, kind))
    for pattern in patterns:
        if not any(name_matches(name, pattern) for name, _ in matches):
            ends = sorted(
                {name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, kind)}
            )
            near = nearest(pattern.rpartition(".")[2], ends)
            hint = f"Did you mean {near}?" if near else f"There are {', '.join(ends)}"
            sorts = " or ".join(cls.__name__ for cls in (kind if isinstance(kind, tuple) else (kind,)))
            raise UserError(f"no {sorts} layer of the model is called {pattern!r}", fix=hint)
    for name, module in matches:
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, make(name, module))
    return [name for name, _ in matches]
