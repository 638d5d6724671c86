"""Retrieval options of every command that answers questions, and the retriever that they ask for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from underhood.core.errors import UserError

if TYPE_CHECKING:
    from underhood.infer.load import LoadedModel
    from underhood.retrieve.retriever import Retriever


@dataclass(frozen=True, kw_only=True)
class RetrievalOptions:
    """Which documents answers come from, and how close to them they stay."""

    retrieve: Path | None = None
    """Answers from documents: an index that underhood index made, or the folder of a run that has one."""

    no_retrieve: bool = False
    """Answers without documents, even if the run has an index of its own."""

    quote: bool | None = None
    """Holds answers to whole sentences of the documents, or a refusal; --no-quote leaves them free. Models that
    underhood build trained for it quote unless told otherwise."""


def open_documents(options: RetrievalOptions, loaded: LoadedModel) -> Retriever | None:
    """The retriever for a model by the options: of the index named, of the run's own, or none.

    Raises:
        UserError: options that exclude each other, no such index, or a model that has not learnt to chat.
    """
    check_contradiction(options)
    if options.no_retrieve:
        return None
    retriever: Retriever | None = None
    if options.retrieve is not None or loaded.retrieval is not None:
        from underhood.retrieve.retriever import open_retriever

        retriever = open_retriever(loaded, options.retrieve)
    if retriever is None and options.quote:
        raise nothing_to_quote()
    return retriever


def check_contradiction(options: RetrievalOptions) -> None:
    """Refuses ``--retrieve`` together with ``--no-retrieve``.

    Raises:
        UserError: both are given.
    """
    if options.no_retrieve and options.retrieve is not None:
        raise UserError("an answer comes from documents or it does not", fix="Leave out --retrieve or --no-retrieve")


def nothing_to_quote() -> UserError:
    """The error for ``--quote`` without documents."""
    return UserError("there is nothing to quote", fix="Name the documents: --retrieve notes.index")
