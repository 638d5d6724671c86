"""pydocs, the default corpus: the documentation inside this Python installation, no download.

Two sources, both English prose: the language reference by topic (`pydoc_data.topics`) and one document per module of
the standard library with its docstrings, each under the name and signature of what it describes. Because every function
has one right description, the same text gives questions with checkable answers (`pydocs_functions`).
"""

from __future__ import annotations

import importlib
import platform
import re
from dataclasses import dataclass
from functools import lru_cache

from underhood.data.docstrings import Entry, Library, standard_library
from underhood.data.documents import Corpus, Document

LEGACY = (
    "distutils",
    "lib2to3",
    "encodings",
    "pydoc_data",
    "tkinter.tix",
    "ntpath",
    "posixpath",
    "macpath",
    "nturl2path",
)
"""Modules whose text is good prose to read, but about whose functions nobody should be asked."""


@dataclass(frozen=True)
class DocumentedFunction:
    """A documented function, method or class with its one-sentence summary.

    Attributes:
        name: what a user would type, e.g. ``textwrap.dedent``, ``os.path.join``, ``str.split``.
        module: the document of the pydocs corpus that describes it; splits go by this.
        owner: the module to import it from, e.g. ``asyncio`` for ``asyncio.gather`` (its document: asyncio.tasks).
        parameters: names of the parameters, with stars, without self.
        signature: text between the parentheses; None where Python can't tell (some functions written in C).
        summary: first sentence of the docstring: one line, 15 to 160 characters, ends with a full stop.
    """

    name: str
    module: str
    owner: str
    parameters: tuple[str, ...]
    signature: str | None
    summary: str

    @property
    def short_name(self) -> str:
        """The name within its module: ``join`` of ``os.path.join``, ``TextWrapper.wrap``, ``str.split``."""
        return self.name.removeprefix(self.owner + ".")


@lru_cache(maxsize=1)
def _library() -> Library:
    return standard_library()


def pydocs_corpus() -> Corpus:
    """The whole corpus: about 2.3 MB in about 670 documents on CPython 3.11, in an order that never varies."""
    documents = [*_topics(), *_modules()]
    facts = {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "platform": platform.system(),
    }
    return Corpus(tuple(documents), "pydocs", facts=facts)


def _topics() -> list[Document]:
    try:
        topics: dict[str, str] = importlib.import_module("pydoc_data.topics").topics
    except ImportError:
        return []  # some distributions package it apart
    return [Document(topics[name].strip(), f"topic {name}", "topic") for name in sorted(topics)]


def _modules() -> list[Document]:
    parts: dict[str, list[str]] = {}
    for entry in _library().entries:
        parts.setdefault(entry.document, []).append(_described(entry))
    return [Document("\n\n".join(parts[name]), f"module {name}", "module") for name in sorted(parts)]


def _described(entry: Entry) -> str:
    heading = entry.name if entry.signature is None else f"{entry.name}({entry.signature})"
    return f"{heading}\n{entry.doc.strip()}"


@lru_cache(maxsize=1)
def pydocs_functions() -> tuple[DocumentedFunction, ...]:
    """Public functions, methods and classes with a summary that no other one has, ordered by name.

    Left out: names with an underscore, summaries that say nothing about this function ("See the base class."), and of
    several functions with the same summary all but the one with the shortest name, so that every question has one
    right answer.
    """
    best: dict[str, DocumentedFunction] = {}
    for entry in _library().entries:
        if entry.kind not in {"function", "method", "class"} or _is_hidden(entry):
            continue
        summary = summary_of(entry.doc, entry.name)
        if summary is None:
            continue
        candidate = DocumentedFunction(
            entry.name, f"module {entry.document}", entry.owner, entry.parameters, entry.signature, summary
        )
        key = re.sub(r"\W+", " ", summary.lower()).strip()
        rival = best.get(key)
        if rival is None or _simplicity(candidate) < _simplicity(rival):
            best[key] = candidate
    unique: dict[str, DocumentedFunction] = {}
    for function in sorted(best.values(), key=lambda function: function.name):
        unique.setdefault(function.name, function)
    return tuple(unique.values())


def documented_entries() -> tuple[Entry, ...]:
    """Everything public that the documentation describes, modules included, in the order of the documents."""
    return tuple(entry for entry in _library().entries if not _is_hidden(entry))


def known_names() -> frozenset[str]:
    """Every dotted name that exists in the standard library, documented or not: what an invented name must not be."""
    return _library().names


@lru_cache(maxsize=1)
def owners_by_short_name() -> dict[str, frozenset[str]]:
    """Modules that document something of this name: ``join`` → os.path, shlex; a question needs exactly one."""
    owners_of: dict[str, set[str]] = {}
    for entry in _library().entries:
        if entry.kind != "module":
            owners_of.setdefault(entry.name.removeprefix(entry.owner + "."), set()).add(entry.owner)
    return {name: frozenset(owners) for name, owners in owners_of.items()}


def _is_hidden(entry: Entry) -> bool:
    parts = f"{entry.document}.{entry.name}".split(".")
    return any(segment.startswith("_") for segment in parts) or entry.document.startswith(LEGACY)


def _simplicity(function: DocumentedFunction) -> tuple[int, int, str]:
    return function.name.count("."), len(function.name), function.name


_SAYS_NOTHING = re.compile(
    r"^(see |same as |like |as |ditto|todo|xxx|fixme|note|alias |deprecated|overrid|internal|private|helper for pickle|"
    r"return (repr|str|self|hash|iter|getattr|len)\(|return self|initiali[sz]e (self|an? instance)|create and return a "
    r"new object|constructor|not implemented|unimplemented|implement(s|ation of) |this (method|function|class) |"
    r"inherited|undocumented|equivalent to|dummy|stub|obsolete|default method|\.\. |>>>|usage:|args:|example)",
    re.IGNORECASE,
)
_ABBREVIATION = re.compile(r"(\be\.g|\bi\.e|\betc|\bcf|\bvs|\bresp|\bapprox|\bNo|\bDr|\bSt|\b[A-Z])\.$")
_CALL_LINE = re.compile(r"^[\w.]+\s*\(.*?\)\s*(->.*|--.*|=.*|:)?$|^\S+\(.*$|^\S+ -> ")


def summary_of(doc: str, name: str) -> str | None:
    """The first sentence of a docstring as one line, or None where it wouldn't make a good answer.

    Many docstrings written in C start with the call itself ("pow(x, y) -> number"); such lines are passed over.
    """
    for paragraph in re.split(r"\n\s*\n", doc.strip()):
        lines = [line.strip() for line in paragraph.splitlines()]
        while lines and (_CALL_LINE.match(lines[0]) or not lines[0]):
            lines.pop(0)
        if lines:
            sentence = _first_sentence(" ".join(" ".join(lines).split()))
            break
    else:
        return None
    sentence = sentence.strip(" -–:;,*=")
    if not sentence.endswith((".", "!", "?")):
        sentence += "."
    good_length = 15 <= len(sentence) <= 160 and len(sentence.split()) >= 3
    if not good_length or _SAYS_NOTHING.match(sentence) or not sentence.isprintable():
        return None
    letters = sum(character.isalpha() or character == " " for character in sentence)
    if letters < 0.75 * len(sentence) or ">>>" in sentence or sentence.rstrip(".") == name:
        return None
    return sentence[0].upper() + sentence[1:] if sentence[0].islower() and not _is_code(sentence) else sentence


def _first_sentence(text: str) -> str:
    for end in re.finditer(r"[.!?](?=\s|$)", text):
        sentence = text[: end.end()]
        if not _ABBREVIATION.search(sentence) and sentence.count("(") <= sentence.count(")"):
            return sentence
    return text


def _is_code(sentence: str) -> bool:
    return any(character in sentence.split()[0] for character in "._()[]=")
