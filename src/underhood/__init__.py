"""Underhood: the whole path to large language models as one working system.

``underhood.load("runs/NAME")`` opens a model that ``underhood build`` made, and ``underhood.open_retriever(model,
"notes.index")`` the documents that it is to answer from.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from underhood.core.threads import limit_spinning

limit_spinning()

if TYPE_CHECKING:
    from underhood.infer.load import LoadedModel, load
    from underhood.retrieve.retriever import open_retriever

__all__ = ["LoadedModel", "load", "open_retriever"]

_MODULES = {
    "LoadedModel": "underhood.infer.load",
    "load": "underhood.infer.load",
    "open_retriever": "underhood.retrieve.retriever",
}


def __getattr__(name: str) -> Any:
    # Looked up when first used: `import underhood` itself loads nothing heavy.
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
