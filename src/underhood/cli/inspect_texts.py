"""Texts for views of ``underhood inspect`` that need more than a prompt."""

from __future__ import annotations

from underhood.cli.inspect_options import ViewOptions
from underhood.data.sources import load_corpus
from underhood.inspect.default_training import clipped

DEFAULT_TEXT = "pydocs"


def corpus_texts(args: ViewOptions, characters: int) -> list[str]:
    """About so many characters of ``--text``, or of the default corpus; long documents are cut."""
    documents = load_corpus(args.text or DEFAULT_TEXT).documents
    return clipped((document.text for document in documents), characters)
