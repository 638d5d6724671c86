"""Checks the shapes in signatures: jaxtyping's import hook with beartype, where it has something to check.

Only modules that mention jaxtyping are hooked, and in them only signatures that hold a jaxtyping annotation are
checked, so that hot loops elsewhere run as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, get_args

import beartype
from jaxtyping import AbstractArray, install_import_hook


def hook(package: Path) -> list[str]:
    """Hooks every module below `package` that uses jaxtyping, if it is not imported yet; returns their names."""
    names = [_module_name(file, package) for file in package.rglob("*.py") if b"jaxtyping" in file.read_bytes()]
    install_import_hook(names, "shapecheck.check")
    return names


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """The type checker that jaxtyping calls for every function of a hooked module."""
    annotations = getattr(function, "__annotations__", {})
    if not any(_has_shape(hint) for hint in annotations.values()):
        return function
    return beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))(function)


def _has_shape(hint: Any) -> bool:
    inner: Iterable[Any] = get_args(hint)
    return (isinstance(hint, type) and issubclass(hint, AbstractArray)) or any(map(_has_shape, inner))


def _module_name(file: Path, package: Path) -> str:
    parts = file.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
