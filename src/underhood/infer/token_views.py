"""Views of a model's tokens for people: a text cut into tokens, the most probable next tokens, a written answer.

They print as tables in a terminal and as coloured token strips in a notebook.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from underhood.core.protocols import LanguageModel, Tokenizer
from underhood.infer.arguments import check_count, check_text
from underhood.infer.request import Request, WrittenToken
from underhood.infer.session import Session
from underhood.ui import notebook
from underhood.ui.visible_bytes import visible

NEXT_MAX = 1000
"""The most next tokens that are listed."""
SHOWN_MAX = 40
"""Rows of a printed table."""
BAR = 24
"""Characters of the bar of a certain token."""


@dataclass(frozen=True)
class TextToken:
    """One token of a text: its id, its text with every blank visible, and its exact bytes."""

    id: int
    piece: str
    bytes: bytes


@dataclass(frozen=True, repr=False)
class TokenizedText(Sequence[TextToken]):
    """A text as its tokens, in order.

    Attributes:
        text: the text.
        ids: the ids; ``pieces`` and ``bytes`` are what each of them means.
    """

    text: str
    ids: tuple[int, ...]
    bytes: tuple[bytes, ...]

    @classmethod
    def of(cls, tokenizer: Tokenizer, text: str) -> TokenizedText:
        """A text as the tokenizer cuts it, without an opening token.

        Raises:
            UserError: `text` is not a string.
        """
        check_text(text)
        ids = tokenizer.encode(text)
        return cls(text, tuple(ids), tuple(tokenizer.decode_bytes([token]) for token in ids))

    @property
    def pieces(self) -> tuple[str, ...]:
        """Each token's text, a space as ``·`` and torn characters as their bytes."""
        return tuple(map(visible, self.bytes))

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: Any) -> Any:
        tokens = tuple(map(TextToken, self.ids, self.pieces, self.bytes))
        return tokens[index]

    def __repr__(self) -> str:
        width = max((len(str(token)) for token in self.ids), default=2)
        pieces = max(map(len, self.pieces), default=0)
        lines = [f"{len(self)} tokens, {len(self.text.encode('utf-8', 'replace')):,} bytes"]
        for token in self[:SHOWN_MAX]:
            lines.append(f"{token.id:>{width}}  {token.piece:<{pieces}}  {token.bytes.hex(' ')}")
        return "\n".join([*lines, *_left_out(len(self))])

    def _repr_html_(self) -> str:
        strip = notebook.token_strip((token.id, token.bytes, None) for token in self)
        return notebook.framed(
            strip, Markup('<p class="soft">{} tokens; point at one for its id</p>').format(len(self))
        )


@dataclass(frozen=True)
class NextToken:
    """A token that may come next, with its probability under the model itself."""

    id: int
    piece: str
    bytes: bytes
    probability: float


@dataclass(frozen=True, repr=False)
class NextTokenTable(Sequence[NextToken]):
    """The most probable next tokens, the most probable first."""

    tokens: tuple[NextToken, ...] = ()

    @classmethod
    def after(cls, model: LanguageModel, tokenizer: Tokenizer, prompt: Sequence[int], k: int) -> NextTokenTable:
        """The `k` most probable tokens after a prompt, under the model itself (before temperature and truncation).

        Raises:
            UserError: `k` is out of range, or the prompt is empty or too long.
        """
        check_count(k, "k", 1, min(NEXT_MAX, tokenizer.vocab_size))
        request = Request(prompt=prompt, max_new_tokens=1, logprobs=k)
        top = next(token.top for chunk in Session(model).write(request) for token in chunk.tokens)
        listed = ((token, tokenizer.decode_bytes([token]), math.exp(logprob)) for token, logprob in top)
        return cls(tuple(NextToken(token, visible(raw), raw, probability) for token, raw, probability in listed))

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: Any) -> Any:
        return self.tokens[index]

    @property
    def rest(self) -> float:
        """The probability of all other tokens together."""
        return max(0.0, 1.0 - math.fsum(token.probability for token in self.tokens))

    def __repr__(self) -> str:
        pieces = max((len(token.piece) for token in self.tokens), default=0)
        width = max((len(str(token.id)) for token in self.tokens), default=0)
        lines = []
        for token in self.tokens[:SHOWN_MAX]:
            bar = "█" * round(BAR * token.probability)
            share = notebook.share_of_one(token.probability)
            lines.append(f"{token.piece:<{pieces}}  {token.id:>{width}}  {share:>10}  {bar}".rstrip())
        lines += _left_out(len(self))
        return "\n".join([*lines, f"{'all others':<{pieces + width + 2}}  {notebook.share_of_one(self.rest):>10}"])

    def _repr_html_(self) -> str:
        rows = (
            (token.bytes, token.id, notebook.share_of_one(token.probability), notebook.bar(token.probability))
            for token in self.tokens
        )
        table = notebook.data_table(["token", "id", "probability", ""], rows)
        others = Markup('<p class="soft">all others: {}</p>').format(notebook.share_of_one(self.rest))
        return notebook.framed(table, others)


class WrittenText(str):
    """A text that a model wrote: a string, which also knows its tokens and how probable each was.

    In a notebook it shows as a token strip, coloured by probability.

    Attributes:
        tokens: the tokens with their log-probabilities under the model, stop tokens left out.
        token_bytes: the exact bytes of each token.
    """

    tokens: tuple[WrittenToken, ...]
    token_bytes: tuple[bytes, ...]

    def __new__(cls, text: str, tokens: Sequence[WrittenToken], token_bytes: Sequence[bytes]) -> WrittenText:
        written = super().__new__(cls, text)
        written.tokens, written.token_bytes = tuple(tokens), tuple(token_bytes)
        return written

    @classmethod
    def of(cls, tokenizer: Tokenizer, text: str, tokens: Sequence[WrittenToken]) -> WrittenText:
        """What a model wrote, with the bytes of its tokens."""
        return cls(text, tokens, [tokenizer.decode_bytes([token.id]) for token in tokens])

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.tokens, self.token_bytes)

    @property
    def probabilities(self) -> tuple[float, ...]:
        """The probability of each token under the model itself."""
        return tuple(math.exp(token.logprob) for token in self.tokens)

    def _repr_html_(self) -> str:
        strip = zip((token.id for token in self.tokens), self.token_bytes, self.probabilities, strict=True)
        return notebook.framed(notebook.token_strip(strip), notebook.probability_key())


def _left_out(count: int) -> Iterator[str]:
    if count > SHOWN_MAX:
        yield f"… and {count - SHOWN_MAX:,} more"
