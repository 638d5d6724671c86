"""Pre-tokenization: splitting text into pieces by a regular expression; no token crosses a piece's edge.

Without the cut, frequent pairs such as ``. T`` or ``dog!`` would become tokens and the same word would have a dozen
spellings (Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.2). Three published
patterns are known by name, because Hugging Face and llama.cpp implement exactly these.

Unicode grows: each year's tables turn unassigned code points into letters. The libraries that must agree here (the
`regex` package, tiktoken's Rust, Hugging Face's Oniguruma) follow at their own pace, so `split` settles the few
disputed code points by tiktoken's tables. They are code points that hardly any text holds yet.
"""

from __future__ import annotations

import functools

import regex
import tiktoken

PATTERNS = {
    "qwen2": (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
    "llama3": (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
    "gpt2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
}
"""Every character of any text belongs to exactly one match of each of these, so joining the pieces gives the text."""

LETTER, NUMBER, OTHER = "\u4e00", "\u3007", "\uffff"  # characters whose class every version of Unicode agrees on


def split(text: str, pattern: str = "qwen2") -> list[str]:
    """The pieces of `text`, in order; ``"".join`` gives the text back.

    Args:
        text: valid Unicode (see `core.text_files.mend_surrogates`).
        pattern: a key of `PATTERNS`.
    """
    compiled = regex.compile(PATTERNS[pattern])
    disputed = {} if text.isascii() else {ord(char): _stand_in(char) for char in set(text) if _is_disputed(char)}
    if not disputed:
        return compiled.findall(text)
    return [text[slice(*match.span())] for match in compiled.finditer(text.translate(disputed))]


def _class_by_regex(char: str) -> str:
    return LETTER if regex.match(r"\p{L}", char) else NUMBER if regex.match(r"\p{N}", char) else OTHER


@functools.cache
def _tiktoken_class(pattern: str) -> tiktoken.Encoding:
    # tiktoken encodes what its pattern matches and passes over the rest: an encoder with the pattern \p{L} answers
    # a lone character with no ids at all unless its tables call it a letter.
    every_byte = {bytes([byte]): byte for byte in range(256)}
    return tiktoken.Encoding("probe", pat_str=pattern, mergeable_ranks=every_byte, special_tokens={})


@functools.cache
def _stand_in(char: str) -> str:
    """A character that `regex` puts into the class that tiktoken's tables give to `char`."""
    if _tiktoken_class(r"\p{L}").encode_ordinary(char):
        return LETTER
    return NUMBER if _tiktoken_class(r"\p{N}").encode_ordinary(char) else OTHER


@functools.cache
def _is_disputed(char: str) -> bool:
    return not char.isascii() and _stand_in(char) != _class_by_regex(char)
