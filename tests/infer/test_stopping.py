"""Stop strings: whatever the token borders, the text is the decoding cut at the stop, and nothing is taken back."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiny_run import tiny_tokenizer

from underhood.infer.stopping import StopStrings, Writer

TOKENIZER = tiny_tokenizer()
OF_BYTES = {TOKENIZER.decode_bytes([id]): id for id in range(TOKENIZER.vocab_size)}
BYTES = [OF_BYTES[bytes([byte])] for byte in range(256)]
SHORT_TEXTS = st.text("abé🙂", max_size=5)
STOPS = st.lists(SHORT_TEXTS.filter(bool), max_size=4)


def cut(text: str, stops: list[str]) -> tuple[str, str | None]:
    """The text up to the stop string that ends first, the longest if several end there: by looking at all of it."""
    for end in range(1, len(text) + 1):
        ended = [stop for stop in stops if text[:end].endswith(stop)]
        if ended:
            return text[: end - max(map(len, ended))], max(ended, key=len)
    return text, None


@given(st.lists(SHORT_TEXTS, max_size=12), STOPS)
@example(["a", "aab"], ["aab"])  # the beginning of a match has to be found again inside a broken one
@example(["abé", "ab🙂"], ["abéab🙂", "éa"])
@settings(max_examples=200)
def test_pieces_of_any_size_match_cutting_the_whole_text(pieces: list[str], stops: list[str]) -> None:
    matcher, shown, stopped = StopStrings(stops), "", False
    expected, actual = cut("".join(pieces), stops)
    for piece in pieces:
        shown += matcher.push(piece)
        # Never anything that has to be taken back, and no less than what is certain.
        assert expected.startswith(shown)
        stopped = stopped or matcher.found is not None
    shown += matcher.finish()
    assert (shown, matcher.found) == (expected, actual)
    assert stopped == (actual is not None)


@given(st.lists(st.integers(0, TOKENIZER.vocab_size - 1), max_size=24), STOPS, st.booleans())
@settings(max_examples=150)
def test_tokens_of_any_split_match_cutting_the_decoded_text(ids: list[int], stops: list[str], bytewise: bool) -> None:
    if bytewise:  # the same text, every byte a token of its own
        ids = [BYTES[byte] for byte in TOKENIZER.decode_bytes(ids)]
    writer, shown = Writer(TOKENIZER, stops), ""
    expected, actual = cut(TOKENIZER.decode(ids), stops)
    for id in ids:
        shown += writer.push(id)
        assert expected.startswith(shown)
        if writer.stopped:
            break
    shown += writer.finish()
    assert (shown, writer.stopped) == (expected, actual is not None)


@given(st.text("ab🙂\n", max_size=40), st.sampled_from(["🙂a", "ab", "\n\n", "bb🙂"]), st.integers(0, 40))
@settings(max_examples=100)
def test_a_stop_string_is_found_wherever_token_borders_fall(text: str, stop: str, at: int) -> None:
    text = text[:at] + stop + text[at:]
    for ids in (TOKENIZER.encode(text), [BYTES[byte] for byte in text.encode()]):
        writer = Writer(TOKENIZER, [stop])
        assert "".join(writer.push(id) for id in ids) == text[: text.index(stop)]
        assert writer.stopped


def test_text_is_held_back_only_as_long_as_it_may_become_a_stop_string() -> None:
    stops = StopStrings(["User:", "\n\n"])
    assert [stops.push(c) for c in "a\nb Us Use"] == ["a", "", "\nb", " ", "", "", "Us ", "", "", ""]
    assert stops.push("d") == "Used"
    assert stops.push("U") == ""
    assert stops.finish() == "U"


def test_a_character_that_is_never_completed_may_itself_be_the_stop_string() -> None:
    half = BYTES["é".encode()[0]]
    writer = Writer(TOKENIZER, ["\ufffd"])
    assert [writer.push(BYTES[ord("x")]), writer.push(half), writer.finish()] == ["x", "", ""]
    assert writer.stopped
