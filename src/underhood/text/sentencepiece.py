"""SentencePiece tokenizer: normalization, unigram or BPE segmentation, byte fallback.

What the two algorithms do is in `unigram` and `scored_merges`; what happens to the text before is in `normalize`.
Unlike byte-level BPE, a model may change the text (``ﬁ`` becomes ``fi``, runs of spaces one), and one without byte
pieces cannot spell everything: then `decode` does not give the text back.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from underhood.core.errors import UserError
from underhood.core.text_files import mend_surrogates
from underhood.text.normalize import SPACE, Normalizer, PrefixMatcher
from underhood.text.scored_merges import ScoredMerger
from underhood.text.sentencepiece_model import Kind, SentencePieceModel, read_model
from underhood.text.settings import TokenizerSettings
from underhood.text.token_table import TokenTable
from underhood.text.unigram import UnigramSegmenter


class SentencePieceTokenizer(TokenTable):
    """A ``tokenizer.model`` of Llama, Mistral, Gemma, T5 … Implements `core.protocols.Tokenizer`.

    `special` holds the control pieces, the unknown one, and whatever pieces the settings call special. `encode` gives
    none of them but the unknown one, and that only for a character that the model cannot spell.

    Args:
        settings: what the files beside it say; see `settings.read_settings`.
    """

    def __init__(self, model: SentencePieceModel, settings: TokenizerSettings | None = None):
        settings = settings or TokenizerSettings()
        self.model = model
        of_kind = {kind: [piece for piece in model.pieces if piece.kind is kind] for kind in Kind}
        ids = {piece.text: id for id, piece in reversed(list(enumerate(model.pieces)))}
        named = {piece.text: ids[piece.text] for kind in (Kind.UNKNOWN, Kind.CONTROL) for piece in of_kind[kind]}
        named |= {name: ids[name] for name in settings.special_names if name in ids}
        size = len(model.pieces)
        for token in settings.added_tokens:  # behind the model's own, as chat models add them
            if token.special and token.content not in ids and token.id >= len(model.pieces):
                named[token.content] = token.id
                size = max(size, token.id + 1)
        self._special = dict(sorted(named.items(), key=lambda item: item[1]))
        self._unknown = ids[of_kind[Kind.UNKNOWN][0].text]
        self._byte_ids: list[int] | None = None
        if model.byte_fallback:
            spelled = [f"<0x{byte:02X}>" for byte in range(256)]
            missing = [piece for piece in spelled if piece not in ids]
            if missing:
                raise UserError("the SentencePiece model promises byte pieces and lacks some", got=f"no {missing[0]}")
            self._byte_ids = [ids[piece] for piece in spelled]
        usable = [
            piece
            for kind in (Kind.NORMAL, Kind.USER_DEFINED, Kind.UNUSED)
            for piece in of_kind[kind]
            if piece.text not in named
        ]
        self._ids = {piece.text: ids[piece.text] for piece in usable}
        always = frozenset(piece.text for piece in usable if piece.kind is Kind.USER_DEFINED)
        unused = frozenset(piece.text for piece in usable if piece.kind is Kind.UNUSED)
        kept = PrefixMatcher(sorted(always))
        self._normalize = Normalizer(model, kept)
        self._cut: UnigramSegmenter | ScoredMerger
        if model.algorithm == "unigram":
            scores = {piece.text: piece.score for piece in usable if piece.kind is not Kind.UNUSED}
            self._cut = UnigramSegmenter(scores, always)
        else:
            self._cut = ScoredMerger({piece.text: piece.score for piece in usable}, kept, unused)
        self._bytes = [self._piece_bytes(id) for id in range(size)]
        self._legacy = settings.legacy
        self.stripping = frozenset(token.id for token in settings.added_tokens if token.rstrip)
        self.bos_id = self._role(settings.bos, "<s>", "<bos>")
        self.eos_id = self._role(settings.eos, "</s>", "<eos>")
        self.pad_id = self._role(settings.pad, "<pad>")
        opens = settings.add_bos if settings.add_bos is not None else model.byte_fallback  # Llama's family; T5 has none
        self.prefix_ids: tuple[int, ...] = (self.bos_id,) if opens and self.bos_id is not None else ()

    @property
    def special(self) -> Mapping[str, int]:
        return self._special

    def __repr__(self) -> str:
        return f"<SentencePieceTokenizer ({self.model.algorithm}) of {self.vocab_size} ids>"

    # Encoding

    def encode(self, text: str) -> list[int]:
        """The ids of `text`; the same as the SentencePiece library gives."""
        return self._encode_normal(self._normalize(mend_surrogates(text)))

    def encode_parts(self, parts: Sequence[str | int]) -> list[int]:
        """The ids of a text in which special tokens are given as ids: ``[1, "[INST] Hi [/INST]"]``.

        Only a text at the very beginning gets the space that the model puts in front. Where the settings say
        ``legacy: true``, as those of the first Mistral do, every text behind a special token gets one too.
        """
        ids: list[int] = []
        first = True
        for piece in parts:
            if isinstance(piece, int):
                ids.append(piece)
            elif text := piece.lstrip() if ids and ids[-1] in self.stripping else piece:
                normal = self._normalize(mend_surrogates(text))
                prefixed = self.model.add_dummy_prefix and not self.model.space_at_the_end
                if prefixed and not self._legacy and not first:
                    normal = normal.removeprefix(SPACE if self.model.escape_whitespaces else " ")
                ids += self._encode_normal(normal)
            first = False
        return ids

    def _encode_normal(self, normal: str) -> list[int]:
        ids: list[int] = []
        unknown_before = False
        for piece in self._cut(normal):
            id = self._ids.get(piece)
            if id is not None:
                ids.append(id)
            elif self._byte_ids is not None:
                ids += [self._byte_ids[byte] for byte in piece.encode()]
            elif not unknown_before:  # neighbouring unknown characters are one unknown token
                ids.append(self._unknown)
            unknown_before = id is None
        return ids

    # Decoding

    def decode(self, ids: Sequence[int]) -> str:
        """The text of the ids, special tokens spelled out; bytes that are not UTF-8 become U+FFFD.

        The space that `encode` puts in front of a text is dropped again; `decode_bytes`, which cannot know where a
        text begins, keeps it.
        """
        self.decode_bytes(ids)  # checks them
        pieces = [self._bytes[id] for id in ids]
        at_start = self.model.add_dummy_prefix or self.model.remove_extra_whitespaces
        for index, id in enumerate(ids):
            if not at_start:
                break
            if self._is_special(id) and id != self._unknown:
                continue
            spaced = id != self._unknown and pieces[index].startswith(b" ")
            if spaced:
                pieces[index] = pieces[index][1:]
            # Where the model removes further spaces, so does the library: one for each piece until something is left.
            at_start = not pieces[index] and (self.model.remove_extra_whitespaces or not spaced)
        return b"".join(pieces).decode("utf-8", errors="replace")

    def token(self, id: int) -> str:
        """How the vocabulary itself writes the token, e.g. ``▁the``."""
        self.decode_bytes([id])
        return self.model.pieces[id].text if id < len(self.model.pieces) else self._bytes[id].decode()

    @classmethod
    def load(cls, path: str | os.PathLike[str], settings: TokenizerSettings | None = None) -> SentencePieceTokenizer:
        """Reads a ``.model`` file.

        Raises:
            UserError: the file is missing, damaged or of another kind; the message names it.
        """
        try:
            return cls(read_model(Path(path)), settings)
        except ValueError as error:
            raise UserError(f"{path} is damaged: {error}") from error

    def _is_special(self, id: int) -> bool:
        return id >= len(self.model.pieces) or self.model.pieces[id].text in self._special

    def _role(self, *names: str | None) -> int | None:
        return next((self._special[name] for name in names if name in self._special), None)

    def _piece_bytes(self, id: int) -> bytes:
        if id >= len(self.model.pieces):
            return next((name.encode() for name, known in self._special.items() if known == id), b"")
        piece = self.model.pieces[id]
        if piece.kind is Kind.BYTE and re.fullmatch("<0x[0-9A-F]{2}>", piece.text):
            return bytes([int(piece.text[3:5], 16)])
        if piece.kind is Kind.UNKNOWN:
            return self.model.unknown_text.encode()
        if piece.text in self._special:
            return piece.text.encode()
        return piece.text.replace(SPACE, " ").encode()
