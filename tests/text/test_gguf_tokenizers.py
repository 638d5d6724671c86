"""Tokenizers of GGUF files beside llama.cpp, which defines what their keys mean."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import regex
from tokenizers import Tokenizer as Library

import needs
from llama_peer import LlamaCpp
from text.mistral_pieces import mistral
from text.nasty import FORGERIES, MORE
from tiny_gguf import CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED, metadata_of, write_tiny_llama
from underhood.core.errors import UserError
from underhood.infer.tokenizer_files import MissingTokenizer, load_gguf_tokenizer
from underhood.text.bpe import BytePairTokenizer
from underhood.text.chat import CHATML
from underhood.text.gguf_pre import PRE_TOKENIZERS, pre_of, split_steps
from underhood.text.huggingface import HuggingFaceTokenizer
from underhood.text.merges import apply_merges
from underhood.text.sentencepiece import SentencePieceTokenizer
from underhood.text.vocabulary import Vocabulary, spell

TEXTS = [
    *MORE,
    *FORGERIES,
    "HelloWorld parseJSON getHTTPResponse camelCase iPhone XMLHttpRequest",
    "1 12 123 1234 12345 1234567890 3,141.59 a1b22c333d4444",
    "they'll SHE'LL 'Twas ''quoted'' we'd've rock'n'roll",
    "path/to//file.txt http://a.b/c?d=e&f#g\n/\n//\r\n",
    " $5 +x <=> ^_^ ~~ |a|b| `code` \\n {[(x)]} a.b,c;d!",
    "\n\n \n  \n\t\tx\r\n\r\n y",
    "ÉCOLE ÀéÎO ÄrgerÜber ПриветМир ΑΒΓδε हिन्दीमें ภาษาไทยครับ",
]
ADDED = {"<|endoftext|>": CONTROL, "<|im_start|>": CONTROL, "<|im_end|>": CONTROL, "<think>": USER_DEFINED}
FIRST_OF_RULE = {rule: name for name, rule in reversed(list(PRE_TOKENIZERS.items()))}
PRES = [
    pytest.param(name, marks=[] if FIRST_OF_RULE[rule] == name else pytest.mark.slow)
    for name, rule in PRE_TOKENIZERS.items()
]
"""Every name; those that another name's rule covers are checked in the slow tests."""


@pytest.fixture(scope="module")
def peer() -> Iterator[LlamaCpp]:
    with LlamaCpp() as peer:
        yield peer


@functools.cache
def gpt2() -> Vocabulary:
    """GPT-2's bytes and first 4,000 merges, and one word that no merge makes."""
    folder = needs.shared_data("tokenizers", "gpt2")
    whole = BytePairTokenizer.from_gpt2_files(folder / "encoder.json", folder / "vocab.bpe").vocabulary
    ids = {token: id for token, id in whole.ids.items() if id < 256 + 4000} | {b" underhood": 256 + 4000}
    return Vocabulary(ids=ids, merges=whole.merges[:4000], special={})


def keys(pre: str | None, **more: Any) -> dict[str, Any]:
    """The tokenizer keys of a byte-level BPE file with two unused rows at the end."""
    vocabulary = gpt2()
    tokens = [spell(token) for token in vocabulary.ids]
    padding = ["[PAD1]", "[PAD2]"]
    types = [NORMAL] * len(tokens) + list(ADDED.values()) + [UNUSED] * len(padding)
    named = {} if pre is None else {"ggml.pre": pre}
    return {
        "ggml.model": "gpt2",
        **named,
        "ggml.tokens": [*tokens, *ADDED, *padding],
        "ggml.token_type": types,
        "ggml.merges": [f"{spell(left)} {spell(right)}" for left, right in vocabulary.merges],
        "ggml.bos_token_id": len(tokens),
        "ggml.eos_token_id": len(tokens),
    } | more


def write(path: Path, tokenizer: dict[str, Any]) -> Path:
    return write_tiny_llama(path, tokenizer, len(tokenizer["ggml.tokens"]))


def of(tokenizer: dict[str, Any]) -> dict[str, Any]:
    return {f"tokenizer.{key}": value for key, value in tokenizer.items()}


@pytest.mark.parametrize("pre", PRES)
def test_ids_of_every_split_rule_match_llama_cpp(pre: str, tmp_path: Path, peer: LlamaCpp):
    file = write(tmp_path / "model.gguf", keys(pre))
    assert peer.open(file) == ""
    metadata = metadata_of(file)
    tokenizer, _, roles = load_gguf_tokenizer(metadata, len(metadata["tokenizer.ggml.tokens"]))
    for text, ids in zip(TEXTS, peer.tokenize(TEXTS), strict=True):
        if pre == "deepseek-coder" and "\u2028" in text:
            continue  # llama.cpp takes it for a vertical tab there; the published rule has it in its last class
        assert tokenizer.encode(text) == ids, text
        assert tokenizer.decode_bytes(ids) == text.encode()
    [opened] = peer.tokenize(["x"], opening=True)
    assert opened == [*roles.prefix_ids, *tokenizer.encode("x")]
    [spelled] = peer.tokenize(["a<|im_end|>b <think>c"], special=True)
    tail = tokenizer.encode("b <think>c")
    assert spelled == [*tokenizer.encode("a"), tokenizer.special["<|im_end|>"], *tail]
    assert tokenizer.special.keys() == {name for name, kind in ADDED.items() if kind == CONTROL}


def test_whole_words_come_before_merges_only_where_the_rule_says_so():
    word = 256 + 4000
    assert load_gguf_tokenizer(of(keys("llama-bpe")), 5000)[0].encode(" underhood") == [word]
    assert word not in load_gguf_tokenizer(of(keys("dbrx")), 5000)[0].encode(" underhood")


def test_rules_differ_as_published():
    """The pieces by the `regex` package, which is another engine than the one that encodes."""
    text = "getHTTP's 12345 can't\n\n  /x ١٢"
    pieces = {
        "gpt-2": ["getHTTP", "'s", " 12345", " can", "'t", "\n\n ", " /", "x", " ١٢"],
        "smollm": ["getHTTP", "'s", " ", "1", "2", "3", "4", "5", " can", "'t", "\n\n ", " /", "x", " ", "١", "٢"],
        "llama-bpe": ["getHTTP", "'s", " ", "123", "45", " can", "'t", "\n\n", " ", " /", "x", " ", "١٢"],
        "gpt-4o": ["get", "HTTP's", " ", "123", "45", " can't", "\n\n", " ", " /", "x", " ", "١٢"],
        "tekken": [*["get", "HTTP", "'s"], *" 12345", " can", "'t", "\n\n", " ", " /", "x", " ", "١", "٢"],
    }  # fmt: skip
    for pre, expected in pieces.items():
        cut = [text]
        for expression in PRE_TOKENIZERS[pre].expressions:
            cut = [piece for whole in cut for piece in regex.split(f"({expression})", whole) if piece]
        assert cut == expected, pre
        tokenizer = load_gguf_tokenizer(of(keys(pre)), 5000)[0]
        vocabulary, ranks = gpt2(), gpt2().ranks()
        bytes_ = [[vocabulary.ids[bytes([byte])] for byte in piece.encode()] for piece in expected]
        assert tokenizer.encode(text) == [id for piece in bytes_ for id in apply_merges(piece, ranks)], pre


@pytest.mark.parametrize("pre", ["gpt-2", "qwen2"])
def test_plain_byte_level_vocabulary_becomes_our_own_class(pre: str):
    tokenizer = of(keys(pre))
    types = tokenizer["tokenizer.ggml.token_type"]
    tokenizer["tokenizer.ggml.token_type"] = [NORMAL if kind == USER_DEFINED else kind for kind in types]
    assert isinstance(load_gguf_tokenizer(of(keys(pre)), 5000)[0], HuggingFaceTokenizer)
    tokenizer["tokenizer.ggml.tokens"] = [
        token.replace("<think>", "Ġ<think>") for token in tokenizer["tokenizer.ggml.tokens"]
    ]
    ours = load_gguf_tokenizer(tokenizer, 5000)[0]
    assert isinstance(ours, BytePairTokenizer)
    assert ours.encode("a test") == load_gguf_tokenizer(of(keys(pre)), 5000)[0].encode("a test")


def test_split_rules_match_the_names_that_tokenizer_json_would_get():
    """`pre_of` is the way back: a tokenizer.json with a rule's steps gets a name with the same rule."""
    for rule in PRE_TOKENIZERS.values():
        data = {"pre_tokenizer": split_steps(rule), "model": {"ignore_merges": rule.ignore_merges}}
        name = pre_of(data)
        assert name is not None
        assert PRE_TOKENIZERS[name].expressions == rule.expressions
    digits = [{"type": "Digits", "individual_digits": True}, {"type": "ByteLevel", "add_prefix_space": False}]
    steps = {"type": "Sequence", "pretokenizers": digits}
    assert pre_of({"pre_tokenizer": steps, "model": {}}) == "smollm"
    assert pre_of({"pre_tokenizer": digits[1], "model": {}}) == "gpt-2"
    assert pre_of({"pre_tokenizer": digits[1] | {"add_prefix_space": True}, "model": {}}) is None
    assert pre_of({"pre_tokenizer": {"type": "Whitespace"}, "model": {}}) is None
    assert pre_of({"pre_tokenizer": None, "model": {}}) is None


# SentencePiece


@pytest.mark.parametrize("space", [True, False])
def test_sentencepiece_ids_match_llama_cpp_and_the_model_file(space: bool, tmp_path: Path, peer: LlamaCpp):
    file = write(tmp_path / "model.gguf", mistral(**{"ggml.add_space_prefix": space}))
    assert peer.open(file) == ""
    tokenizer, _, roles = load_gguf_tokenizer(metadata_of(file), 32_000)
    assert isinstance(tokenizer, SentencePieceTokenizer)
    published = SentencePieceTokenizer.load(needs.shared_data("tokenizers", "mistral-v1", "tokenizer.model"))
    for text, ids in zip(TEXTS, peer.tokenize(TEXTS), strict=True):
        assert tokenizer.encode(text) == ids, text
        if space:
            assert ids == published.encode(text)
        if text and "▁" not in text:
            assert tokenizer.decode(ids) == text
            assert tokenizer.decode_bytes(ids) == (" " if space else "").encode() + text.encode()
    [opened] = peer.tokenize(["x"], opening=True)
    assert opened == [*roles.prefix_ids, *tokenizer.encode("x")]
    assert (roles.bos_id, roles.end_ids, roles.prefix_ids) == (1, (2,), (1,))
    [spelled] = peer.tokenize(["<s>[INST] a</s>b"], special=True)
    assert tokenizer.encode_parts([1, "[INST] a", 2, "b"]) == spelled


def test_sentencepiece_without_opening_token_or_unknown_piece():
    tokenizer, _, roles = load_gguf_tokenizer(of(mistral(**{"ggml.add_bos_token": False})), 32_000)
    assert roles.prefix_ids == ()
    types = [NORMAL if kind == UNKNOWN else kind for kind in mistral()["ggml.token_type"]]
    again, *_ = load_gguf_tokenizer(of(mistral(**{"ggml.token_type": types})), 32_000)
    assert again.special == tokenizer.special
    assert again.encode("北京") == tokenizer.encode("北京")


def test_user_defined_pieces_hold_spaces_as_gemma_has_them(tmp_path: Path, peer: LlamaCpp):
    """llama.cpp's converter writes Gemma's runs of spaces with spaces, its ordinary pieces with ▁."""
    base = mistral(**{"ggml.add_space_prefix": False})
    for count in (2, 4):
        id = base["ggml.tokens"].index("▁" * count)
        base["ggml.tokens"][id], base["ggml.token_type"][id] = " " * count, USER_DEFINED
    base["ggml.tokens"].append("\n\n")
    base["ggml.token_type"].append(USER_DEFINED)
    base["ggml.scores"].append(0.0)
    file = write(tmp_path / "model.gguf", base)
    assert peer.open(file) == ""
    tokenizer, *_ = load_gguf_tokenizer(metadata_of(file), 32_001)
    texts = ["a  b    c\n\nd", "      x", "\n\n\n  y ", "no runs here"]
    assert [tokenizer.encode(text) for text in texts] == peer.tokenize(texts)
    for text in texts:
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_phi3_marks_take_the_white_space_behind_them(tmp_path: Path, peer: LlamaCpp):
    """Its Hugging Face files say so (``rstrip``); llama.cpp knows the model by its name, we by its architecture."""
    marks = {"<|user|>": CONTROL, "<|end|>": CONTROL, "<|assistant|>": CONTROL, "<|endoftext|>": CONTROL}
    base = mistral()
    base["ggml.tokens"] = [*base["ggml.tokens"], *marks]
    base["ggml.token_type"] = [*base["ggml.token_type"], *marks.values()]
    base["ggml.scores"] = [*base["ggml.scores"], *[0.0] * len(marks)]
    file = write_tiny_llama(tmp_path / "model.gguf", base, 32_004, name="Phi-3 mini")
    assert peer.open(file) == ""
    tokenizer, _, roles = load_gguf_tokenizer(metadata_of(file) | {"general.architecture": "phi3"}, 32_004)
    user, end, assistant = 32_000, 32_001, 32_002
    [theirs] = peer.tokenize(["<|user|>\n a b<|end|>\n<|assistant|>\n"], special=True)
    assert tokenizer.encode_parts([user, "\n a b", end, "\n", assistant, "\n"]) == theirs  # type: ignore[attr-defined]
    assert set(roles.end_ids) == {2, end, 32_003}


# Special tokens, templates, and what is refused


def test_ends_of_answers_by_key_and_by_name():
    assert load_gguf_tokenizer(of(keys("gpt-2")), 5000)[2].end_ids == (4257, 4259)
    named = of(keys("gpt-2", **{"ggml.eos_token_id": 4259, "ggml.eot_token_id": 4258, "ggml.eom_token_id": 99_999}))
    roles = load_gguf_tokenizer(named, 5000)[2]
    assert roles.end_ids == (4259, 4258, 4257)
    assert roles.bos_id == 4257
    harmony = keys("gpt-4o")
    harmony["ggml.tokens"][4257:4261] = ["<|return|>", "<|call|>", "<|end|>", "<|start|>"]
    harmony["ggml.token_type"][4257:4261] = [CONTROL] * 4
    assert load_gguf_tokenizer(of(harmony), 5000)[2].end_ids == (4257, 4258)


def test_ends_that_older_converters_marked_as_text_are_special():
    tokenizer, *_ = load_gguf_tokenizer(of(keys("gpt-2", **{"ggml.token_type": [NORMAL] * 4261 + [UNUSED] * 2})), 5000)
    assert tokenizer.special == {"<|endoftext|>": 4257, "<|im_end|>": 4259}
    assert not set(tokenizer.special.values()) & set(tokenizer.encode("<|endoftext|><|im_end|>"))


def test_padding_rows_are_no_tokens():
    tokenizer, *_ = load_gguf_tokenizer(of(keys("gpt-2")), 4263)
    assert tokenizer.vocab_size == 4261
    tokenizer, *_ = load_gguf_tokenizer(
        of(mistral(**{"ggml.token_type": [*mistral()["ggml.token_type"][:-3], *[UNUSED] * 3]})), 32_000
    )
    assert tokenizer.vocab_size == 31_997


def test_chat_templates_by_name():
    source = "{% for m in messages %}{{ bos_token + m.content }}{% endfor %}"
    _, template, _ = load_gguf_tokenizer(
        of(keys("gpt-2", chat_template=source, **{"chat_template.tool_use": "other", "chat_templates": ["tool_use"]})),
        5000,
        where="model.gguf",
    )
    assert template is not None
    assert template.jinja == source
    assert (
        template.render(load_gguf_tokenizer(of(keys("gpt-2")), 5000)[0], [{"role": "user", "content": "x"}]).ids[0]
        == 4257
    )
    assert load_gguf_tokenizer(of(keys("gpt-2", chat_template=CHATML.jinja)), 5000)[1] is CHATML
    without = keys("gpt-2")
    without["ggml.tokens"][4258] = "<other>"
    assert load_gguf_tokenizer(of(without), 5000)[1] is None


def test_file_without_tokenizer_gives_a_placeholder():
    for metadata in ({}, {"tokenizer.ggml.model": "no_vocab"}):
        tokenizer, template, roles = load_gguf_tokenizer(metadata, 100, where="model.gguf")
        assert isinstance(tokenizer, MissingTokenizer)
        assert template is None
        assert roles.end_ids == ()
        with pytest.raises(UserError, match=r"model\.gguf holds no tokenizer"):
            tokenizer.encode("x")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ggml.pre": "qwen3"}, "not known here: tokenizer.ggml.pre = 'qwen3'.*expected .*llama-bpe.*Hugging Face"),
        ({"ggml.pre": None}, "has no tokenizer.ggml.pre.*expected .*llama-bpe.*Convert"),
        ({"ggml.model": "bert"}, "tokenizer.ggml.model = 'bert'.*expected gpt2"),
        ({"ggml.tokens": None}, "tokenizer.ggml.tokens is broken.*got nothing"),
        ({"ggml.tokens": [1, 2]}, "tokenizer.ggml.tokens is broken"),
        ({"ggml.tokens": ["a"] * 4263}, "has 4262 tokens twice"),
        ({"ggml.merges": None}, "tokenizer.ggml.merges is broken"),
        ({"ggml.merges": ["nothing here"]}, "model.gguf"),
        ({"ggml.token_type": [1]}, "tokenizer.ggml.token_type is broken.*got 1 for 4263 tokens"),
        ({"ggml.bos_token_id": "x"}, "tokenizer.ggml.bos_token_id is broken"),
        ({"chat_template": 7}, "chat template 'default' is broken"),
        ({"ggml.model": "llama"}, "tokenizer.ggml.scores is broken.*got 0 for 4261"),
    ],
)
def test_broken_and_unknown_keys_are_refused_by_name(change: dict[str, Any], message: str):
    with pytest.raises(UserError) as caught:
        load_gguf_tokenizer(of(keys("gpt-2") | change), 5000, where="model.gguf")
    assert re.search(message, str(caught.value).replace("\n", " ")), str(caught.value)
    assert "model.gguf" in caught.value.what


def test_more_tokens_than_rows_are_refused():
    with pytest.raises(UserError, match="more tokens than its model has embeddings"):
        load_gguf_tokenizer(of(keys("gpt-2")), 4260)


def test_library_ids_of_minimind_match_the_file_made_from_it(tmp_path: Path, peer: LlamaCpp):
    """A published tokenizer.json written as GGUF keys: the library that defines it is the oracle."""
    path = needs.shared_data("tokenizers", "minimind", "tokenizer.json")
    data = json.loads(path.read_text(encoding="utf-8"))
    added = {token["id"]: token for token in data["added_tokens"]}
    tokens = sorted(data["model"]["vocab"], key=data["model"]["vocab"].__getitem__)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in data["model"]["merges"]]
    types = [
        (CONTROL if added[id]["special"] else USER_DEFINED) if id in added else NORMAL for id in range(len(tokens))
    ]
    pre = pre_of(data)
    assert pre is not None
    made = {
        "ggml.model": "gpt2",
        "ggml.pre": pre,
        "ggml.tokens": tokens,
        "ggml.merges": merges,
        "ggml.token_type": types,
    }
    file = write(tmp_path / "model.gguf", made)
    assert peer.open(file) == ""
    library = Library.from_file(str(path))
    library.encode_special_tokens = True
    tokenizer, *_ = load_gguf_tokenizer(metadata_of(file), len(tokens))
    for text, theirs in zip(TEXTS, peer.tokenize(TEXTS), strict=True):
        assert tokenizer.encode(text) == library.encode(text, add_special_tokens=False).ids == theirs, text


def test_smollm2_ids_and_conversations_match_llama_cpp(smollm2_gguf: Path, peer: LlamaCpp):
    """The whole real file: a rule of two steps, 21 bytes without a token, 17 special tokens, a chat template."""
    assert peer.open(smollm2_gguf) == ""
    tokenizer, template, roles = load_gguf_tokenizer(metadata_of(smollm2_gguf), 49_152)
    for text, ids in zip(TEXTS, peer.tokenize(TEXTS), strict=True):
        assert tokenizer.encode(text) == ids, text
    assert (roles.bos_id, set(roles.end_ids), roles.prefix_ids) == (1, {0, 2}, ())
    assert template is not None
    assert template.stop_ids(tokenizer)[0] == tokenizer.special["<|im_end|>"]
    messages = [{"role": "user", "content": "What is 12 + 30?"}]
    text = peer.render(messages)
    assert peer.tokenize([text], special=True) == [template.render(tokenizer, messages, add_generation_prompt=True).ids]
