"""Input and output of ``underhood generate``: standard input, grammars and the reported text."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from underhood.core.errors import UserError
from underhood.core.text_files import read_standard_input, read_text
from underhood.infer.grammar import Grammar
from underhood.infer.request import OutputChunk


@dataclass(frozen=True)
class GeneratedText:
    """A continuation as it is reported."""

    text: str
    finish: str | None
    logprobs: list[float]

    @classmethod
    def of(cls, chunks: list[OutputChunk]) -> GeneratedText:
        logprobs = [token.logprob for chunk in chunks for token in chunk.tokens]
        finish = chunks[-1].finish if chunks else "length"
        return cls("".join(chunk.text for chunk in chunks), finish, logprobs)


def read_grammar(regex: str | None, schema: str | None) -> Grammar | None:
    """What `--regex` or `--schema` asks for, or None.

    Raises:
        UserError: both are given, or the given one is invalid.
    """
    if regex is not None and schema is not None:
        raise UserError("a continuation keeps to one form", fix="Leave out --regex or --schema")
    if regex is not None:
        return Grammar.regex(regex)
    if schema is None:
        return None
    if schema.lstrip().startswith("{"):
        return Grammar.json_schema(schema)
    try:
        text = read_text(Path(schema))
    except UserError as error:
        raise UserError(
            f"there is no JSON schema in {schema}: {error.what}",
            fix="Give a file that holds one, or the schema itself",
        ) from error
    return Grammar.json_schema(text)


def read_stdin() -> str:
    """All of standard input, without its last line feed.

    Raises:
        UserError: it is a terminal, where nobody said that something was wanted; or it is not text.
    """
    if sys.stdin.isatty():
        raise UserError("there is no prompt", fix='Give one, e.g. underhood generate RUN "The list", or pipe one in')
    return read_standard_input().removesuffix("\n").removesuffix("\r")
