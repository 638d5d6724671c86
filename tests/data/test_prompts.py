"""Files of prompts: every form, and bad records named by line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from underhood.core.errors import UserError
from underhood.data.arithmetic_problems import addition_problems
from underhood.data.prompts import read_prompts


def file_of(folder: Path, *records: Any) -> Path:
    path = folder / "prompts.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


USER = {"role": "user", "content": "Hi"}


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": "Hi", "answer": "x"},
        {"question": "Hi", "answer": "x"},
        {"problem": "Hi"},
        {"instruction": "Hi"},
        {"prompt": [USER]},
        {"messages": [USER, {"role": "assistant", "content": "Hello"}]},
    ],
)
def test_every_form_gives_the_same_prompt(tmp_path: Path, record: dict[str, Any]):
    [prompt] = read_prompts(file_of(tmp_path, record))
    assert [dict(message) for message in prompt.messages] == [USER]
    assert prompt.text == "Hi"
    assert prompt.record == record


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"answer": "2"}, "lacks the field 'prompt'"),
        ({"prompt": "  "}, "the prompt is empty"),
        ({"prompt": 3}, "neither text nor a list of messages"),
        ({"prompt": [{"role": "wizard", "content": "x"}]}, "unknown role"),
        ({"prompt": [{"role": "system", "content": "x"}]}, "the last turn is not the user's"),
        ([1], "not a JSON object"),
    ],
)
def test_a_bad_record_is_named_by_its_line(tmp_path: Path, bad: Any, message: str):
    path = file_of(tmp_path, {"prompt": "1+1=", "answer": "2"}, bad)
    with pytest.raises(UserError, match=rf"prompts.jsonl line 2.*{message}"):
        read_prompts(path)


def test_a_file_without_prompts_says_what_it_has(tmp_path: Path):
    with pytest.raises(UserError, match=r"line 1 has no prompt.*text, label"):
        read_prompts(file_of(tmp_path, {"text": "a", "label": 1}))


def test_addition_problems_are_all_sums_once():
    problems = addition_problems(9)
    assert len({problem.prompt for problem in problems}) == 100
    for problem in problems:
        a, b = problem.prompt.removesuffix("=").split("+")
        assert int(a) + int(b) == int(problem.answer)
    assert addition_problems(9, count=5, seed=1) == addition_problems(9, count=5, seed=1)
    with pytest.raises(ValueError, match="there are 100"):
        addition_problems(9, count=101)
