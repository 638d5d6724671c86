"""Streaming text never shows half a character, and ends with exactly the decoded text."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tiny_run import tiny_tokenizer

from underhood.infer.text_stream import TextDecoder, decode_stream

TOKENIZER = tiny_tokenizer()


@given(st.lists(st.integers(0, TOKENIZER.vocab_size - 1), max_size=40))
def test_stream_of_any_ids_spells_their_decoding(ids: list[int]) -> None:
    pieces = list(decode_stream(TOKENIZER, ids))
    assert "".join(pieces) == TOKENIZER.decode(ids)
    assert all(pieces)


@given(st.text(max_size=30))
def test_stream_of_a_text_never_shows_a_replacement_character(text: str) -> None:
    shown = ""
    for piece in decode_stream(TOKENIZER, TOKENIZER.encode(text)):
        shown += piece
        assert text.startswith(shown)
    assert shown == text


def test_bytes_of_an_unfinished_character_wait() -> None:
    face = TOKENIZER.encode("🙃")
    assert len(face) > 1
    decoder = TextDecoder(TOKENIZER)
    assert [decoder.push(id) for id in face] == [""] * (len(face) - 1) + ["🙃"]
    assert decoder.finish() == ""
    assert decoder.push(face[0]) == ""
    assert decoder.finish() == "\ufffd"
    # What the care is for: decoding each token alone loses the character.
    assert "".join(TOKENIZER.decode([id]) for id in face) != "🙃"
