from __future__ import annotations

import pickle
import pydoc_data.topics
import sys
import unicodedata
from pathlib import Path

import pytest
import regex
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st
from nasty import NASTY, TEXTS

from needs import shared_data
from underhood.core.errors import UserError
from underhood.core.protocols import Tokenizer
from underhood.core.text_files import mend_surrogates
from underhood.text import bpe
from underhood.text.bpe import DEFAULT_SPECIAL, BytePairTokenizer, train_bpe
from underhood.text.split import PATTERNS, _is_disputed, split
from underhood.text.vocabulary import Vocabulary

DOCUMENTS = list(pydoc_data.topics.topics.values())


@pytest.fixture(scope="module")
def tokenizer() -> BytePairTokenizer:
    return train_bpe(
        [*DOCUMENTS[:20], "北京 北京 북 é é 's 's aaaa aaaa     <|im_start|> <|im_start|>"], vocab_size=900
    )


@pytest.fixture(scope="module")
def gpt2() -> BytePairTokenizer:
    folder = shared_data("tokenizers", "gpt2")
    return BytePairTokenizer.from_gpt2_files(folder / "encoder.json", folder / "vocab.bpe")


def test_tokenizer_lays_out_bytes_merges_special(tokenizer: BytePairTokenizer):
    assert isinstance(tokenizer, Tokenizer)
    assert tokenizer.vocab_size == 900
    assert dict(tokenizer.special) == {name: 897 + index for index, name in enumerate(DEFAULT_SPECIAL)}
    assert sorted(tokenizer.decode_bytes([id]) for id in range(256)) == [bytes([byte]) for byte in range(256)]
    for number, (left, right) in enumerate(tokenizer.vocabulary.merges):
        assert tokenizer.decode_bytes([256 + number]) == left + right


@pytest.mark.parametrize("text", NASTY)
def test_encode_matches_plain_encoder_on_nasty_text(tokenizer: BytePairTokenizer, text: str):
    ids = tokenizer.encode(text)
    assert ids == tokenizer.encode_plainly(text)
    assert tokenizer.decode_bytes(ids) == text.encode()
    assert tokenizer.decode(ids) == text


@settings(max_examples=300)
@given(text=TEXTS)
def test_encode_matches_plain_encoder_and_round_trips(tokenizer: BytePairTokenizer, text: str):
    ids = tokenizer.encode(text)
    assert ids == tokenizer.encode_plainly(text)
    assert tokenizer.decode(ids) == text


def test_encode_matches_plain_encoder_across_code_points(tokenizer: BytePairTokenizer):
    # Between letters, so that whether a code point counts as a letter shows in the ids.
    points = [chr(point) for point in range(sys.maxunicode + 1) if not 0xD800 <= point <= 0xDFFF]
    unsettled = [char for char in points if unicodedata.category(char) == "Cn"]
    for chars in (points[:3000], points[3000::97], unsettled[::53]):
        text = "".join(f"the{char}the" for char in chars)
        assert tokenizer.encode(text) == tokenizer.encode_plainly(text)


def test_split_without_settling_unicode_versions_differs_from_tiktoken(tokenizer: BytePairTokenizer):
    # The ablation of split's stand-ins: somewhere the two libraries' tables are of different years.
    disputed = next(filter(_is_disputed, map(chr, range(0x300, 0x32400))), None)
    if disputed is None:  # the installed versions know the same Unicode: then nothing may be settled anywhere
        assert split("a\u0558b") == regex.findall(PATTERNS["qwen2"], "a\u0558b")
        return
    text = "the" + disputed + "the"
    naive = regex.findall(PATTERNS["qwen2"], text)
    assert naive != split(text)
    assert [tokenizer.decode([id]) for id in tokenizer.encode(text)] != naive


def test_encode_survives_a_million_spaces(tokenizer: BytePairTokenizer):
    text = "x" + " " * 1_100_000 + "y"
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    shorter = "x" + " " * (bpe.LONG_RUN + 50) + "y"
    bpe_long, bpe.LONG_RUN = bpe.LONG_RUN, 10**9
    try:
        directly = tokenizer.encode(shorter)
    finally:
        bpe.LONG_RUN = bpe_long
    assert tokenizer.encode(shorter) == directly


@pytest.mark.parametrize(
    ("text", "mended"),
    [("a\ud800b", "a\ufffdb"), ("\udc00", "\ufffd"), ("\ud83d\ude00", "😀"), ("\ufeffa\udfff", "\ufeffa\ufffd")],
)
def test_encode_replaces_lone_surrogates(tokenizer: BytePairTokenizer, text: str, mended: str):
    assert mend_surrogates(text) == mended
    assert tokenizer.decode(tokenizer.encode(text)) == mended
    assert tokenizer.encode(text) == tokenizer.encode_plainly(text)
    assert tokenizer.encode_batch([text, text]) == [tokenizer.encode(mended)] * 2
    assert train_bpe([text * 4], vocab_size=300) == train_bpe([mended * 4], vocab_size=300)


@given(st.lists(st.sampled_from([*DEFAULT_SPECIAL, "<|", "im_end", "|>", "a", "\n", " "]), max_size=12).map("".join))
def test_encode_never_yields_a_special_id(tokenizer: BytePairTokenizer, text: str):
    ids = tokenizer.encode(text)
    assert not set(ids) & set(tokenizer.special.values())
    assert tokenizer.decode(ids) == text


def test_training_on_special_names_makes_no_token_of_the_same_bytes():
    tokenizer = train_bpe(["<|endoftext|><|im_start|>user\n<|im_end|>" * 50] * 3, vocab_size=400)
    learnt = set(tokenizer.vocabulary.ids)
    assert b"endoftext" in learnt
    assert not learnt & {name.encode() for name in tokenizer.special}


@given(ids=st.lists(st.integers(0, 899), max_size=20))
def test_decode_bytes_joins_exact_bytes(tokenizer: BytePairTokenizer, ids: list[int]):
    expected = b"".join(tokenizer.decode_bytes([id]) for id in ids)
    assert tokenizer.decode_bytes(ids) == expected
    assert tokenizer.decode(ids) == expected.decode("utf-8", "replace")


@pytest.mark.parametrize("wrong", [-1, 900, 10**9])
def test_decode_names_an_id_outside_the_vocabulary(tokenizer: BytePairTokenizer, wrong: int):
    with pytest.raises(UserError, match=f"id {wrong} is not in .* 900"):
        tokenizer.decode([5, wrong])


def test_pieces_gives_ids_with_their_bytes(tokenizer: BytePairTokenizer):
    text = "The naïve 北京 <|im_end|>\n"
    pieces = tokenizer.pieces(text)
    assert [id for id, _ in pieces] == tokenizer.encode(text)
    assert b"".join(piece for _, piece in pieces) == text.encode()


def test_encode_batch_matches_encode(tokenizer: BytePairTokenizer):
    texts = [*DOCUMENTS[:40], *NASTY]
    assert sum(map(len, texts)) > bpe.THREAD_WORTH
    assert tokenizer.encode_batch(texts) == [tokenizer.encode(text) for text in texts]
    assert tokenizer.encode_batch([]) == []


def test_more_merges_compress_unseen_text_better():
    def tokens(vocab_size: int) -> int:
        return len(train_bpe(DOCUMENTS[:20], vocab_size=vocab_size).encode(DOCUMENTS[30]))

    plain, some, many = tokens(259), tokens(500), tokens(1200)
    assert plain == len(DOCUMENTS[30].encode())
    assert many < 0.85 * some < 0.85 * 0.7 * plain


def test_training_reads_a_generator_once_and_repeats_exactly():
    first = train_bpe((text for text in DOCUMENTS[:5]), vocab_size=400)
    assert first == train_bpe(reversed(DOCUMENTS[:5]), vocab_size=400)


def test_training_on_little_text_gives_a_smaller_vocabulary():
    tokenizer = train_bpe(["abab abab"], vocab_size=4096)
    assert tokenizer.vocab_size == 256 + len(tokenizer.vocabulary.merges) + 3 < 270
    assert tokenizer.decode(tokenizer.encode("zebra 北")) == "zebra 北"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vocab_size": 258}, "expected at least 259 .* got 258"),
        ({"special": ("<|a|>", "<|a|>")}, "distinct"),
        ({"special": ("",)}, "non-empty"),
        ({"special": ("pad",)}, r"write it like '<\|pad\|>'"),
    ],
)
def test_training_refuses_unusable_options(options: dict, message: str):
    with pytest.raises(UserError, match=message):
        train_bpe(["some text"], **options)


def test_training_refuses_no_text():
    with pytest.raises(UserError, match="no text"):
        train_bpe(["", ""])


def test_tokenizer_survives_pickle(tokenizer: BytePairTokenizer):
    tokenizer.encode("warm")
    assert pickle.loads(pickle.dumps(tokenizer)).encode(DOCUMENTS[3]) == tokenizer.encode(DOCUMENTS[3])


# GPT-2's own vocabulary


@pytest.fixture(scope="module")
def gpt2_by_tiktoken() -> tiktoken.Encoding:
    from tiktoken.load import data_gym_to_mergeable_bpe_ranks

    folder = shared_data("tokenizers", "gpt2")
    ranks = data_gym_to_mergeable_bpe_ranks(str(folder / "vocab.bpe"), str(folder / "encoder.json"))
    pattern = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
    special = {"<|endoftext|>": 50256}
    return tiktoken.Encoding("gpt2", pat_str=pattern, mergeable_ranks=ranks, special_tokens=special)


@settings(max_examples=150)
@given(text=st.one_of(TEXTS, st.sampled_from(NASTY)))
def test_gpt2_ids_match_tiktoken(gpt2: BytePairTokenizer, gpt2_by_tiktoken: tiktoken.Encoding, text: str):
    assert gpt2.encode(text) == gpt2.encode_plainly(text) == gpt2_by_tiktoken.encode_ordinary(text)


def test_gpt2_ids_match_transformers(gpt2: BytePairTokenizer):
    from transformers import GPT2Tokenizer

    folder = shared_data("tokenizers", "gpt2")
    peer = _transformers_gpt2(GPT2Tokenizer, folder)
    for text in [*NASTY, *DOCUMENTS[:3]]:
        assert gpt2.encode(text) == peer(text)["input_ids"]
    assert gpt2.vocab_size == 50257
    assert dict(gpt2.special) == {"<|endoftext|>": 50256}
    assert gpt2.encode("hello world") == [31373, 995]


def _transformers_gpt2(kind, folder: Path):
    import json

    encoder = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
    lines = (folder / "vocab.bpe").read_text(encoding="utf-8").split("\n")[1:]
    return kind(vocab=encoder, merges=[tuple(line.split(" ")) for line in lines if line])


def test_encode_falls_back_where_tiktokens_rule_would_differ():
    # "abc" is learnt as ab+c, but b+c comes first, so abc can never be reached: tiktoken would join a and bc.
    alphabet = [bytes([byte]) for byte in range(256)]
    made = [b"bc", b"ab", b"abc"]
    ids = {token: id for id, token in enumerate([*alphabet, *made])}
    odd = BytePairTokenizer(Vocabulary(ids=ids, merges=((b"b", b"c"), (b"a", b"b"), (b"ab", b"c")), special={}))
    naive = tiktoken.Encoding("naive", pat_str=PATTERNS["qwen2"], mergeable_ranks=ids, special_tokens={})
    assert naive.encode_ordinary("abc") == [258]
    assert odd.encode("abc") == odd.encode_plainly("abc") == [97, 256]


def test_encode_maps_ids_that_are_in_any_order():
    # Special tokens first and the rest shuffled, as other people's files may have it.
    trained = train_bpe(DOCUMENTS[:3], vocab_size=400)
    size = trained.vocab_size
    location = {id: (id * 7 + 5) % size for id in range(size)}  # 7 and 400 share no factor: a permutation
    moved = Vocabulary(
        ids={token: location[id] for token, id in trained.vocabulary.ids.items()},
        merges=trained.vocabulary.merges,
        special={name: location[id] for name, id in trained.special.items()},
    )
    shuffled = BytePairTokenizer(moved)
    for text in [*NASTY, DOCUMENTS[5]]:
        assert shuffled.encode(text) == shuffled.encode_plainly(text)
        assert [trained.decode_bytes([id]) for id in trained.encode(text)] == [p for _, p in shuffled.pieces(text)]
