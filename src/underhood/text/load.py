"""Loading a tokenizer, its special-token settings and chat template, ours or a published model's."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from underhood.core.errors import UserError
from underhood.core.protocols import Tokenizer
from underhood.text.bpe import BytePairTokenizer
from underhood.text.characters import CharacterTokenizer
from underhood.text.chat import CHATML, Template
from underhood.text.files import read_json
from underhood.text.hf_chat_template import ForeignTemplate
from underhood.text.huggingface import HuggingFaceTokenizer
from underhood.text.sentencepiece import SentencePieceTokenizer
from underhood.text.settings import SpecialTokenIds, TokenizerSettings, read_settings
from underhood.text.tokenizer_json import OtherKind, from_tokenizer_json

AnyTokenizer = BytePairTokenizer | CharacterTokenizer | HuggingFaceTokenizer | SentencePieceTokenizer

SENTENCEPIECE_FILES = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model.v3")
GPT2_FILES = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))


def load_tokenizer(path: str | os.PathLike[str]) -> AnyTokenizer:
    """The tokenizer at `path`: a file, or the folder of a run or a model.

    A folder's ``tokenizer.json`` goes before a SentencePiece ``tokenizer.model``, that before GPT-2's ``vocab.json``
    and ``merges.txt``: the order in which transformers looks, which decides where a folder holds several.

    Raises:
        UserError: nothing is there, or the file is broken.
    """
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    if not path.is_dir():
        if path.suffix == ".model":
            return SentencePieceTokenizer.load(path, read_settings(folder))
        return _from_json(path)
    if (path / "tokenizer.json").exists():
        return _from_json(path / "tokenizer.json")
    for name in SENTENCEPIECE_FILES:
        if (path / name).exists():
            return SentencePieceTokenizer.load(path / name, read_settings(path))
    for vocabulary, merges in GPT2_FILES:
        if (path / vocabulary).exists() and (path / merges).exists():
            return BytePairTokenizer.from_gpt2_files(path / vocabulary, path / merges)
    raise UserError(
        f"cannot read {path / 'tokenizer.json'}: No such file",
        expected="a tokenizer.json, a tokenizer.model, or vocab.json with merges.txt",
    )


def load_roles(folder: str | os.PathLike[str], tokenizer: Tokenizer) -> SpecialTokenIds:
    """Which ids begin a text, end it and fill batches, by the settings in a model's folder.

    Raises:
        UserError: a settings file is broken.
    """
    return read_settings(Path(folder)).roles(tokenizer)


def load_chat_template(
    folder: str | os.PathLike[str], tokenizer: Tokenizer, *, name: str = "default"
) -> Template | None:
    """The chat template of a model; None for a model without one.

    Args:
        folder: of a run or a model.
        tokenizer: the one from the same folder.
        name: which of several templates, e.g. ``tool_use``.

    Raises:
        UserError: a settings file is broken, or there are templates but none of this name.
    """
    return chat_template_of(read_settings(Path(folder)), tokenizer, str(folder), name=name)


def chat_template_of(
    settings: TokenizerSettings, tokenizer: Tokenizer, where: str, *, name: str = "default"
) -> Template | None:
    """The chat template that settings hold; None for a model without one.

    Args:
        where: how errors call the model.

    Raises:
        UserError: there are templates but none of this name.
    """
    ours = CHATML.start in tokenizer.special and CHATML.end in tokenizer.special
    if not settings.chat_templates:
        return CHATML if ours else None
    if name not in settings.chat_templates:
        there = ", ".join(settings.chat_templates)
        raise UserError(f"{where} has no chat template {name!r}", expected=there)
    source = settings.chat_templates[name]
    if ours and source == CHATML.jinja:
        return CHATML
    named = {"bos_token": settings.bos, "eos_token": settings.eos, "pad_token": settings.pad, "unk_token": settings.unk}
    return ForeignTemplate(
        source=source,
        variables={key: value for key, value in named.items() if value is not None},
        end_ids=settings.roles(tokenizer).end_ids,
        where=f"the chat template of {where}",
    )


def _from_json(file: Path) -> AnyTokenizer:
    data = read_json(file)
    if isinstance(data, dict) and "format" in data:
        return CharacterTokenizer.from_json(data, str(file))
    if isinstance(data, dict) and "model" in data:
        settings = read_settings(file.parent)
        if _is_plain(data, settings):
            try:
                return BytePairTokenizer(from_tokenizer_json(data, str(file)))
            except OtherKind:
                pass
        return HuggingFaceTokenizer(data, settings, where=str(file))
    raise UserError(
        f"{file} holds no tokenizer that underhood knows",
        expected="a Hugging Face tokenizer.json or a character vocabulary",
    )


def _is_plain(data: dict[str, Any], settings: TokenizerSettings) -> bool:
    """Whether added tokens are nothing but special tokens, which is all that our own class knows of."""
    tokens = [token for token in data.get("added_tokens") or [] if isinstance(token, dict)]
    names = {token.get("content") for token in tokens}
    return (
        all(token.get("special", True) for token in tokens)
        and not any(token.get(flag) for token in tokens for flag in ("lstrip", "rstrip", "single_word"))
        and all(token.content in names for token in settings.added_tokens)
    )
