"""Tokenizer for any published ``tokenizer.json``, on Hugging Face's `tokenizers` library.

The format describes a pipeline (added tokens → normaliser → pre-tokeniser → model → decoder) with hundreds of
combinations in the wild. Ids must be those the model was trained with, so the pipeline runs in the library that
defines it. One thing has to change first: there, text that spells a special token becomes that token. Its switch
against this (``encode_special_tokens``) only stops the search for added tokens; a Unigram model whose vocabulary holds
``</s>`` still finds it. So here the special tokens are given unguessable spellings, in the added tokens and in the
model's vocabulary alike: text cannot spell them, and `HuggingFaceTokenizer.encode_parts` can.
"""

from __future__ import annotations

import copy
import json
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers

from underhood.core.errors import UserError
from underhood.core.text_files import mend_surrogates
from underhood.text.files import read_json
from underhood.text.settings import AddedToken, TokenizerSettings
from underhood.text.token_table import TokenTable
from underhood.text.vocabulary import CHARACTER_TO_BYTE

Json = dict[str, Any]


class HuggingFaceTokenizer(TokenTable):
    """A tokenizer of any kind that a ``tokenizer.json`` can describe. Implements `core.protocols.Tokenizer`.

    What `special` holds: the file's added tokens that are marked special, and whatever the settings beside it name as
    such. Added tokens that are not special (``<think>``, runs of spaces) are ordinary vocabulary: text may spell them.
    A vocabulary without bytes has an id for what it does not know (``<unk>``); that one `encode` may give.

    Args:
        data: the content of a ``tokenizer.json``.
        settings: what the files beside it say; see `settings.read_settings`.
        where: how errors call the file.

    Raises:
        UserError: the library cannot read it, or the settings contradict it.
    """

    def __init__(self, data: Any, settings: TokenizerSettings | None = None, *, where: str = "tokenizer.json"):
        settings = settings or TokenizerSettings()
        if not isinstance(data, dict) or not isinstance(data.get("model"), dict):
            raise UserError(f"{where} is not a tokenizer.json: it has no 'model'")
        # Cutting, padding and dropout are for training batches elsewhere: a tokenizer here gives all ids of a text.
        data = data | {"truncation": None, "padding": None, "model": data["model"] | {"dropout": None}}
        data["added_tokens"] = _all_added(data, settings, where)
        self._library = _parse(data, where)
        for token in data["added_tokens"]:
            if self._library.token_to_id(token["content"]) != token["id"]:
                got = f"{token['id']} and {self._library.token_to_id(token['content'])}"
                raise UserError(f"{where}: added token {token['content']!r} has two ids", got=got)
        named = {token["content"]: token["id"] for token in data["added_tokens"] if token.get("special", True)}
        for name in settings.special_names:
            if (id := self._library.token_to_id(name)) is not None:
                named[name] = id
        self._special = dict(sorted(named.items(), key=lambda item: item[1]))
        unguessable = secrets.token_hex(8)
        self._spelling = {id: f"\ufdd0{unguessable}-{id}\ufdd1" for id in self._special.values()}
        self._safe = _parse(_renamed(data, {name: self._spelling[id] for name, id in named.items()}), where)
        vocabulary = self._library.get_vocab(with_added_tokens=True)
        added = {token["id"] for token in data["added_tokens"]}
        to_bytes = _bytes_of(data.get("decoder"))
        self._bytes = [b""] * (max(vocabulary.values(), default=-1) + 1)
        for token, id in vocabulary.items():
            self._bytes[id] = token.encode() if id in added else to_bytes(token)
        self._byte_level = _kind(data.get("decoder")) == "ByteLevel"
        self.bos_id = self._id_of(settings.bos)
        self.eos_id = self._id_of(settings.eos)
        self.pad_id = self._id_of(settings.pad)
        self.prefix_ids, self.suffix_ids = self._around(settings)

    @property
    def special(self) -> Mapping[str, int]:
        return self._special

    def __repr__(self) -> str:
        kind = type(self._library.model).__name__
        return f"<HuggingFaceTokenizer ({kind}) of {self.vocab_size} ids, {len(self.special)} special>"

    # Encoding

    def encode(self, text: str) -> list[int]:
        """The ids of `text`, without anything added; text that spells a special token stays text."""
        return self._safe.encode(mend_surrogates(text), add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        encodings = self._safe.encode_batch_fast([mend_surrogates(text) for text in texts], add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def encode_parts(self, parts: Sequence[str | int]) -> list[int]:
        """The ids of a text in which special tokens are given as ids: ``["Hi", 2, "\\n"]``.

        The same as the library gives for the joined text, its rules about spaces around special tokens included.
        """
        joined = "".join(piece if isinstance(piece, str) else self._spelling[piece] for piece in parts)
        return self._safe.encode(mend_surrogates(joined), add_special_tokens=False).ids

    # Decoding

    def decode(self, ids: Sequence[int]) -> str:
        """The text of the ids, special tokens spelled out, as the library gives it.

        Vocabularies that mark the beginning of words (``▁the``) put a space in front of a text when they encode it;
        for those this drops it again, and `decode_bytes`, which cannot know where a text begins, does not.
        """
        decoded = super().decode(ids)
        return decoded if self._byte_level else self._library.decode(list(ids), skip_special_tokens=False)

    def token(self, id: int) -> str:
        """How the vocabulary itself writes the token, e.g. ``▁the`` or ``Ġthe``."""
        self.decode_bytes([id])  # checks it
        return self._library.id_to_token(id) or ""

    def content(self) -> Json:
        """The content of its ``tokenizer.json``."""
        return json.loads(self._library.to_str())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the ``tokenizer.json``; readers see the old file or the whole new one."""
        from underhood.core.files import write_text

        write_text(Path(path), self._library.to_str(pretty=True) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str], settings: TokenizerSettings | None = None) -> HuggingFaceTokenizer:
        """Reads a ``tokenizer.json`` of any kind.

        Raises:
            UserError: the file is missing or broken; the message names it.
        """
        return cls(read_json(Path(path)), settings, where=str(path))

    def _id_of(self, name: str | None) -> int | None:
        return None if name is None else self._library.token_to_id(name)

    def _around(self, settings: TokenizerSettings) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """What the file's post-processor, or the settings, put in front of and behind a text."""
        bare = self._library.encode("a", add_special_tokens=False).ids
        full = self._library.encode("a", add_special_tokens=True).ids
        starts = [at for at in range(len(full) - len(bare) + 1) if full[at : at + len(bare)] == bare]
        at = starts[0] if bare and starts else 0
        prefix, suffix = tuple(full[:at]), tuple(full[at + len(bare) :])
        if settings.add_bos is not None and self.bos_id is not None:
            prefix = (self.bos_id,) if settings.add_bos else tuple(id for id in prefix if id != self.bos_id)
        return prefix, suffix


def _parse(data: Json, where: str) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_str(json.dumps(data))
    except BaseException as error:  # the library's panics are not Exceptions
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise UserError(f"{where} is not a tokenizer that the tokenizers library reads: {error}") from error


def _all_added(data: Json, settings: TokenizerSettings, where: str) -> list[Json]:
    """The file's added tokens and those that only the settings beside it know, by id."""
    added = data.get("added_tokens") or []
    for token in added:
        if not isinstance(token, dict) or not isinstance(token.get("content"), str) or type(token.get("id")) is not int:
            raise UserError(f"{where}: added_tokens is broken", expected="content and id", got=repr(token))
    names = {token["content"] for token in added}
    missing = [_added_json(token) for token in settings.added_tokens if token.content not in names]
    return sorted([*added, *missing], key=lambda token: token["id"])


def _added_json(token: AddedToken) -> Json:
    flags = {"single_word": token.single_word, "lstrip": token.lstrip, "rstrip": token.rstrip}
    return {"id": token.id, "content": token.content} | flags | {"normalized": False, "special": token.special}


def _renamed(data: Json, spelling: Mapping[str, str]) -> Json:
    """The pipeline with other spellings for the special tokens, and without what comes after encoding."""
    data = copy.copy(data) | {"post_processor": None, "decoder": None}
    model: Json = dict(data["model"])
    vocabulary = model.get("vocab")
    if isinstance(vocabulary, dict):
        model["vocab"] = {spelling.get(token, token): id for token, id in vocabulary.items()}
    elif isinstance(vocabulary, list):
        model["vocab"] = [[spelling.get(entry[0], entry[0]), *entry[1:]] for entry in vocabulary]
    if model.get("unk_token") in spelling:
        model["unk_token"] = spelling[model["unk_token"]]
    if model.get("merges"):  # a merge that makes a special token would make it from text
        pairs = [(tuple(merge.split(" ", 1)) if isinstance(merge, str) else merge, merge) for merge in model["merges"]]
        model["merges"] = [
            merge for pair, merge in pairs if "".join(pair) not in spelling and not spelling.keys() & set(pair)
        ]
    data["model"] = model
    # Special tokens are looked for in the text as it is: normalising their spelling, as the oldest conversions of
    # Llama ask for, would keep them from being found behind another character.
    data["added_tokens"] = [
        token | {"content": spelling[token["content"]], "normalized": False, "special": True}
        if token["content"] in spelling
        else token
        for token in data["added_tokens"]
    ]
    known = {token["content"] for token in data["added_tokens"]}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    ids = _ids(data["model"].get("vocab"))
    # Special by the settings alone: part of the model's vocabulary, so the file did not list them as added.
    data["added_tokens"] += [
        {"id": ids[name], "content": name} | flags for name in spelling.values() if name in ids and name not in known
    ]
    data["added_tokens"].sort(key=lambda token: token["id"])
    return data


def _ids(vocabulary: Any) -> dict[str, int]:
    if isinstance(vocabulary, dict):
        return vocabulary
    return {entry[0]: id for id, entry in enumerate(vocabulary or [])}


def _kind(step: Any) -> str | None:
    return step.get("type") if isinstance(step, dict) else None


def _bytes_of(decoder: Any) -> Callable[[str], bytes]:
    """How a decoder turns a token in the middle of a text into bytes."""
    kind = _kind(decoder)
    steps = decoder.get("decoders", []) if kind == "Sequence" else [decoder] if kind else []
    kinds = [_kind(step) for step in steps]
    if "ByteLevel" in kinds:
        return _byte_level

    def to_bytes(token: str) -> bytes:
        for step, name in zip(steps, kinds, strict=True):
            if name == "ByteFallback" and len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
                try:
                    return bytes([int(token[3:5], 16)])
                except ValueError:
                    continue
            if name == "Replace" and "String" in step.get("pattern", {}):
                token = token.replace(step["pattern"]["String"], step.get("content", ""))
            elif name == "Metaspace":
                token = token.replace(step.get("replacement", "▁"), " ")
            elif name == "BPEDecoder":
                token = token.replace(step.get("suffix", "</w>"), " ")
            elif name == "WordPiece":
                prefix = step.get("prefix", "##")
                token = token[len(prefix) :] if token.startswith(prefix) else " " + token
        return token.encode() if steps else b" " + token.encode()  # without a decoder the library joins with spaces

    return to_bytes


def _byte_level(token: str) -> bytes:
    try:
        return bytes(CHARACTER_TO_BYTE[character] for character in token)
    except KeyError:
        return token.encode()
