"""Underhood: the whole path to large language models as one working system.

    import underhood

    model = underhood.load("runs/pydocs")     # a LoadedModel; also a Hugging Face folder, hf:OWNER/NAME, a GGUF file
    model.chat("What does os.path.join do?")  # a string; in a notebook its tokens, coloured by probability
    model.generate("The list", seed=1)        # the text that follows
    model.tokens("naïve")                     # ids, pieces and bytes
    model.next("The list is", k=5)            # the most probable next tokens
    talk = model.conversation()               # for piece in talk.reply("Hello"): ...

    run = underhood.open_run("runs/pydocs")   # what was built, and how it learned
    run.curves()["pretrain"].loss             # an array; a chart in a notebook

    retriever = underhood.open_retriever(model, "notes.index")  # documents to answer from
    model.chat("Where is the key?", prepare=retriever.prepare)

A wrong argument raises `underhood.UserError`, which says what was expected. ``underhood --help`` lists the commands of
the terminal, ``underhood path search WORDS`` finds everything else. Importing this package loads nothing heavy; PyTorch
comes with the first model.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from underhood.core.threads import limit_spinning

limit_spinning()

if TYPE_CHECKING:
    from underhood.core.errors import UserError
    from underhood.infer.chat import ChatSession
    from underhood.infer.load import LoadedModel, load
    from underhood.recipes.open_run import open_run
    from underhood.recipes.run import Run
    from underhood.retrieve.retriever import Retriever, open_retriever

__all__ = ["ChatSession", "LoadedModel", "Retriever", "Run", "UserError", "load", "open_retriever", "open_run"]

_MODULES = {
    "ChatSession": "underhood.infer.chat",
    "LoadedModel": "underhood.infer.load",
    "Retriever": "underhood.retrieve.retriever",
    "Run": "underhood.recipes.run",
    "UserError": "underhood.core.errors",
    "load": "underhood.infer.load",
    "open_retriever": "underhood.retrieve.retriever",
    "open_run": "underhood.recipes.open_run",
}


def __getattr__(name: str) -> Any:
    # Looked up when first used: `import underhood` itself loads nothing heavy.
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    # What a user may call; the layers below are imported by their own names.
    return [*__all__, "__doc__", "__name__", "__path__"]
