"""Held-out split by document, and a contamination check for answers that leak across."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable

from underhood.core.errors import UserError
from underhood.data.documents import Corpus, Document
from underhood.data.pydocs import DocumentedFunction


def split_documents(
    corpus: Corpus, *, held_out: float = 0.1, seed: int = 0, keep: Collection[str] = ()
) -> tuple[Corpus, Corpus]:
    """Divides a corpus by document so that about `held_out` of its bytes are never trained on.

    Each document's place in line is a hash of the seed and its name; held out is the front of that line until the
    share is reached. Adding documents therefore moves no document across except the few at the end of that front. A
    document so large that it would overshoot the share by more than half is passed over.

    Args:
        keep: names of documents that always stay in training (say, the one that a demonstration asks about).

    Returns:
        The training corpus and the held-out corpus, both in the order of `corpus`.

    Raises:
        UserError: fewer than two documents.
        ValueError: `held_out` outside (0, 1).
    """
    if not 0 < held_out < 1:
        raise ValueError(f"held_out is a share between 0 and 1, got {held_out}")
    if len(corpus) < 2:
        raise UserError(
            f"{corpus.name} has {len(corpus)} document{'' if len(corpus) == 1 else 's'}",
            expected="at least 2, one of them to be held out",
            fix="Give more files, or separate the texts in one file by lines of <|endoftext|>",
        )
    wanted = held_out * corpus.bytes
    taken: set[str] = set()
    taken_bytes = 0
    movable = [document for document in corpus.documents if document.name not in keep] or list(corpus.documents)
    line = sorted(movable, key=lambda document: _place(document.name, seed))
    for document in line:
        if taken_bytes >= wanted:
            break
        if taken_bytes + document.bytes <= 1.5 * wanted:
            taken.add(document.name)
            taken_bytes += document.bytes
    if not taken:
        taken.add(min(line, key=lambda document: document.bytes).name)
    train = [document for document in corpus.documents if document.name not in taken]
    test = [document for document in corpus.documents if document.name in taken]
    facts = {"split_seed": seed, "held_out": held_out}
    return (
        corpus.with_documents(train, name=f"{corpus.name} (training)", **facts),
        corpus.with_documents(test, name=f"{corpus.name} (held out)", **facts),
    )


def _place(name: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}\0{name}".encode("utf-8", "surrogatepass")).digest()


def split_functions(
    functions: Iterable[DocumentedFunction], held_out: Corpus
) -> tuple[list[DocumentedFunction], list[DocumentedFunction]]:
    """Functions whose module is trained on, and functions whose module is held out."""
    names = {document.name for document in held_out.documents}
    seen: list[DocumentedFunction] = []
    unseen: list[DocumentedFunction] = []
    for function in functions:
        (unseen if function.module in names else seen).append(function)
    return seen, unseen


def contaminated(functions: Iterable[DocumentedFunction], train: Corpus) -> set[str]:
    """Names of those functions whose summary is word for word in the training text (case and spacing aside)."""
    haystack = "\n".join(_plain(document) for document in train.documents)
    return {function.name for function in functions if _squeeze(function.summary).rstrip(".") in haystack}


def _plain(document: Document) -> str:
    return _squeeze(document.text)


def _squeeze(text: str) -> str:
    return " ".join(text.lower().split())
