"""Text in every encoding that files come in, JSON with broken characters, output to any pipe."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from needs import shared_data
from underhood.core.errors import UserError
from underhood.core.files import write_text
from underhood.core.runlog import RunLog, read_events
from underhood.core.text_files import (
    ESCAPE,
    decode,
    encode,
    mend_surrogates,
    parse_json,
    protect_streams,
    read_standard_input,
    read_text,
)
from underhood.core.toml import read_toml, toml_text
from underhood.data.conversations import read_conversations
from underhood.data.labelled import read_labelled

TEXT = "The café opens at nine.\nΑνοίγει στις εννέα. 開店は九時。 🙂\n"


@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le", "utf-16-be"])
def test_text_is_the_same_in_every_encoding(codec: str, tmp_path: Path):
    (tmp_path / "a.txt").write_bytes(TEXT.encode(codec))
    assert read_text(tmp_path / "a.txt") == TEXT


@pytest.mark.parametrize("codec", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("text", ["", " \n"])
def test_file_of_a_mark_alone_is_empty(codec: str, text: str, tmp_path: Path):
    for name, read in {"a.jsonl": read_conversations, "a.json": read_conversations, "a.csv": read_labelled}.items():
        (tmp_path / name).write_bytes(text.encode(codec))
        with pytest.raises(UserError, match=f"{name} is empty"):
            read(tmp_path / name)


@pytest.mark.parametrize("codec", ["utf-16-be", "utf-32-be"])
def test_big_endian_marks_are_known(codec: str):
    assert decode(("\ufeff" + TEXT).encode(codec), "x") == TEXT


@pytest.mark.parametrize("name", ["u16.txt", "u16be.txt", "u32.txt"])
def test_given_files_read_alike(name: str):
    text = read_text(shared_data("faults", name))
    assert text.startswith("The harbour wakes before the town does.")
    assert text == read_text(shared_data("faults", "u16.txt"))


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_categories=("Cc", "Cn", "Co")), min_size=1), st.booleans())
def test_unmarked_utf16_is_known_by_its_line_ends(text: str, big: bool):
    lines = f"{text}\n" * 2
    data = lines.encode("utf-16-be" if big else "utf-16-le")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or data.count(0) < 0.1 * len(data):
        return
    assert decode(data, "x") == lines


BINARY = [bytes(range(256)) * 20, bytes(100), b"ELF\0\1\2\3" * 50, b"text with one\0zero" + b"x" * 200, b"\0"]


@pytest.mark.parametrize("data", BINARY, ids=["all bytes", "zeros", "numbers", "one zero", "single zero"])
def test_binary_is_called_binary(data: bytes):
    with pytest.raises(UserError, match=r"x is a binary file \(a NUL byte at offset [\d,]+\)"):
        decode(data, "x")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"caf\xe9", r"not UTF-8 text \(byte 0xe9 at offset 3\).*iconv"),
        (b"\xef\xbb\xbfcaf\xe9", r"not UTF-8 text \(byte 0xe9 at offset 6\)"),
        ("ab".encode("utf-16")[:-1], r"not UTF-16 text.*cut off"),
        (b"\xff\xfe\x00\xd8a\0", r"not UTF-16 text"),
    ],
)
def test_byte_that_does_not_fit_is_named(data: bytes, message: str):
    with pytest.raises(UserError, match=message):
        decode(data, "x")


def test_half_of_a_pair_in_json_becomes_the_replacement_character():
    value = parse_json(r'{"a\ud83d": ["x\udc00y", "\ud83d\ude00", {"b": "\ud800"}], "n": 1.5}')
    assert value == {"a\ufffd": ["x\ufffdy", "😀", {"b": "\ufffd"}], "n": 1.5}


@given(st.text(alphabet=st.characters()))
def test_written_text_is_valid_and_json_comes_back(text: str):
    assert json.loads(encode(json.dumps(text, ensure_ascii=False)).decode("utf-8")) == text
    assert json.loads(json.dumps(text, ensure_ascii=False).encode("cp1252", ESCAPE).decode("cp1252")) == text
    assert mend_surrogates(text).encode("utf-8") is not None  # valid Unicode
    assert encode(mend_surrogates(text)) == mend_surrogates(text).encode("utf-8")


def test_name_that_is_not_utf8_is_kept_in_json_and_refused_in_toml(tmp_path: Path):
    name = b"caf\xe9.md".decode("utf-8", "surrogateescape")
    write_text(tmp_path / "a.json", json.dumps({"name": name}, ensure_ascii=False))
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"name": name}
    log = RunLog(tmp_path / "events.jsonl")
    log.event("data", "note", text=name)
    log.close()
    assert [event["text"] for event in read_events(tmp_path / "events.jsonl")] == [name]
    with pytest.raises(UserError, match=r"can't hold a name that is not UTF-8: data = .caf"):
        toml_text({"data": name})


def test_mark_in_front_of_toml_is_no_syntax_error():
    assert read_toml(shared_data("faults", "recipe_bom.toml"))["width"] == 64


def test_streams_write_and_read_anything(monkeypatch: pytest.MonkeyPatch):
    out = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("Grüße\n".encode("utf-16")), encoding="ascii"))
    protect_streams()
    print("é → 🙂 \udce9", flush=True)
    assert out.buffer.getvalue() == b"\xe9 \\u2192 \\ud83d\\ude42 \\udce9\n"  # type: ignore[attr-defined]
    assert read_standard_input() == "Grüße\n"
