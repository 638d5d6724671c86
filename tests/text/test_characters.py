from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from needs import shared_data
from underhood.core.errors import UserError
from underhood.core.protocols import Tokenizer
from underhood.text.characters import CharacterTokenizer
from underhood.text.load import load_tokenizer


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1))
def test_characters_round_trip_their_own_text(text: str):
    tokenizer = CharacterTokenizer.from_texts(text, special=("<|end|>",))
    ids = tokenizer.encode(text)
    assert len(ids) == len(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode_bytes(ids) == text.encode()
    assert [id for id, _ in tokenizer.pieces(text)] == ids
    assert b"".join(piece for _, piece in tokenizer.pieces(text)) == text.encode()
    assert tokenizer.special["<|end|>"] not in ids
    assert tokenizer.vocab_size == len(set(text)) + 1
    assert isinstance(tokenizer, Tokenizer)


def test_characters_of_shakespeare_are_nanogpts_65():
    text = shared_data("text", "tinyshakespeare", "input.txt").read_text(encoding="utf-8")
    tokenizer = CharacterTokenizer.from_texts(text)
    assert tokenizer.vocab_size == 65
    assert tokenizer.encode("hii there") == [46, 47, 47, 1, 58, 46, 43, 56, 43]  # as nanoGPT's and makemore's lessons
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_characters_name_the_unknown_one_and_its_place():
    tokenizer = CharacterTokenizer.from_texts(["ab", "c\n"])
    with pytest.raises(UserError, match=r"character 'é' \(U\+00E9 LATIN SMALL LETTER E WITH ACUTE\) at 2 is not in"):
        tokenizer.encode("abé")
    with pytest.raises(UserError, match=r"U\+0000"):
        tokenizer.encode_batch(["ab", "\0"])
    with pytest.raises(UserError, match="id 4 is not in"):
        tokenizer.decode([0, 4])
    with pytest.raises(UserError, match="id -1 is not in"):
        tokenizer.decode([-1])


@pytest.mark.parametrize("characters", ["", "aba", ["ab"], ["\ud800"]])
def test_characters_refuse_a_broken_vocabulary(characters):
    with pytest.raises(UserError):
        CharacterTokenizer(characters)


def test_characters_save_and_load(tmp_path: Path):
    path = tmp_path / "tokenizer.json"
    tokenizer = CharacterTokenizer.from_texts('a"\\\n\u2028\x00é😀', special=("<|end|>",))
    tokenizer.save(path)
    assert CharacterTokenizer.load(path) == load_tokenizer(path) == load_tokenizer(tmp_path) == tokenizer


@pytest.mark.parametrize(
    "data",
    [
        [],
        {"format": "another", "characters": "ab"},
        {"format": "underhood characters 1"},
        {"format": "underhood characters 1", "characters": "aa"},
        {"format": "underhood characters 1", "characters": "ab", "special": [3]},
    ],
)
def test_characters_load_names_a_broken_file(tmp_path: Path, data: object):
    path = tmp_path / "broken.json"
    path.write_text(json.dumps(data))
    with pytest.raises(UserError, match=r"broken\.json"):
        CharacterTokenizer.load(path)
    with pytest.raises(UserError, match=r"broken\.json"):
        load_tokenizer(path)
