"""`Document` and `Corpus`, the output of every text source."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from underhood.core.errors import UserError


@dataclass(frozen=True)
class Document:
    """One text that belongs together: attention never leaves it, and a split never cuts it.

    Attributes:
        text: the whole text.
        name: unique within its corpus; the split into training and held-out documents depends on it alone.
        kind: what sort of text it is, e.g. ``"topic"``, ``"module"``, ``"txt"``, ``"jsonl"``. Kinds ``md``, ``html``
            and ``record`` are Markdown.
        file: the file that it comes from, where that is not its name: it is a record or a section of it.
        lines: for each line of the text its line in the file; empty if they are the same.
    """

    text: str
    name: str
    kind: str
    file: str = ""
    lines: Sequence[int] = ()

    @property
    def source(self) -> str:
        """The file that it comes from, or else its name."""
        return self.file or self.name

    def source_line(self, line: int) -> int:
        """The line of the file where a line of the text comes from, both counted from 1."""
        return self.lines[min(line, len(self.lines)) - 1] if self.lines else line

    @property
    def bytes(self) -> int:
        """Length of the text in UTF-8."""
        return len(self.text.encode("utf-8", "surrogatepass"))


@dataclass(frozen=True)
class Corpus:
    """Documents in a fixed order, with a digest that changes when any name or text changes.

    Attributes:
        facts: what a run should record about the source (Python version, paths, …); plain JSON values.
        digest: SHA-256 over names and texts, computed when left empty.
    """

    documents: tuple[Document, ...]
    name: str
    digest: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self):
        if not self.digest:
            object.__setattr__(self, "digest", digest_of(self.documents))

    def __len__(self) -> int:
        return len(self.documents)

    @property
    def bytes(self) -> int:
        """Length of all texts in UTF-8."""
        return sum(document.bytes for document in self.documents)

    def with_documents(self, documents: Iterable[Document], *, name: str | None = None, **facts: Any) -> "Corpus":
        """The same source with other documents and its own digest (after cleaning, after a split)."""
        return Corpus(tuple(documents), name or self.name, facts={**self.facts, **facts})


def digest_of(documents: Iterable[Document]) -> str:
    """SHA-256 over every name and text, each preceded by its length so that no two corpora read alike."""
    sha = hashlib.sha256()
    for document in documents:
        for entry in (document.name.encode("utf-8", "surrogatepass"), document.text.encode("utf-8", "surrogatepass")):
            sha.update(len(entry).to_bytes(8, "little"))
            sha.update(entry)
    return sha.hexdigest()


def require_enough(corpus: Corpus, minimum_bytes: int) -> None:
    """Stops early when a corpus can't fill one context.

    Raises:
        UserError: the corpus holds fewer than `minimum_bytes` bytes of text.
    """
    if corpus.bytes < minimum_bytes:
        raise UserError(
            f"{corpus.name} is too short to train on",
            expected=f"at least {minimum_bytes:,} bytes of text",
            got=f"{corpus.bytes:,} bytes in {len(corpus):,} document{'' if len(corpus) == 1 else 's'}",
            fix="Give more text",
        )
