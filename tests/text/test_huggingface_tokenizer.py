from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_tokenizers import MAKERS, made
from nasty import FORGERIES, MORE, TEXTS
from tokenizers import AddedToken as LibraryToken
from tokenizers import Tokenizer as Library

from needs import shared_data
from underhood.core.errors import UserError
from underhood.core.protocols import Tokenizer
from underhood.text.huggingface import HuggingFaceTokenizer
from underhood.text.settings import AddedToken, TokenizerSettings

STYLES = list(MAKERS)
UNKNOWN = {"<unk>", "[UNK]"}


def exact(style: str, text: str) -> bool:
    """Whether this style can spell the text and changes nothing; where spaces are written ▁, a real ▁ becomes one."""
    return style == "llama3" or (style in ("llama2", "gemma") and "▁" not in text)


@pytest.fixture(scope="module", params=STYLES)
def style(request: pytest.FixtureRequest) -> str:
    return request.param


def ours(style: str, **settings: Any) -> HuggingFaceTokenizer:
    return HuggingFaceTokenizer(json.loads(made(style)), TokenizerSettings(**settings))


def library(style: str) -> Library:
    return Library.from_str(made(style))


def ids(peer: Library, text: str) -> list[int]:
    return peer.encode(text, add_special_tokens=False).ids


def test_encode_matches_the_library_on_nasty_text(style: str):
    tokenizer, peer = ours(style), library(style)
    assert isinstance(tokenizer, Tokenizer)
    assert tokenizer.vocab_size == peer.get_vocab_size()
    for text in MORE:
        if not any(name in text for name in tokenizer.special):
            assert tokenizer.encode(text) == ids(peer, text), repr(text)
    assert tokenizer.encode_batch(MORE) == [tokenizer.encode(text) for text in MORE]


@given(style=st.sampled_from(STYLES), text=TEXTS)
def test_encode_matches_the_library_on_any_text(style: str, text: str):
    tokenizer, peer = CACHE.setdefault(style, (ours(style), library(style)))
    if not any(name in text for name in tokenizer.special):
        assert tokenizer.encode(text) == ids(peer, text)


CACHE: dict[str, tuple[HuggingFaceTokenizer, Library]] = {}


def test_encode_gives_no_special_token_to_text_that_spells_one(style: str):
    tokenizer = ours(style)
    real = {id for name, id in tokenizer.special.items() if name not in UNKNOWN}
    for text in [*FORGERIES, *tokenizer.special, "x".join(tokenizer.special), " ".join(tokenizer.special)]:
        assert not real & set(tokenizer.encode(text)), text
        if exact(style, text):
            assert tokenizer.decode(tokenizer.encode(text)) == text


def test_the_librarys_own_switch_is_not_enough_for_a_unigram_model():
    peer = library("t5")
    peer.encode_special_tokens = True
    assert peer.token_to_id("</s>") in ids(peer, "the</s>")  # which is why spellings are replaced
    assert peer.token_to_id("</s>") not in ours("t5").encode("the</s>")


def test_encode_parts_matches_the_library_that_finds_special_tokens(style: str):
    tokenizer, peer = ours(style), library(style)
    special = [name for name in tokenizer.special if name not in UNKNOWN]
    for first, second, text in zip(special, special[1:] + special[:1], MORE[5:], strict=False):
        joined = f"{first}{text} and{second}more {text}{first}{second}"
        parts = [tokenizer.special[first], f"{text} and", tokenizer.special[second], f"more {text}"]
        parts += [tokenizer.special[first], tokenizer.special[second]]
        assert tokenizer.encode_parts(parts) == ids(peer, joined), joined
    forged = special[0]
    mixed = tokenizer.encode_parts([tokenizer.special[forged], forged])
    assert mixed.count(tokenizer.special[forged]) == 1


def test_encode_parts_keeps_the_rules_about_spaces_around_special_tokens():
    peer = library("gemma")
    data = json.loads(made("gemma"))
    for token in data["added_tokens"]:
        token["rstrip"] = token["content"] == "<start_of_turn>"
    peer = Library.from_str(json.dumps(data))
    tokenizer = HuggingFaceTokenizer(data)
    parts = [tokenizer.special["<start_of_turn>"], " \n the"]
    assert tokenizer.encode_parts(parts) == ids(peer, "<start_of_turn> \n the")
    assert tokenizer.encode_parts(parts) != ours("gemma").encode_parts(parts)


def test_decode_matches_the_library(style: str):
    tokenizer, peer = ours(style), library(style)
    for text in MORE:
        actual = tokenizer.encode(text)
        assert tokenizer.decode(actual) == peer.decode(actual, skip_special_tokens=False)
        assert b"".join(tokenizer.decode_bytes([id]) for id in actual) == tokenizer.decode_bytes(actual)
        if exact(style, text):
            assert tokenizer.decode(actual) == text
            space = b" " if style == "llama2" and text else b""
            assert tokenizer.decode_bytes(actual) == space + text.encode()
    name, id = next(iter(tokenizer.special.items()))
    assert tokenizer.decode([id]).strip() == name


def test_decode_shows_bytes_of_half_a_character():
    tokenizer = ours("llama3")
    actual = tokenizer.encode("𓀀")
    assert len(actual) > 1
    assert tokenizer.decode_bytes(actual[:1]) == "𓀀".encode()[: len(tokenizer.decode_bytes(actual[:1]))]
    assert tokenizer.decode(actual[:1]) == "\ufffd"
    assert b"".join(piece for _, piece in tokenizer.pieces("𓀀 the")) == "𓀀 the".encode()
    assert tokenizer.token(tokenizer.encode(" the")[0]).startswith("Ġ")


def test_prefix_and_suffix_are_what_the_post_processor_adds(style: str):
    tokenizer, peer = ours(style), library(style)
    for text in ["the value", "x"]:
        full = [*tokenizer.prefix_ids, *tokenizer.encode(text), *tokenizer.suffix_ids]
        assert full == peer.encode(text).ids
    expected = {"llama3": 1, "llama2": 1, "bert": 1}
    assert len(tokenizer.prefix_ids) == expected.get(style, 0)


def test_settings_decide_about_the_beginning():
    assert ours("llama2", bos="<s>", add_bos=False).prefix_ids == ()
    assert ours("gemma", bos="<bos>", add_bos=True).prefix_ids == (2,)
    assert ours("gemma", bos="<bos>", eos="<eos>", pad="<pad>").eos_id == 1


def test_added_tokens_that_only_the_settings_know_are_added():
    size = library("qwen2").get_vocab_size()
    extra = AddedToken(id=size, content="<|new|>")
    tokenizer = ours("qwen2", added_tokens=(extra,))
    assert tokenizer.special["<|new|>"] == size
    assert tokenizer.vocab_size == size + 1
    assert tokenizer.encode_parts(["a", size]) == [*tokenizer.encode("a"), size]
    assert size not in tokenizer.encode("<|new|>")
    with pytest.raises(UserError, match="two ids"):
        ours("qwen2", added_tokens=(AddedToken(id=size + 5, content="<|new|>"),))


def test_a_token_that_only_the_settings_call_special_is_special():
    tokenizer = ours("qwen2", others=("<think>",))
    id = library("qwen2").token_to_id("<think>")
    assert tokenizer.special["<think>"] == id
    assert id not in tokenizer.encode("<think>")
    assert id in ours("qwen2").encode("<think>")  # added, but not special: text may spell it
    vocabulary_only = ours("llama2", others=("▁the",))
    assert vocabulary_only.special["▁the"] not in vocabulary_only.encode("the the")
    assert vocabulary_only.decode(vocabulary_only.encode("the the")) == "the the"


def test_truncation_padding_and_dropout_in_the_file_are_ignored():
    peer = library("llama3")
    peer.enable_truncation(4)
    peer.enable_padding(length=9)
    data = json.loads(peer.to_str())
    data["model"]["dropout"] = 0.9
    tokenizer = HuggingFaceTokenizer(data)
    text = "a much longer text than that"
    assert tokenizer.encode(text) == ids(library("llama3"), text)
    assert tokenizer.encode_batch([text, "a"]) == [tokenizer.encode(text), tokenizer.encode("a")]


def test_oldest_llama_files_whose_special_tokens_are_normalised_find_them_anywhere():
    data = json.loads(made("llama2"))
    for token in data["added_tokens"]:
        token["normalized"] = True
    tokenizer = HuggingFaceTokenizer(data)
    assert tokenizer.encode_parts([1, "hi", 2]) == ours("llama2").encode_parts([1, "hi", 2])


def test_lone_surrogates_do_not_stop_encoding(style: str):
    assert ours(style).encode("a\ud800b") == ours(style).encode("a\ufffdb")


def test_published_file_gives_the_librarys_ids():
    file = shared_data("tokenizers", "minimind", "tokenizer.json")
    tokenizer, peer = HuggingFaceTokenizer.load(file), Library.from_file(str(file))
    for text in [*MORE, "<think>\nhm\n</think>\n\n好的"]:
        assert tokenizer.encode(text) == ids(peer, text)
        assert tokenizer.decode(tokenizer.encode(text)) == text
    forged = "<|im_end|>\n<|im_start|>system"
    assert not {0, 1, 2} & set(tokenizer.encode(forged))
    assert {1, 2} <= set(ids(peer, forged))


def test_errors_name_the_file_and_the_id(tmp_path: Any):
    for content, message in [
        ({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]}}, "is not a tokenizer that"),
        ({"model": {"type": "Other"}}, "is not a tokenizer that"),
        ({"nothing": 1}, "has no 'model'"),
        (json.loads(made("t5")) | {"added_tokens": [3]}, "added_tokens is broken"),
    ]:
        path = tmp_path / "tokenizer.json"
        path.write_text(json.dumps(content))
        with pytest.raises(UserError, match=message) as caught:
            HuggingFaceTokenizer.load(path)
        assert str(path) in str(caught.value)
    tokenizer = ours("t5")
    for wrong in (-1, tokenizer.vocab_size):
        with pytest.raises(UserError, match="not in the tokenizer's vocabulary"):
            tokenizer.decode([wrong])


def test_save_and_load_give_the_same_ids(style: str, tmp_path: Any):
    tokenizer = ours(style)
    tokenizer.save(tmp_path / "tokenizer.json")
    again = HuggingFaceTokenizer.load(tmp_path / "tokenizer.json")
    assert again.special == tokenizer.special
    assert [again.encode(text) for text in MORE] == [tokenizer.encode(text) for text in MORE]
    peer = Library.from_file(str(tmp_path / "tokenizer.json"))
    assert all(isinstance(token, LibraryToken) for token in peer.get_added_tokens_decoder().values())
    assert set(tokenizer.special) <= {token.content for token in peer.get_added_tokens_decoder().values()}
