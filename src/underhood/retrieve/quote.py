"""Quote grammar: answers that are whole sentences of the passages with their number, or a refusal.

A model that is held to it cannot say what no document says, however small it is. What it still chooses is which passage
and which sentences answer the question, or that none does. The texts are finitely many: for a passage of n sentences
n (n + 1) / 2 runs of neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import pairwise

from underhood.core.protocols import Tokenizer
from underhood.data.instruct import NO_SUCH_NAME
from underhood.infer.grammar import Grammar
from underhood.retrieve.passages import Passage
from underhood.retrieve.sentences import sentence_spans

LONGEST_QUOTE = 12
"""Sentences of a quote. A passage hardly has more; a list of very short ones would make the grammar large."""


def missing_name(name: str) -> str:
    """The refusal that says that no document has a name."""
    return NO_SUCH_NAME.format(name=name)


def quote_grammar(passages: Sequence[Passage], *, refusals: Iterable[str]) -> Grammar:
    """The grammar of quotes and refusals.

    A quote of passage i is its title in backticks with a colon (if it has a title), one or more neighbouring sentences
    exactly as they are in its text, and `` [i]``.

    Args:
        passages: at least one.
        refusals: whole answers.
    """
    choices: list[Grammar | str] = []
    for number, passage in enumerate(passages, 1):
        before = f"`{passage.title}`: " if passage.title else ""
        for first, *rest in _runs(passage.text):
            choices.append(Grammar.sequence([before + first, _any_beginning(rest), f" [{number}]"]))
    return Grammar.any_of([*choices, *dict.fromkeys(refusals)])


def speller(tokenizer: Tokenizer) -> Callable[[str], bool]:
    """Whether a text can be spelt with a vocabulary: every character is a token, or each of its bytes is.

    A byte-level vocabulary spells everything; one of characters only those of its training text.
    """
    special = set(tokenizer.special.values())
    tokens = {tokenizer.decode_bytes([id]) for id in range(tokenizer.vocab_size) if id not in special}

    @cache
    def has(character: str) -> bool:
        encoded = character.encode()
        return encoded in tokens or all(encoded[i : i + 1] in tokens for i in range(len(encoded)))

    return lambda text: all(map(has, set(text)))


def _runs(text: str) -> Iterator[list[str]]:
    """From every sentence on: the sentence, and each one that follows it with the whitespace before it."""
    spans = sentence_spans(text)
    for number, (start, end) in enumerate(spans):
        following = pairwise(spans[number : number + LONGEST_QUOTE])
        yield [text[start:end], *(text[before[1] : after[1]] for before, after in following)]


def _any_beginning(pieces: Sequence[str]) -> Grammar:
    """No piece, the first, the first and the second, and so on: nested, so that the pattern holds each piece once."""
    grammar = Grammar.sequence([""])
    for piece in reversed(pieces):
        grammar = Grammar.any_of(["", Grammar.sequence([piece, grammar])])
    return grammar
