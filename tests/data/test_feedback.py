"""Feedback in SQLite, and the preference pairs it makes."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest

from underhood.core.errors import UserError
from underhood.data.feedback import Feedback, FeedbackStore, feedback_pairs, read_feedback

ASK = [{"role": "user", "content": "What is a list?"}]
OTHER = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "And a tuple?"}]


def said(answer: str, rating=None, edit=None, messages=ASK, **more) -> Feedback:
    return Feedback(model="tiny:dpo", messages=messages, answer=answer, rating=rating, edit=edit, **more)


def pairs_of(*feedback: Feedback) -> set[tuple[str, str]]:
    return {(pair.chosen, pair.rejected) for pair in feedback_pairs(feedback)}


def test_what_is_kept_comes_back_whole_while_the_store_is_open(tmp_path: Path):
    store = FeedbackStore(tmp_path / "new" / "feedback.db")
    kept = said("A ü sequence 🙂", "down", "Better.", OTHER, comment="why", completion="chatcmpl-1", time=1.5)
    assert store.add(kept) == 1
    assert store.add(said("x", "up")) == 2
    first, second = read_feedback(store.path)
    assert first == kept
    assert second.time > 1e9
    mode = sqlite3.connect(store.path).execute("PRAGMA journal_mode").fetchone()
    assert mode == ("wal",)
    store.close()
    again = FeedbackStore(store.path)
    assert again.add(said("y", "up")) == 3
    again.close()


def test_many_threads_lose_nothing(tmp_path: Path):
    store = FeedbackStore(tmp_path / "feedback.db")
    threads = [
        threading.Thread(target=lambda n=n: [store.add(said(f"{n} {i}", "up")) for i in range(20)]) for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({item.answer for item in read_feedback(store.path)}) == 80
    store.close()


def test_file_that_is_none_of_ours_is_one_line(tmp_path: Path):
    (tmp_path / "text.db").write_text("no database at all" * 100)
    with pytest.raises(UserError, match=r"text\.db"):
        read_feedback(tmp_path / "text.db")
    with pytest.raises(UserError, match=r"text\.db"):
        FeedbackStore(tmp_path / "text.db")
    with pytest.raises(UserError, match="no feedback"):
        read_feedback(tmp_path / "none.db")


def test_edit_is_preferred_to_what_was_edited():
    (pair,) = feedback_pairs([said("bad", None, " good ")])
    assert (pair.prompt, pair.chosen, pair.rejected) == (tuple(ASK), "good", "bad")


def test_up_is_preferred_to_down_for_the_same_question_only():
    assert pairs_of(said("a", "up"), said("b", "down"), said("c", "down")) == {("a", "b"), ("a", "c")}
    assert pairs_of(said("a", "up"), said("b", "down", messages=OTHER)) == set()
    assert pairs_of(said("a", "up"), said("b", "up")) == set()


def test_edits_beat_everything_turned_down():
    assert pairs_of(said("a", "down", "e"), said("b", "down")) == {("e", "a"), ("e", "b")}


def test_last_opinion_counts():
    assert pairs_of(said("a", "up"), said("b", "down"), said("a", "down"), said("b", "up")) == {("b", "a")}


def test_contradictions_and_empty_edits_make_no_pair():
    assert pairs_of(said("a", None, "b"), said("b", None, "a")) == set()
    assert pairs_of(said("a", None, "a"), said("a", None, "  ")) == set()
    assert pairs_of(said("", "down"), said("b", "up")) == set()


def test_conversations_that_our_form_cannot_show_are_passed_over():
    call = [*ASK, {"role": "assistant", "content": ""}, {"role": "tool", "content": "1", "tool_call_id": "x"}]
    assert pairs_of(said("a", None, "b", call)) == set()
    assert pairs_of(said("a", None, "b", [{"role": "assistant", "content": "x"}])) == set()
    assert pairs_of(said("a", None, "b", [])) == set()
