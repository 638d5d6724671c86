"""Constrained decoding: a regular expression, a JSON schema or one of several texts that an answer must match.

A grammar never changes what a model thinks of a token; it only rules out the tokens after which the answer could no
longer match (Willard & Louf 2023). Which those are llguidance works out, an Earley parser over the bytes of the
vocabulary, in some tens of microseconds per token.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from underhood.core.errors import UserError
from underhood.core.protocols import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLTokenizer

JSON_LAYOUT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""One way to write each value, as Python's ``json.dumps`` does: a model that may pad with spaces may do so forever."""


@dataclass(frozen=True)
class Grammar:
    """A set of texts. Made by `regex`, `json_schema`, `json_object`, `any_of` and `sequence`.

    Attributes:
        pattern: the same as a regular expression; None where none can say it.
        lark: the same as an expression of llguidance's dialect of Lark.
    """

    pattern: str | None
    lark: str

    @classmethod
    def regex(cls, pattern: str) -> "Grammar":
        r"""Texts that match as a whole, e.g. ``[A-Z]\w+``; syntax of Rust's regex crate, so no look-around.

        Raises:
            UserError: it is not such an expression.
        """
        return _checked(_of_pattern(pattern), f"the regular expression {pattern!r}")

    @classmethod
    def json_schema(cls, schema: Mapping[str, Any] | bool | str) -> "Grammar":
        """JSON that the schema admits (draft 2020-12), laid out as ``json.dumps`` does, keys in the schema's order.

        Raises:
            UserError: it is not JSON, not a schema, or uses a keyword that can't be kept to.
        """
        if isinstance(schema, str):
            try:
                schema = json.loads(schema)
            except json.JSONDecodeError as error:
                raise UserError(f"the schema is not JSON: {error}") from error
        if not isinstance(schema, (Mapping, bool)):
            raise UserError("the schema is of the wrong type", expected="a JSON object", got=json.dumps(schema)[:40])
        if isinstance(schema, bool):
            schema = {} if schema else {"not": {}}
        options = {"x-guidance": JSON_LAYOUT}
        return _checked(cls(None, f"%json {json.dumps({**schema, **options})}"), "the JSON schema")

    @classmethod
    def json_object(cls) -> "Grammar":
        """Any JSON object."""
        return cls.json_schema({"type": "object"})

    @classmethod
    def any_of(cls, choices: Sequence["Grammar | str"]) -> "Grammar":
        """What one of the choices admits; a string matches itself."""
        return cls._joined(choices, "|")

    @classmethod
    def sequence(cls, parts: Sequence["Grammar | str"]) -> "Grammar":
        """What the parts admit, one after the other; a string matches itself."""
        return cls._joined(parts, "")

    @classmethod
    def _joined(cls, given: Sequence["Grammar | str"], sign: str) -> "Grammar":
        if not given:
            raise UserError("a grammar of no parts admits nothing", expected="at least one")
        parts = [_of_text(grammar) if isinstance(grammar, str) else grammar for grammar in given]
        patterns = [grammar.pattern for grammar in parts if grammar.pattern is not None]
        if len(patterns) == len(parts):
            # One expression, not a rule of several: a rule's parts are matched greedily, each on its own.
            return _of_pattern(sign.join(f"(?:{pattern})" for pattern in patterns))
        return cls(None, f"( {f' {sign} '.join(grammar.lark for grammar in parts)} )")

    def matcher(self, tokenizer: Tokenizer) -> "Matcher":
        """The grammar at work on one text of the tokenizer; see there for what it raises."""
        return Matcher(self, tokenizer)

    @property
    def source(self) -> str:
        """The whole grammar for llguidance."""
        from llguidance import LLMatcher

        return LLMatcher.grammar_from_lark(f"start: {self.lark}")


class Matcher:
    """How far one text has come in its grammar.

    Attributes:
        stuck: whether the grammar wants what no token can write: a small vocabulary need not hold every byte.

    Raises:
        UserError: the grammar is too large to be worked out, or the vocabulary can't even begin it.
    """

    def __init__(self, grammar: Grammar, tokenizer: Tokenizer):
        from llguidance import LLMatcher

        self._size = tokenizer.vocab_size
        self.stuck = False
        self._matcher = LLMatcher(_vocabulary(tokenizer), grammar.source, log_level=0)
        self._check()
        self.mask(torch.zeros(self._size), ())
        if self.stuck and not self.accepts:
            raise UserError("the tokenizer's vocabulary can't spell any text that the grammar admits")

    @property
    def accepts(self) -> bool:
        """Whether the text matches completely."""
        return self._matcher.is_accepting()

    @property
    def complete(self) -> bool:
        """Whether the text matches and nothing can follow."""
        return self._matcher.is_stopped() and not self._matcher.is_error()

    def mask(self, logits_V: Float[Tensor, "V"], stop_ids: Collection[int]) -> Float[Tensor, "V"]:
        """The scores with every token that the grammar rules out at −∞; stop tokens stay where the text may end.

        When `stuck` they come back as they are.
        """
        if self.stuck:
            return logits_V
        bits = torch.frombuffer(bytearray(self._matcher.compute_bitmask()), dtype=torch.uint8)
        self._check()
        bits_V = (bits[:, None] >> torch.arange(8, dtype=torch.uint8) & 1).flatten()[: self._size].bool()
        allowed_V = torch.zeros(logits_V.shape[-1], dtype=torch.bool)  # a padded embedding has more rows than tokens
        allowed_V[: len(bits_V)] = bits_V
        if stop_ids:
            allowed_V[torch.tensor(list(stop_ids))] = self.accepts
        self.stuck = self.stuck or not bool(allowed_V.any())
        return logits_V if self.stuck else logits_V.masked_fill(~allowed_V.to(logits_V.device), -math.inf)

    def push(self, id: int) -> None:
        """Takes a token that the mask left.

        Raises:
            UserError: the grammar has become too large to be worked out.
        """
        self._matcher.consume_token(id)
        self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            message = self._matcher.get_error().strip()
            if not message.startswith("NoExtension"):
                raise _refused("the grammar", message)
            self.stuck = True


def _of_text(text: str) -> Grammar:
    return _of_pattern("".join(c if c.isalnum() else f"\\x{{{ord(c):X}}}" for c in text))


def _of_pattern(pattern: str) -> Grammar:
    from llguidance import regex_to_lark

    return Grammar(pattern, f"/{regex_to_lark(pattern)}/")


def _checked(grammar: Grammar, name: str) -> Grammar:
    from llguidance import LLMatcher

    failed, messages = LLMatcher.validate_grammar_with_warnings(grammar.source)
    if failed or messages:  # a warning tells of a keyword that would be passed over: the promise would not hold
        raise _refused(name, messages[0])
    return grammar


def _refused(name: str, message: str) -> UserError:
    """The parser's complaint without its place in the text that was made of the user's, and without that text."""
    told = re.sub(r"^at \d+\(\d+\): |\n( +\d+ \||<state>).*", "", message.strip(), flags=re.DOTALL)
    return UserError(f"{name} can't be used: {told.removeprefix('failed to compile JSON schema: ')}")


class _Vocabulary:
    """A tokenizer as llguidance wants to see it. One id beyond the vocabulary means the end of the text."""

    def __init__(self, tokenizer: Tokenizer):
        special = set(tokenizer.special.values())
        self.tokens = [tokenizer.decode_bytes([id]) for id in range(tokenizer.vocab_size)] + [b"<end>"]
        self.eos_token_id, self.bos_token_id = tokenizer.vocab_size, None
        self.special_token_ids = [id for id, token in enumerate(self.tokens) if id in special or not token]
        self.special_token_ids.append(self.eos_token_id)
        self._tokenizer = tokenizer

    def __call__(self, text: str) -> list[int]:
        """Asked where the grammar leaves one continuation only, so that it is spelt as the model learnt it."""
        if not isinstance(text, str):  # it tries whether bytes will do
            raise TypeError("a tokenizer encodes text")
        try:
            ids = self._tokenizer.encode(text)
        except UserError:  # it holds a character that the vocabulary lacks
            return self._longest_first(text.encode())
        return ids if b"".join(self.tokens[id] for id in ids) == text.encode() else self._longest_first(text.encode())

    def _longest_first(self, text: bytes) -> list[int]:
        """The text as far as it can be spelt, for tokenizers that can't, or that write more, such as a first space."""
        by_bytes = {token: id for id, token in enumerate(self.tokens) if id not in self.special_token_ids}
        longest = max(map(len, by_bytes))
        ids, at = [], 0
        while at < len(text):
            sizes = range(min(longest, len(text) - at), 0, -1)
            size = next((size for size in sizes if text[at : at + size] in by_bytes), None)
            if size is None:
                break
            ids.append(by_bytes[text[at : at + size]])
            at += size
        return ids


KEPT = 4
_recent: list[tuple[Tokenizer, "LLTokenizer"]] = []


def _vocabulary(tokenizer: Tokenizer) -> "LLTokenizer":
    """A trie of all tokens' bytes, worked out once per tokenizer; the last few are kept."""
    for known, vocabulary in _recent:
        if known is tokenizer:
            return vocabulary
    from llguidance import LLTokenizer, TokenizerWrapper

    vocabulary = LLTokenizer(TokenizerWrapper(_Vocabulary(tokenizer)), n_vocab=tokenizer.vocab_size + 1)
    _recent.insert(0, (tokenizer, vocabulary))
    del _recent[KEPT:]
    return vocabulary
