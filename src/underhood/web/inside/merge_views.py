"""The panel of merges: how byte-pair encoding makes a prompt's tokens of its bytes, merge by merge."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from typing import Any

import torch

from underhood.core.errors import UserError
from underhood.core.text_files import mend_surrogates
from underhood.text.bpe import BytePairTokenizer
from underhood.text.huggingface import HuggingFaceTokenizer
from underhood.text.split import split
from underhood.text.vocabulary import CHARACTER_TO_BYTE, spell, unspell
from underhood.ui.visible_bytes import visible
from underhood.web.inside.packing import Payload, whole
from underhood.web.inside.subjects import Subject

STEPS_MAX = 2_000
Ranks = Mapping[tuple[str, str], int]
Words = list[list[str]]


def merges(subject: Subject) -> Payload:
    """Every merge of the prompt, in the order of the tokenizer's list; symbols are spelt as in its file.

    Raises:
        UserError: the tokenizer is not a byte-level BPE, or cuts this text in another way as well.
    """
    text = mend_surrogates(subject.prompt)
    words, ranks = _start(subject.loaded.tokenizer, text)
    lengths, counts, steps = [*_lengths(words)], [sum(map(len, words))], []
    while len(steps) < STEPS_MAX:
        possible = [(ranks[pair], pair) for word in words for pair in itertools.pairwise(word) if pair in ranks]
        if not possible:
            break
        rank, pair = min(possible)
        words = [_merged(word, pair) for word in words]
        left, right = (visible(unspell(symbol)) for symbol in pair)
        steps.append({"rank": rank, "left": left, "right": right})
        counts.append(sum(map(len, words)))
        lengths += _lengths(words)
    tokenizer = subject.loaded.tokenizer
    tokens = [tokenizer.decode_bytes([id]) for id in tokenizer.encode(text)]
    if tokens != [unspell(symbol) for word in words for symbol in word]:
        raise UserError("this tokenizer does more than merge the pairs of its list")
    data = list(b"".join(unspell(symbol) for word in words for symbol in word))
    return Payload({"steps": steps, "counts": counts, "text": data}, {"lengths": whole(torch.tensor(lengths))})


def _start(tokenizer: Any, text: str) -> tuple[Words, Ranks]:
    """The text's words, each spelt byte by byte, and when each pair of symbols is merged."""
    if isinstance(tokenizer, BytePairTokenizer):
        vocabulary = tokenizer.vocabulary
        ranks = {(spell(left), spell(right)): rank for rank, (left, right) in enumerate(vocabulary.merges)}
        return [list(spell(piece.encode())) for piece in split(text, vocabulary.pattern)], ranks
    content: dict[str, Any] = tokenizer.content() if isinstance(tokenizer, HuggingFaceTokenizer) else {}
    model = content.get("model", {})
    if model.get("type") == "BPE" and not model.get("byte_fallback") and content.get("pre_tokenizer"):
        from tokenizers import Tokenizer

        library = Tokenizer.from_str(json.dumps(content))
        if library.pre_tokenizer is not None:
            words = [list(piece) for piece, _ in library.pre_tokenizer.pre_tokenize_str(text)]
            pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
            if all(symbol in CHARACTER_TO_BYTE for word in words for symbol in word):
                return words, {(left, right): rank for rank, (left, right) in enumerate(pairs)}
    raise UserError("this model's tokenizer has no list of merges of bytes", expected="a byte-level BPE tokenizer")


def _merged(word: list[str], pair: tuple[str, str]) -> list[str]:
    """A word with every occurrence of a pair joined, from the left."""
    joined: list[str] = []
    for symbol in word:
        if joined and (joined[-1], symbol) == pair:
            joined[-1] += symbol
        else:
            joined.append(symbol)
    return joined


def _lengths(words: Words) -> list[int]:
    """How many bytes each symbol has; in their spelling a byte is a character."""
    return [len(symbol) for word in words for symbol in word]
