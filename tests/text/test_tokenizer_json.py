from __future__ import annotations

import json
import os
import pydoc_data.topics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from nasty import NASTY, TEXTS
from tokenizers import Tokenizer as HuggingFace

from needs import shared_data
from underhood.core.errors import UserError
from underhood.text.bpe import DEFAULT_SPECIAL, BytePairTokenizer, train_bpe
from underhood.text.huggingface import HuggingFaceTokenizer
from underhood.text.load import load_tokenizer

DOCUMENTS = list(pydoc_data.topics.topics.values())


@pytest.fixture(scope="module")
def tokenizer() -> BytePairTokenizer:
    return train_bpe([*DOCUMENTS[:10], "北京 北京 북 é é 's 's aaaa aaaa     "], vocab_size=700)


@pytest.fixture(scope="module")
def saved(tokenizer: BytePairTokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "tokenizer.json"
    tokenizer.save(path)
    return path


@pytest.fixture(scope="module")
def peer(saved: Path) -> HuggingFace:
    return HuggingFace.from_file(str(saved))


def test_save_and_load_give_the_same_tokenizer(tokenizer: BytePairTokenizer, saved: Path, tmp_path: Path):
    again = BytePairTokenizer.load(saved)
    assert again == tokenizer
    again.save(tmp_path / "twice.json")
    assert (tmp_path / "twice.json").read_bytes() == saved.read_bytes()


@pytest.mark.parametrize("text", [*NASTY, DOCUMENTS[12]])
def test_saved_file_gives_our_ids_in_hugging_face_on_nasty_text(
    tokenizer: BytePairTokenizer, peer: HuggingFace, text: str
):
    assert peer.encode(text).ids == tokenizer.encode(text)
    assert peer.decode(tokenizer.encode(text)) == text


@settings(max_examples=200)
@given(text=TEXTS)
def test_saved_file_gives_our_ids_in_hugging_face(tokenizer: BytePairTokenizer, peer: HuggingFace, text: str):
    if not any(name in text for name in DEFAULT_SPECIAL):  # these it takes for special tokens, and we never do
        assert peer.encode(text).ids == tokenizer.encode(text)


def test_saved_special_tokens_are_special_in_hugging_face(tokenizer: BytePairTokenizer, peer: HuggingFace):
    for name, id in tokenizer.special.items():
        assert peer.token_to_id(name) == id
        assert peer.encode(f"a{name} b").ids == [*tokenizer.encode("a"), id, *tokenizer.encode(" b")]
        assert tokenizer.decode([id]) == name
    assert peer.get_vocab_size() == tokenizer.vocab_size


def test_gpt2_saved_gives_its_ids_in_hugging_face(tmp_path: Path):
    folder = shared_data("tokenizers", "gpt2")
    gpt2 = BytePairTokenizer.from_gpt2_files(folder / "encoder.json", folder / "vocab.bpe")
    gpt2.save(tmp_path / "tokenizer.json")
    peer = HuggingFace.from_file(str(tmp_path / "tokenizer.json"))
    for text in NASTY:
        assert peer.encode(text).ids == gpt2.encode(text)
    assert load_tokenizer(tmp_path) == gpt2


def test_published_file_with_special_tokens_in_front_loads(tmp_path: Path):
    file = shared_data("tokenizers", "minimind", "tokenizer.json")
    peer, ours = HuggingFace.from_file(str(file)), BytePairTokenizer.load(file)
    assert ours.vocab_size == 6400
    assert ours.special["<|endoftext|>"] == 0
    ours.save(tmp_path / "again.json")
    again = HuggingFace.from_file(str(tmp_path / "again.json"))
    for text in [*NASTY, DOCUMENTS[2], "人工智能的未来，是什么？"]:
        assert ours.encode(text) == ours.encode_plainly(text) == peer.encode(text).ids == again.encode(text).ids
    assert BytePairTokenizer.load(tmp_path / "again.json") == ours


# Files that are not ours, or no longer


def _change(*path: str | int, value: Any = None) -> Callable[[dict], None]:
    def change(data: dict) -> None:
        inner: Any = data
        for step in path[:-1]:
            inner = inner[step]
        if value is KeyError:
            del inner[path[-1]]
        else:
            inner[path[-1]] = value

    return change


BROKEN = {
    "no model": (_change("model", value=KeyError), "has no 'model'"),
    "other kind": (_change("model", "type", value="Unigram"), "expected a byte-level BPE, got 'Unigram'"),
    "byte fallback": (_change("model", "byte_fallback", value=True), "model.byte_fallback = True"),
    "dropout": (_change("model", "dropout", value=0.1), "model.dropout = 0.1"),
    "normalizer": (_change("normalizer", value={"type": "NFC"}), "text would be changed .* got NFC"),
    "adds tokens": (_change("post_processor", value={"type": "TemplateProcessing"}), "tokens would be added"),
    "no pre-tokenizer": (_change("pre_tokenizer", value=None), "unsupported pre_tokenizer"),
    "metaspace": (
        _change("pre_tokenizer", value={"type": "Metaspace", "replacement": "▁"}),
        "unsupported pre_tokenizer; .* got Metaspace",
    ),
    "other split": (
        _change("pre_tokenizer", "pretokenizers", 0, "pattern", "Regex", value=r"\S+|\s+"),
        "unknown split pattern; expected the split pattern of qwen2",
    ),
    "removing split": (
        _change("pre_tokenizer", "pretokenizers", 0, "behavior", value="Removed"),
        "unknown split pattern",
    ),
    "prefix space": (_change("pre_tokenizer", "pretokenizers", 1, "add_prefix_space", value=True), "add_prefix_space"),
    "no vocabulary": (_change("model", "vocab", value=[]), "model.vocab is broken"),
    "id is text": (_change("model", "vocab", "!", value="0"), "model.vocab is broken"),
    "byte missing": (_change("model", "vocab", "!", value=KeyError), "gaps or repeats; expected 0 … 698, got id 1"),
    "id twice": (_change("model", "vocab", "!", value=7), "gaps or repeats"),
    "no merges": (_change("model", "merges", value=None), "model.merges is broken"),
    "half a merge": (_change("model", "merges", 3, value="abc"), "merge 3 is broken; expected two tokens, got 'abc'"),
    "unknown merge": (_change("model", "merges", 0, value="! !"), "merge 0 makes '!!', which is not in the vocabulary"),
    "early merge": (_change("model", "merges", 0, value="the n"), "merge 0 uses 'the' before"),
    "not byte-level": (_change("model", "vocab", "▁the", value=700), "not byte-level; .* got token '▁the'"),
    "special has two ids": (_change("added_tokens", 0, "content", value="!"), "'!' has two ids"),
    "special is broken": (_change("added_tokens", 0, value={"id": 4}), "added_tokens is broken"),
}


LIBRARY_READS = {
    "byte fallback", "dropout", "normalizer", "no pre-tokenizer", "metaspace", "other split", "removing split",
    "prefix space",
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_load_names_the_file_and_what_is_wrong(saved: Path, tmp_path: Path, case: str):
    change, message = BROKEN[case]
    data = json.loads(saved.read_text(encoding="utf-8"))
    change(data)
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(UserError, match=message) as caught:
        BytePairTokenizer.load(path)
    assert str(path) in str(caught.value)
    if case in LIBRARY_READS:  # not ours, but sound: load_tokenizer leaves it to the library
        assert isinstance(load_tokenizer(path), HuggingFaceTokenizer)
    else:
        with pytest.raises(UserError) as caught:
            load_tokenizer(path)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "line 1 column 1 is not JSON"),
        (b'{"model": {"type": "BPE",\n', "line 2 .* is not JSON"),
        (b"\xff\xfe\x00", "is not UTF-16 text"),
        (b"\xff\xfd", "is not UTF-8 text"),
        (b"[1, 2]", "not a tokenizer|no tokenizer"),
        (b"[" * 100_000, "nested too deeply|not JSON"),
    ],
)
def test_load_names_a_file_that_is_no_json(tmp_path: Path, content: bytes, message: str):
    path = tmp_path / "broken.json"
    path.write_bytes(content)
    for load in (BytePairTokenizer.load, load_tokenizer):
        with pytest.raises(UserError, match=message) as caught:
            load(path)
        assert str(path) in str(caught.value)


def test_load_names_a_missing_file(tmp_path: Path):
    with pytest.raises(UserError, match=r"cannot read .*absent.json: No such file"):
        BytePairTokenizer.load(tmp_path / "absent.json")
    with pytest.raises(UserError, match=r"cannot read .*tokenizer.json"):
        load_tokenizer(tmp_path)


def test_gpt2_files_name_what_is_wrong(tmp_path: Path):
    folder = shared_data("tokenizers", "gpt2")
    merges = (folder / "vocab.bpe").read_text(encoding="utf-8")
    (tmp_path / "vocab.bpe").write_text(merges + "zz qqqq\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"encoder.json with .*vocab.bpe: merge 50000 uses 'zz'|makes|uses"):
        BytePairTokenizer.from_gpt2_files(folder / "encoder.json", tmp_path / "vocab.bpe")
    with pytest.raises(UserError, match="cannot read"):
        BytePairTokenizer.from_gpt2_files(folder / "encoder.json", tmp_path / "absent.bpe")
    (tmp_path / "encoder.json").write_text("[]")
    with pytest.raises(UserError, match=r"encoder.json"):
        BytePairTokenizer.from_gpt2_files(tmp_path / "encoder.json", folder / "vocab.bpe")


def test_failed_save_leaves_the_old_file(tokenizer: BytePairTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "tokenizer.json"
    tokenizer.save(path)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="disk is full"):
        train_bpe(["other text"], vocab_size=300).save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["tokenizer.json"]
