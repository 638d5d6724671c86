"""Hugging Face's ``tokenizer.json`` format for our byte-level BPE, so that `transformers` loads our vocabularies.

The format describes a pipeline (normaliser → pre-tokeniser → model → decoder). Byte-level BPE as built here is one
point in that space, and only that point is read back: a step that we would have to ignore would change ids silently.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from underhood.core.errors import UserError
from underhood.text.split import PATTERNS
from underhood.text.vocabulary import Vocabulary, spell, unspell

Json = dict[str, Any]

BYTE_LEVEL: Json = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
"""The step between text and GPT-2's byte alphabet, as the last pre-tokeniser and as the decoder."""


class AddedEntry(NamedTuple):
    """An entry of ``added_tokens``, which text is split at before all else."""

    id: int
    content: str
    special: bool

    def as_json(self) -> Json:
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        return {"id": self.id, "content": self.content} | flags | {"special": self.special}


class OtherKind(UserError):
    """The file is in order as far as one can see, but it is not a byte-level BPE of our form."""


def to_tokenizer_json(vocabulary: Vocabulary) -> Json:
    """The vocabulary as the content of a ``tokenizer.json``."""
    cut = {
        "type": "Split",
        "pattern": {"Regex": PATTERNS[vocabulary.pattern]},
        "behavior": "Isolated",
        "invert": False,
    }
    special = sorted(vocabulary.special.items(), key=lambda item: item[1])
    tokens = {spell(token): id for token, id in vocabulary.ids.items()}
    # Readers give added tokens that the model does not know the next free ids; that is right only behind the model's.
    behind = not special or special[0][1] == len(tokens)
    if not behind:
        tokens |= dict(special)
    return byte_level_json(
        vocab=dict(sorted(tokens.items(), key=lambda item: item[1])),
        # "left right" in one string: what every version of every reader understands.
        merges=[f"{spell(left)} {spell(right)}" for left, right in vocabulary.merges],
        added=[AddedEntry(id, name, special=True) for name, id in special],
        pre_tokenizer={"type": "Sequence", "pretokenizers": [cut, BYTE_LEVEL]},
    )


def byte_level_json(
    *,
    vocab: Mapping[str, int],
    merges: Sequence[str],
    added: Iterable[AddedEntry],
    pre_tokenizer: Json,
    ignore_merges: bool = False,
) -> Json:
    """The content of a ``tokenizer.json`` with a byte-level BPE.

    Args:
        vocab, merges: tokens in GPT-2's byte alphabet; a merge is two of them with a space between.
        pre_tokenizer: splits text into words and ends in `BYTE_LEVEL`.
        ignore_merges: a word that is a token is not built up by merges.
    """
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [entry.as_json() for entry in added],
        "normalizer": None,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": None,
        "decoder": BYTE_LEVEL,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": ignore_merges,
            "vocab": dict(vocab),
            "merges": list(merges),
        },
    }


def from_tokenizer_json(data: Any, where: str) -> Vocabulary:
    """The vocabulary that the content of a ``tokenizer.json`` describes.

    Args:
        where: how errors call the file.

    Raises:
        UserError: the content is not a byte-level BPE of the kind that `to_tokenizer_json` writes, or is damaged.
    """
    if not isinstance(data, dict) or not isinstance(data.get("model"), dict):
        raise UserError(f"{where} is not a tokenizer.json: it has no 'model'")
    model = data["model"]
    # Older files name no type; a model with merges is BPE.
    kind = model.get("type", "BPE" if "merges" in model else None)
    if kind != "BPE":
        raise OtherKind(f"{where} holds another kind of tokenizer", expected="a byte-level BPE", got=repr(kind))
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback", "ignore_merges"):
        if model.get(key):
            raise OtherKind(f"{where}: model.{key} = {model[key]!r} is not supported", expected="a byte-level BPE")
    if data.get("normalizer") is not None:
        got = _kind(data["normalizer"])
        raise OtherKind(f"{where}: text would be changed before it is encoded", expected="no normalizer", got=got)
    if data.get("post_processor") is not None and _kind(data["post_processor"]) != "ByteLevel":
        got = _kind(data["post_processor"])
        raise OtherKind(f"{where}: tokens would be added to each text", expected="no post_processor", got=got)
    pattern = _pattern(data.get("pre_tokenizer"), where)
    special = _special(data.get("added_tokens"), where)
    tokens, merges = model.get("vocab"), model.get("merges")
    if not isinstance(tokens, dict) or not all(_is_id(id) for id in tokens.values()):
        raise UserError(f"{where}: model.vocab is broken", expected="a table from token to id")
    if not isinstance(merges, list):
        raise UserError(f"{where}: model.merges is broken", expected="a list of pairs")
    for name, id in special.items():
        if tokens.get(name, id) != id:
            raise UserError(f"{where}: special token {name!r} has two ids", got=f"{tokens[name]} and {id}")
    try:
        ids = {_unspell(token, where): id for token, id in tokens.items() if token not in special}
        pairs = tuple(_merge(merge, number, where) for number, merge in enumerate(merges))
        return Vocabulary(ids=ids, merges=pairs, special=special, pattern=pattern)
    except UserError as error:
        if error.what.startswith(where):
            raise
        raise UserError(f"{where}: {error.what}", expected=error.expected, got=error.got, fix=error.fix) from error


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _kind(step: Any) -> str:
    return str(step.get("type")) if isinstance(step, dict) else repr(step)


def _pattern(step: Any, where: str) -> str:
    """The name of the split pattern that the pre-tokeniser applies."""
    steps = step.get("pretokenizers") if _kind(step) == "Sequence" else [step]
    if not isinstance(steps, list) or not steps or _kind(steps[-1]) != "ByteLevel" or len(steps) > 2:
        got = " then ".join(map(_kind, steps)) if isinstance(steps, list) else _kind(step)
        raise OtherKind(f"{where}: unsupported pre_tokenizer", expected="Split then ByteLevel", got=got)
    byte_level = steps[-1]
    if byte_level.get("add_prefix_space", True):
        raise OtherKind(f"{where}: add_prefix_space is not supported: text must come back as it was")
    if len(steps) == 1:
        if not byte_level.get("use_regex", True):
            raise OtherKind(
                f"{where}: unsupported pre_tokenizer", expected="Split then ByteLevel", got="no split at all"
            )
        return "gpt2"  # ByteLevel's own regular expression
    cut = steps[0]
    expression = cut.get("pattern", {}).get("Regex") if isinstance(cut.get("pattern"), dict) else None
    name = next((name for name, known in PATTERNS.items() if known == expression), None)
    exact = cut.get("behavior") == "Isolated" and not cut.get("invert", False) and not byte_level.get("use_regex", True)
    if _kind(cut) != "Split" or name is None or not exact:
        known = "the split pattern of " + ", ".join(PATTERNS)
        raise OtherKind(f"{where}: unknown split pattern", expected=known, got=repr(expression))
    return name


def _special(added: Any, where: str) -> dict[str, int]:
    special: dict[str, int] = {}
    for token in added or []:
        if not isinstance(token, dict) or not isinstance(token.get("content"), str) or not _is_id(token.get("id")):
            raise UserError(f"{where}: added_tokens is broken", expected="content and id", got=repr(token))
        if token["content"] in special:
            raise UserError(f"{where}: added token {token['content']!r} appears twice")
        special[token["content"]] = token["id"]
    return special


def _unspell(token: Any, where: str) -> bytes:
    try:
        return unspell(token)
    except (KeyError, TypeError):
        got = f"token {token!r}"
        raise UserError(f"{where} is not byte-level", expected="tokens in GPT-2's byte alphabet", got=got) from None


def _merge(merge: Any, number: int, where: str) -> tuple[bytes, bytes]:
    parts = merge.split(" ") if isinstance(merge, str) else merge
    if not isinstance(parts, list) or len(parts) != 2:
        raise UserError(f"{where}: merge {number} is broken", expected="two tokens", got=repr(merge))
    return _unspell(parts[0], where), _unspell(parts[1], where)
