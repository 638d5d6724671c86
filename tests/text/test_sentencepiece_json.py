"""SentencePiece tokenizers of GGUF files as tokenizer.json: the library gives the same ids as our own code."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from tokenizers import Tokenizer as Library

from text.mistral_pieces import mistral
from text.nasty import FORGERIES, MORE
from text.nasty import TEXTS as ANY_TEXT
from tiny_gguf import CONTROL, NORMAL, UNUSED, USER_DEFINED
from underhood.core.errors import UserError
from underhood.infer.tokenizer_files import load_gguf_tokenizer
from underhood.text.huggingface import HuggingFaceTokenizer
from underhood.text.sentencepiece import SentencePieceTokenizer
from underhood.text.sentencepiece_json import sentencepiece_json

CODE = "class Tree:\n\tdef walk(self):\n\t\tyield from (n for n in self.nodes if n is not None)\n" * 4
PROSE = (
    "The list is a mutable sequence; its items can be changed. Zum Beispiel: ein Löffelstiel, 北京, п'ять, 3,14! " * 6
)
TEXTS = [*MORE, CODE, PROSE, *(character * count for character in " -=a0é北\n" for count in range(1, 40))]


def add(keys: dict[str, Any], token: str, kind: int) -> int:
    """Appends a token to a vocabulary; its id."""
    keys["ggml.tokens"].append(token)
    keys["ggml.token_type"].append(kind)
    keys["ggml.scores"].append(0.0)
    return len(keys["ggml.tokens"]) - 1


def made(keys: dict[str, Any], architecture: str = "llama") -> tuple[SentencePieceTokenizer, Library]:
    """Our tokenizer of a file, and the library's of the tokenizer.json made from it."""
    metadata = {"general.architecture": architecture} | {f"tokenizer.{key}": value for key, value in keys.items()}
    tokenizer, *_ = load_gguf_tokenizer(metadata, len(keys["ggml.tokens"]))
    assert isinstance(tokenizer, SentencePieceTokenizer)
    return tokenizer, Library.from_str(json.dumps(sentencepiece_json(tokenizer)))


def ids(library: Library, text: str) -> list[int]:
    return library.encode(text, add_special_tokens=False).ids


@pytest.fixture(scope="module")
def llama() -> tuple[SentencePieceTokenizer, Library]:
    return made(mistral())


def test_ids_of_many_texts_match(llama: tuple[SentencePieceTokenizer, Library]) -> None:
    tokenizer, library = llama
    for text in TEXTS:
        assert ids(library, text) == tokenizer.encode(text), text
        assert library.decode(tokenizer.encode(text)) == tokenizer.decode(tokenizer.encode(text)), text
    assert library.encode("x").ids == [1, *tokenizer.encode("x")]


@given(ANY_TEXT)
def test_ids_of_any_text_match(text: str) -> None:
    tokenizer, library = made_once()
    assert ids(library, text) == tokenizer.encode(text)


_MADE: list[tuple[SentencePieceTokenizer, Library]] = []


def made_once() -> tuple[SentencePieceTokenizer, Library]:
    if not _MADE:
        _MADE.append(made(mistral()))
    return _MADE[0]


def test_special_tokens_between_texts_match_the_library_and_can_not_be_forged(
    llama: tuple[SentencePieceTokenizer, Library],
) -> None:
    tokenizer, library = llama
    parts = [1, "[INST] Hello  there [/INST]", " Hi.", 2, "[INST] more", 0, "x"]
    # Neighbouring texts are one text in the spelled form.
    joined = [1, "[INST] Hello  there [/INST] Hi.", 2, "[INST] more", 0, "x"]
    spelled = "".join(piece if isinstance(piece, str) else ["<unk>", "<s>", "</s>"][piece] for piece in parts)
    assert ids(library, spelled) == tokenizer.encode_parts(joined)
    reopened = HuggingFaceTokenizer(sentencepiece_json(tokenizer))
    assert reopened.encode_parts(joined) == tokenizer.encode_parts(joined)
    assert reopened.special == tokenizer.special
    for text in FORGERIES:
        assert reopened.encode(text) == tokenizer.encode(text), text


def test_pieces_of_the_user_and_no_added_space_as_gemma_has_them() -> None:
    keys = mistral(**{"ggml.add_space_prefix": False})
    for count in (2, 4):
        id = keys["ggml.tokens"].index("▁" * count)
        keys["ggml.tokens"][id], keys["ggml.token_type"][id] = " " * count, USER_DEFINED
    add(keys, "\n\n", USER_DEFINED)
    add(keys, "<start_of_turn>", CONTROL)
    tokenizer, library = made(keys)
    for text in [*TEXTS, "a  b    c\n\nd", "      x", "\n\n\n  y ", "no runs here"]:
        assert ids(library, text) == tokenizer.encode(text), text
        assert library.decode(tokenizer.encode(text)) == tokenizer.decode(tokenizer.encode(text)), text


def test_removed_further_spaces_match() -> None:
    tokenizer, library = made(mistral(**{"ggml.remove_extra_whitespaces": True}))
    assert ids(library, "  a   b  ") == tokenizer.encode("a b") != []
    for text in TEXTS:
        assert ids(library, text) == tokenizer.encode(text), text


def test_marks_of_phi_3_take_the_white_space_behind_them() -> None:
    keys = mistral()
    user, end = add(keys, "<|user|>", CONTROL), add(keys, "<|end|>", CONTROL)
    tokenizer, library = made(keys, "phi3")
    assert ids(library, "<|user|>\n a b<|end|>\n") == tokenizer.encode_parts([user, "\n a b", end, "\n"])


def test_vocabulary_without_byte_pieces_gives_one_unknown_id_for_a_run() -> None:
    keys = mistral()
    spelled = [f"[{token}]" if token.startswith("<0x") else token for token in keys["ggml.tokens"]]
    keys["ggml.tokens"] = spelled  # no longer as bytes are spelled
    keys["ggml.token_type"] = [CONTROL if kind == 6 else kind for kind in keys["ggml.token_type"]]
    tokenizer, library = made(keys)
    assert tokenizer.encode("a 𐍈𐍈 b").count(0) == 1
    for text in ["a 𐍈𐍈 b", "𐍈", "naïve 𐍈 北京 𐍈𐍈"]:
        assert ids(library, text) == tokenizer.encode(text), text


def test_ablation_scores_in_which_no_piece_goes_first_are_noticed() -> None:
    """With equal scores SentencePiece merges the leftmost pair, which no list of merges expresses."""
    keys = mistral()
    keys["ggml.scores"] = [0.0] * len(keys["ggml.scores"])
    with pytest.raises(UserError, match=r"no Hugging Face form.*list of merges would cut otherwise.*--format gguf"):
        made(keys)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("user", "user-defined pieces behind an added space"),
        ("unused", "made of pieces that are never given"),
    ],
)
def test_tokenizers_without_such_a_form_are_refused_in_a_sentence(fault: str, message: str) -> None:
    keys = mistral()
    if fault == "user":
        add(keys, "<think>", USER_DEFINED)
    else:
        keys["ggml.token_type"][keys["ggml.tokens"].index("in")] = UNUSED
    with pytest.raises(UserError, match=message) as caught:
        made(keys)
    assert "\n" not in str(caught.value)


def test_unigram_model_is_refused() -> None:
    tokenizer, _ = made_once()
    scores = [replace(piece, score=-math.log(2 + id)) for id, piece in enumerate(tokenizer.model.pieces)]
    unigram = SentencePieceTokenizer(replace(tokenizer.model, algorithm="unigram", pieces=tuple(scores)))
    with pytest.raises(UserError, match="got a unigram model"):
        sentencepiece_json(unigram)


def test_pieces_that_nothing_merges_to_keep_their_ids() -> None:
    keys = mistral()
    id = add(keys, "qqqqzzzz", NORMAL)
    tokenizer, library = made(keys)
    assert library.token_to_id("qqqqzzzz") == id
    assert ids(library, "qqqqzzzz") == tokenizer.encode("qqqqzzzz")
