"""Tokenizer settings of a Hugging Face folder: special token ids and chat templates.

A published folder spreads this over ``tokenizer_config.json``, ``special_tokens_map.json``, ``generation_config.json``,
``config.json`` and, of late, ``chat_template.jinja``. Earlier files of this list win,
unless this module says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from underhood.core.errors import UserError
from underhood.core.protocols import Tokenizer
from underhood.core.text_files import read_text
from underhood.text.files import read_json


@dataclass(frozen=True, kw_only=True)
class AddedToken:
    """A token that is looked for in the text before anything else happens to it."""

    id: int
    content: str
    special: bool = True
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False


@dataclass(frozen=True, kw_only=True)
class TokenizerSettings:
    """Settings read from the files beside a tokenizer; see `read_settings`.

    Attributes:
        bos, eos, pad, unk: spelling of the tokens with these parts, or None.
        others: further special tokens, e.g. ``<|im_start|>``.
        added_tokens: tokens with their ids, as ``added_tokens_decoder`` lists them.
        end_ids: the ids that end an answer according to ``generation_config.json``; often more than `eos`.
        add_bos: whether a text is to open with `bos`; None where nothing is said.
        legacy: the older SentencePiece handling, where a space is put behind each special token too.
        chat_templates: Jinja sources by name; the usual one is ``default``.
    """

    bos: str | None = None
    eos: str | None = None
    pad: str | None = None
    unk: str | None = None
    others: tuple[str, ...] = ()
    added_tokens: tuple[AddedToken, ...] = ()
    end_ids: tuple[int, ...] = ()
    add_bos: bool | None = None
    legacy: bool = False
    chat_templates: Mapping[str, str] = field(default_factory=dict)

    @property
    def special_names(self) -> tuple[str, ...]:
        """Every spelling that the settings call special, each once."""
        named = [self.bos, self.eos, self.pad, self.unk, *self.others]
        added = [token.content for token in self.added_tokens if token.special]
        return tuple(dict.fromkeys(name for name in [*named, *added] if name))

    def roles(self, tokenizer: Tokenizer) -> "SpecialTokenIds":
        """The settings as ids of this tokenizer."""

        def id_of(name: str | None) -> int | None:
            return tokenizer.special.get(name) if name else None

        bos, eos, pad = id_of(self.bos), id_of(self.eos), id_of(self.pad)
        ends = [id for id in self.end_ids if id < tokenizer.vocab_size]
        ends += [eos] if eos is not None and eos not in ends else []
        prefix = getattr(tokenizer, "prefix_ids", None)
        if prefix is None:
            prefix = (bos,) if self.add_bos and bos is not None else ()
        return SpecialTokenIds(bos_id=bos, end_ids=tuple(ends), pad_id=pad, prefix_ids=tuple(prefix))


@dataclass(frozen=True, kw_only=True)
class SpecialTokenIds:
    """Special token ids: beginning of text, end of text, padding, prefix.

    Attributes:
        bos_id: begins a text, or None.
        end_ids: each of these ends a text or an answer.
        pad_id: fills batches, or None.
        prefix_ids: what a text opens with in this model's own way: usually nothing, or `bos_id`.
    """

    bos_id: int | None
    end_ids: tuple[int, ...]
    pad_id: int | None
    prefix_ids: tuple[int, ...]


def read_settings(folder: Path) -> TokenizerSettings:
    """The settings of a published folder; files that are not there say nothing.

    Raises:
        UserError: a file is not JSON, or an entry is of the wrong kind.
    """
    config = _object(folder / "tokenizer_config.json")
    special = _object(folder / "special_tokens_map.json")
    generation = _object(folder / "generation_config.json") or _object(folder / "config.json")
    where = folder / "tokenizer_config.json"

    def name(key: str) -> str | None:
        return _content(config.get(key, special.get(key)), where, key)

    others: list[str] = []
    for source in (config, special):
        for key in ("additional_special_tokens", "extra_special_tokens"):
            values = source.get(key) or []
            values = list(values.values()) if isinstance(values, dict) else values
            if not isinstance(values, list):
                raise UserError(f"{where}: {key} is broken", expected="a list of tokens", got=repr(values))
            others += [content for value in values if (content := _content(value, where, key))]
    add_bos = config.get("add_bos_token")
    return TokenizerSettings(
        bos=name("bos_token"),
        eos=name("eos_token"),
        pad=name("pad_token"),
        unk=name("unk_token"),
        others=tuple(dict.fromkeys(others)),
        added_tokens=_added(config.get("added_tokens_decoder"), where),
        end_ids=_ids(generation.get("eos_token_id")),
        add_bos=add_bos if isinstance(add_bos, bool) else None,
        legacy=config.get("legacy") is True,
        chat_templates=_templates(folder, config.get("chat_template")),
    )


def _object(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    value = read_json(path)
    if not isinstance(value, dict):
        raise UserError(f"{path} is broken", expected="a JSON object", got=type(value).__name__)
    return value


def _content(value: Any, where: Path, key: str) -> str | None:
    if isinstance(value, dict):
        value = value.get("content")
    if value is not None and not isinstance(value, str):
        raise UserError(f"{where}: {key} is broken", expected="a token's spelling", got=repr(value))
    return value or None


def _added(table: Any, where: Path) -> tuple[AddedToken, ...]:
    if not table:
        return ()
    try:
        tokens = [
            AddedToken(
                id=int(id),
                content=str(entry["content"]),
                special=bool(entry.get("special", False)),
                single_word=bool(entry.get("single_word", False)),
                lstrip=bool(entry.get("lstrip", False)),
                rstrip=bool(entry.get("rstrip", False)),
            )
            for id, entry in table.items()
        ]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        expected = "a table from id to content and flags"
        raise UserError(f"{where}: added_tokens_decoder is broken", expected=expected) from error
    return tuple(sorted(tokens, key=lambda token: token.id))


def _ids(value: Any) -> tuple[int, ...]:
    values = value if isinstance(value, list) else [value]
    return tuple(dict.fromkeys(id for id in values if type(id) is int and id >= 0))


def _templates(folder: Path, value: Any) -> dict[str, str]:
    """One string, a list of named ones, or files; a file of its own is the newer way and wins."""
    where = folder / "tokenizer_config.json"
    templates: dict[str, str] = {}
    if isinstance(value, str):
        templates["default"] = value
    elif isinstance(value, list):
        for entry in value:
            if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in ("name", "template")):
                raise UserError(f"{where}: chat_template is broken", expected="name and template", got=repr(entry))
            templates[entry["name"]] = entry["template"]
    elif value is not None:
        raise UserError(f"{where}: chat_template is broken", expected="a template", got=type(value).__name__)
    legacy = _object(folder / "chat_template.json").get("chat_template")
    if isinstance(legacy, str):
        templates["default"] = legacy
    extra = folder / "additional_chat_templates"
    files = [("default", folder / "chat_template.jinja")]
    files += [(path.stem, path) for path in sorted(extra.glob("*.jinja"))] if extra.is_dir() else []
    for name, path in files:
        if path.is_file():
            templates[name] = read_text(path)
    return templates
