"""Underhood: the whole path to large language models as one working system.

``underhood.load("runs/NAME")`` opens a model that ``underhood build`` made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from underhood.core.threads import limit_spinning

limit_spinning()

if TYPE_CHECKING:
    from underhood.infer.load import LoadedModel, load

__all__ = ["LoadedModel", "load"]


def __getattr__(name: str) -> Any:
    # Looked up when first used: `import underhood` itself loads nothing heavy.
    if name in __all__:
        from underhood.infer import load as module

        return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
