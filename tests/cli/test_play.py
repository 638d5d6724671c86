"""Shannon's game in the terminal: what the player types, and what is counted."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from underhood.cli import play
from underhood.core.errors import UserError
from underhood.evals import guessing_game


def game(passage: str, known: int, *lines: str) -> tuple[list[int], str]:
    output: list[str] = []
    typed = iter(lines)
    return guessing_game.play(passage, known, lambda _: next(typed, None), output.append), "\n".join(output)


def test_play_counts_guesses_letter_by_letter():
    assert game("the cat", 4, "x", "c", "a", "zzt")[0] == [2, 1, 2]


def test_play_never_shows_a_letter_before_it_is_found():
    _, output = game("abc q", 3, "x")
    assert "q" not in output


def test_play_takes_the_underline_or_nothing_but_spaces_as_the_space():
    assert game("ab cd", 2, "_")[0] == [1]
    assert game("ab cd", 2, " ")[0] == [1]


def test_play_gives_a_letter_away_by_going_through_the_common_ones():
    assert game("abz", 2, "q", "?")[0] == [27]
    assert game("abe", 2, "?")[0] == [2]


def test_play_counts_no_letter_twice_and_refuses_digits():
    guesses, output = game("abz", 2, "xx", "x", "7", "z")
    assert guesses == [2]
    assert "7 is not a letter" in output


def test_play_ends_at_an_empty_line_and_keeps_what_was_played():
    assert game("abcd", 2, "c", "")[0] == [1]


def test_play_refuses_a_text_that_is_too_short_or_not_there(tmp_path: Path):
    (tmp_path / "short.txt").write_text("too short", encoding="utf-8")
    with pytest.raises(UserError, match="too short"):
        play.run(play.Args(text=tmp_path / "short.txt"))
    with pytest.raises(UserError, match="cannot read"):
        play.run(play.Args(text=tmp_path / "none.txt"))


def test_play_shannon_shows_everybody_on_the_same_letters(tmp_path: Path, monkeypatch, capsys):
    import underhood.data.letters as letters

    line = "the quick brown fox jumps over the lazy dog and runs away "
    monkeypatch.setattr(letters, "plain_english", lambda: ((line * 20,), (line * 5,)))
    monkeypatch.setattr("sys.stdin", io.StringIO("?\n" * 5))
    assert play.run(play.Args(letters=5, known=30, seed=1)) == 0
    shown = capsys.readouterr().out
    assert "you" in shown
    assert "5 of 5" in shown  # the n-gram has read this line twenty times
    assert "80 of 99" in shown or "80 of 100" in shown
