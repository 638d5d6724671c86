"""Byte-level BPE tokenizer: training, fast encoding, saving as ``tokenizer.json``.

The idea is in two other files: `split` cuts text into pieces, `merges` learns and applies merges inside a piece.
This class implements `core.protocols.Tokenizer` with them. There are two encoders: `encode_plainly` is the
readable definition; `encode` gives the same ids through tiktoken's Rust core.

Not handled here: normalisation (bytes stay what they are), and vocabularies that are not byte-level.
"""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import regex
import tiktoken

from underhood.core.errors import UserError
from underhood.core.text_files import mend_surrogates, read_text
from underhood.text.files import read_json, write_json
from underhood.text.merges import apply_merges, learn_merges
from underhood.text.split import PATTERNS, split
from underhood.text.token_table import TokenTable
from underhood.text.tokenizer_json import from_tokenizer_json, to_tokenizer_json
from underhood.text.vocabulary import BYTE_TO_CHARACTER, Vocabulary, check_special

DEFAULT_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
"""End of a document, start and end of a chat turn: the names that Qwen uses."""

LONG_RUN = 100_000  # spaces in a row; tiktoken's regex engine panics at about ten times as many
THREAD_WORTH = 100_000  # characters below which starting threads costs more than it saves


def train_bpe(
    texts: Iterable[str],
    *,
    vocab_size: int = 4096,
    special: Sequence[str] = DEFAULT_SPECIAL,
    min_frequency: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> BytePairTokenizer:
    """Learns a vocabulary from `texts`, which are read once (a generator will do).

    Ids: the 256 bytes (in GPT-2's order, so that a file looks as others expect), then the merges in the order in
    which they were learnt, then the special tokens. The result depends on the texts alone: see
    `merges.learn_merges` for how ties are broken.

    Args:
        vocab_size: ids in all, special tokens included. A small corpus may run out of pairs and give fewer.
        special: names of tokens that only code may insert.
        min_frequency: the least number of occurrences that earns a pair a token.
        progress: called now and then with merges done and merges wanted.

    Raises:
        UserError: `vocab_size` leaves no room for the bytes, the texts are empty, or a special name is unusable.
    """
    special = check_special(special)
    least = 256 + len(special)
    if vocab_size < least:
        needs = f"at least {least} (256 bytes and {len(special)} special tokens)"
        raise UserError("the vocabulary is too small", expected=needs, got=str(vocab_size))
    pieces: Counter[str] = Counter()
    for text in texts:
        pieces.update(split(mend_surrogates(text)))
    if not pieces:
        raise UserError("there is no text to train a tokenizer on")
    symbol = {byte: index for index, byte in enumerate(BYTE_TO_CHARACTER)}
    words = {tuple(symbol[byte] for byte in piece.encode()): number for piece, number in pieces.items()}
    learnt = learn_merges(words, vocab_size - least, min_frequency=min_frequency, progress=progress)

    tokens = [bytes([byte]) for byte in BYTE_TO_CHARACTER]
    merges: list[tuple[bytes, bytes]] = []
    for left, right in learnt:
        merges.append((tokens[left], tokens[right]))
        tokens.append(tokens[left] + tokens[right])
    ids = {token: id for id, token in enumerate(tokens)}
    named = {name: len(tokens) + index for index, name in enumerate(special)}
    return BytePairTokenizer(Vocabulary(ids=ids, merges=tuple(merges), special=named))


class BytePairTokenizer(TokenTable):
    """A byte-level BPE tokenizer; see `core.protocols.Tokenizer` for what every tokenizer promises.

    Any text survives the round trip, byte for byte. The one exception is not text: lone surrogates, which have no
    UTF-8 form, become U+FFFD (see `split.mend_surrogates`).
    """

    def __init__(self, vocabulary: Vocabulary):
        self.vocabulary = vocabulary
        self._bytes = [b""] * vocabulary.size
        for token, id in vocabulary.ids.items():
            self._bytes[id] = token
        for name, id in vocabulary.special.items():
            self._bytes[id] = name.encode()

    @property
    def special(self) -> Mapping[str, int]:
        return self.vocabulary.special

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BytePairTokenizer) and self.vocabulary == other.vocabulary

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<BytePairTokenizer of {self.vocab_size} ids, {len(self.special)} special>"

    # Encoding

    def encode_plainly(self, text: str) -> list[int]:
        """The ids of `text`, in plain Python: the definition that `encode` has to match. Slow (about 0.2 MB/s)."""
        ids: list[int] = []
        for piece in split(mend_surrogates(text), self.vocabulary.pattern):
            ids += apply_merges([self.vocabulary.ids[bytes([byte])] for byte in piece.encode()], self._ranks)
        return ids

    def encode(self, text: str) -> list[int]:
        """The ids of `text`. Never a special token: text that spells one is encoded like any other text."""
        if not self._merges_follow_bytes:
            return self.encode_plainly(text)
        if len(text) >= LONG_RUN and any(len(run[0]) >= LONG_RUN for run in regex.finditer(r"\s+", text)):
            pieces = split(mend_surrogates(text), self.vocabulary.pattern)
            ids = [id for piece in pieces for id in self._piece_encoder.encode_ordinary(piece)]
        else:
            ids = self._encoder.encode_ordinary(text)
        return ids if self._id_of_rank is None else [self._id_of_rank[rank] for rank in ids]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of many texts; large batches use all cores (tiktoken works outside Python's lock)."""
        threads = min(os.cpu_count() or 1, 8)
        if threads == 1 or len(texts) < 2 or sum(map(len, texts)) < THREAD_WORTH:
            return [self.encode(text) for text in texts]
        self.encode("")  # builds the encoder once, not in every thread
        size = max(1, -(-len(texts) // (threads * 8)))  # several shares per thread even out long documents
        shares = [texts[start : start + size] for start in range(0, len(texts), size)]
        with ThreadPoolExecutor(threads) as pool:
            return [ids for done in pool.map(lambda share: [*map(self.encode, share)], shares) for ids in done]

    # Files

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a Hugging Face ``tokenizer.json``; readers see the old file or the whole new one."""
        write_json(Path(path), to_tokenizer_json(self.vocabulary))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> BytePairTokenizer:
        """Reads a byte-level BPE from a ``tokenizer.json``.

        Raises:
            UserError: the file is missing, broken, or another kind of tokenizer; the message names it and says why.
        """
        return cls(from_tokenizer_json(read_json(Path(path)), str(path)))

    @classmethod
    def from_gpt2_files(
        cls, encoder_json: str | os.PathLike[str], vocab_bpe: str | os.PathLike[str]
    ) -> BytePairTokenizer:
        """GPT-2's published vocabulary: ``encoder.json`` (token → id) and ``vocab.bpe`` (merges, one per line)."""
        encoder = read_json(Path(encoder_json))
        lines = read_text(Path(vocab_bpe)).split("\n")
        merges = [line for line in lines if line and not line.startswith("#version")]
        special = [{"content": name, "id": encoder[name]} for name in DEFAULT_SPECIAL[:1] if name in encoder]
        byte_level = {"type": "ByteLevel", "add_prefix_space": False}
        content = {
            "added_tokens": special,
            "pre_tokenizer": byte_level,
            "model": {"type": "BPE", "vocab": encoder, "merges": merges},
        }
        return cls(from_tokenizer_json(content, f"{encoder_json} with {vocab_bpe}"))

    # What encoding needs, made on first use

    @functools.cached_property
    def _ranks(self) -> dict[tuple[int, int], tuple[int, int]]:
        return self.vocabulary.ranks()

    @functools.cached_property
    def _tiktoken_ranks(self) -> dict[bytes, int]:
        """tiktoken's numbering: the single bytes first, then the merges in order; its ids double as priorities."""
        single = sorted((bytes([byte]) for byte in range(256)), key=self.vocabulary.ids.__getitem__)
        merged = (left + right for left, right in self.vocabulary.merges)
        return {token: rank for rank, token in enumerate([*single, *merged])}

    @functools.cached_property
    def _id_of_rank(self) -> list[int] | None:
        """Our id for each of tiktoken's; None where they are the same, as in what we train and in GPT-2."""
        ids = [self.vocabulary.ids[token] for token in self._tiktoken_ranks]
        return None if ids == list(range(len(ids))) else ids

    @functools.cached_property
    def _merges_follow_bytes(self) -> bool:
        """Whether tiktoken's rule gives our ids.

        tiktoken merges any neighbours whose joined bytes are a token; BPE merges only pairs that were learnt. Both do
        the same steps if each token's own bytes encode to that token: then the bytes of a token, wherever they are
        between token edges, have been merged in the one way that makes it. Training guarantees this; a file that was
        edited by hand may not.
        """
        if len(self._tiktoken_ranks) != 256 + len(self.vocabulary.merges):
            return False  # two merges make the same bytes
        ids, ranks = self.vocabulary.ids, self._ranks
        single = [ids[bytes([byte])] for byte in range(256)]
        return all(
            apply_merges([single[byte] for byte in left + right], ranks) == [ids[left + right]]
            for left, right in self.vocabulary.merges
        )

    @functools.cached_property
    def _encoder(self) -> tiktoken.Encoding:
        return self._make_encoder(PATTERNS[self.vocabulary.pattern])

    @functools.cached_property
    def _piece_encoder(self) -> tiktoken.Encoding:
        """Takes whatever it is given as one piece, for text that has been cut already."""
        return self._make_encoder(r"[\s\S]+")

    def _make_encoder(self, pattern: str) -> tiktoken.Encoding:
        return tiktoken.Encoding("underhood", pat_str=pattern, mergeable_ranks=self._tiktoken_ranks, special_tokens={})
