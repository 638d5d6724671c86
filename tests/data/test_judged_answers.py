"""Judged answers of a file: the forms, and mistakes named by file and line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from underhood.core.errors import UserError
from underhood.data.judged_answers import Form, read_answers_to_score, read_judged_answers

ALL: tuple[Form, ...] = ("pairs", "rankings", "labels")
TURNS = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Hi"}]
GOOD, BAD = ([{"role": "assistant", "content": text}] for text in ("Hello", "No"))


def write(folder: Path, *records: Any, name: str = "a.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return path


def test_pairs_as_texts_and_as_messages_and_without_a_prompt_read_alike(tmp_path: Path):
    path = write(
        tmp_path,
        {"prompt": "Hi", "chosen": "Hello", "rejected": "No", "margin": 2},
        {"prompt": TURNS, "chosen": GOOD, "rejected": BAD},
        {"chosen": [*TURNS, *GOOD], "rejected": [*TURNS, *BAD], "score": 1},
        {"prompt": "Hi", "chosen": "Same", "rejected": "Same"},
    )
    file = read_judged_answers(path, ALL)
    assert (file.form, file.equal, file.unused) == ("pairs", 1, {"score": 1})
    first, second, third = file.examples
    assert first.messages == ({"role": "user", "content": "Hi"},)
    assert (first.margin, first.source) == (2, "a.jsonl line 1")
    assert {each.answers for each in file.examples} == {("Hello", "No")}
    assert second.messages == third.messages == tuple(TURNS)


def test_rankings_and_labels(tmp_path: Path):
    path = write(tmp_path, {"prompt": "x", "answers": ["a", "b", "c"], "ranking": [2, 1, 2]})
    [ranking] = read_judged_answers(path, ALL).examples
    assert (ranking.answers, ranking.ranks) == (("a", "b", "c"), (2, 1, 2))
    path = write(tmp_path, *({"prompt": "x", "completion": "a", "label": label} for label in (True, False, 1, 0)))
    assert [each.ranks for each in read_judged_answers(path, ALL).examples] == [(0,), (1,), (0,), (1,)]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"prompt": "x", "chosen": "a"}, "line 2 has no rejected"),
        ({"prompt": "x", "chosen": "a", "rejected": " "}, "line 2: rejected is empty"),
        ({"prompt": "x", "chosen": "a", "rejected": 3}, "line 2: rejected is not a text"),
        ({"prompt": " ", "chosen": "a", "rejected": "b"}, "line 2: the prompt is empty"),
        ({"prompt": [*TURNS, *GOOD], "chosen": "a", "rejected": "b"}, "line 2: the prompt ends with an answer"),
        ({"prompt": [{"role": "judge", "content": ""}], "chosen": "a", "rejected": "b"}, "line 2: message 0"),
        ({"chosen": "a", "rejected": "b"}, "line 2 has no prompt"),
        ({"chosen": [*TURNS, *GOOD], "rejected": [*TURNS[1:], *BAD]}, "line 2: the two conversations differ"),
        ({"prompt": TURNS, "chosen": [*GOOD, *TURNS], "rejected": BAD}, "line 2: .*system message"),
        ({"prompt": "x", "chosen": TURNS[1:], "rejected": BAD}, "line 2: chosen is not one answer"),
        ({"prompt": "x", "chosen": "a", "rejected": "b", "margin": "big"}, "line 2: margin is not a number"),
        (["prompt"], "line 2 is not a JSON object"),
    ],
)
def test_bad_pair_is_named_by_its_line(tmp_path: Path, record: Any, message: str):
    path = write(tmp_path, {"prompt": "x", "chosen": "a", "rejected": "b"}, record)
    with pytest.raises(UserError, match=message):
        read_judged_answers(path, ALL)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"prompt": "x", "answers": ["a"], "ranking": [1]}, "not a list of two or more"),
        ({"prompt": "x", "answers": ["a", "b"], "ranking": [1]}, "the rank of each answer"),
        ({"prompt": "x", "answers": ["a", "b"], "ranking": ["first", 2]}, "the rank of each answer"),
        ({"prompt": "x", "answers": ["a", "b"], "ranking": [1, 1]}, "nothing is compared"),
        ({"prompt": "x", "completion": "a", "label": "good"}, "label is not true or false"),
        ({"question": "x"}, "Known forms are"),
    ],
)
def test_bad_ranking_or_label_is_explained(tmp_path: Path, record: Any, message: str):
    with pytest.raises(UserError, match=message):
        read_judged_answers(write(tmp_path, record), ALL)


def test_form_that_is_not_learnt_from_an_unknown_ending_and_nothing_but_equal_answers(tmp_path: Path):
    labels = write(tmp_path, {"prompt": "x", "completion": "a", "label": True})
    with pytest.raises(UserError, match="holds labels, which this does not learn from"):
        read_judged_answers(labels, ("pairs",))
    with pytest.raises(UserError, match=r"can't read"):
        read_judged_answers(tmp_path / "a.txt", ALL)
    with pytest.raises(UserError, match="two equal answers"):
        read_judged_answers(write(tmp_path, {"prompt": "x", "chosen": "a", "rejected": "a"}), ALL)


def test_answers_to_score(tmp_path: Path):
    path = write(tmp_path, {"prompt": "x", "answer": "a"}, {"prompt": TURNS, "answers": ["b", "c"]})
    assert [each.answers for each in read_answers_to_score(path)] == [("a",), ("b", "c")]
    with pytest.raises(UserError, match="line 1 has no answer to score"):
        read_answers_to_score(write(tmp_path, {"prompt": "x"}))
