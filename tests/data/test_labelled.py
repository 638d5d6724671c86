"""Labelled texts from tables: columns found, splits fair, mistakes named."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from needs import shared_data
from underhood.core.errors import UserError
from underhood.data.labelled import Labelled, read_labelled, split_labelled

WANTED = [("good, really", "1"), ('a "bad" one', "0"), ("fine", "1")]
FILES = {
    "headless.tsv": 'good, really\t1\na "bad" one\t0\nfine\t1\n',
    "turned.tsv": '1\tgood, really\n0\ta "bad" one\n1\tfine\n',
    "header.tsv": 'label\tid\tSentence\n1\t7\tgood, really\n0\t8\ta "bad" one\n1\t9\tfine\n',
    "quoted.csv": 'text,label\n"good, really",1\n"a ""bad"" one",0\nfine,1\n',
    "lines.jsonl": "".join(json.dumps({"review": text, "sentiment": int(label)}) + "\n" for text, label in WANTED),
}


@pytest.mark.parametrize("name", FILES)
def test_tables_of_every_kind_give_the_same_texts(tmp_path: Path, name: str):
    (tmp_path / name).write_text(FILES[name])
    actual = read_labelled(tmp_path / name)
    assert [(example.text, example.label) for example in actual] == WANTED
    first = 2 if name in ("header.tsv", "quoted.csv") else 1
    assert actual[0].source == f"{name} line {first}"


def test_parquet_and_named_columns(tmp_path: Path):
    pq.write_table(
        pa.table({"a": [text for text, _ in WANTED], "b": [label for _, label in WANTED]}), tmp_path / "x.parquet"
    )
    actual = read_labelled(tmp_path / "x.parquet", text="a", label="b")
    assert [(example.text, example.label) for example in actual] == WANTED
    with pytest.raises(UserError, match=r"no column that is known to hold the text.*--text-column"):
        read_labelled(tmp_path / "x.parquet")
    with pytest.raises(UserError, match=r"no column 'c'"):
        read_labelled(tmp_path / "x.parquet", text="c")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a\t1\nb\n", r"line 2 has another number of columns; expected 2"),
        ("text\tlabel\n \t1\n", r"line 2 has no text in 'text'"),
        ("text\tlabel\nx\t\n", r"line 2 has no label in 'label'"),
        ("a\tb\tc\nd\te\tf\n", r"no header, and 3 columns"),
    ],
)
def test_mistakes_are_named_by_their_line(tmp_path: Path, content: str, message: str):
    (tmp_path / "x.tsv").write_text(content)
    with pytest.raises(UserError, match=message):
        read_labelled(tmp_path / "x.tsv")


def test_split_keeps_the_balance_and_equal_texts_together():
    examples = [Labelled(f"text {n % 180}", "ab"[n % 180 % 3 == 0], f"{n}") for n in range(200)]
    learn, test = split_labelled(examples, test=0.2, seed=0)
    assert len(learn) + len(test) == 200
    assert abs(len(test) - 40) <= 6
    assert not {example.text for example in learn} & {example.text for example in test}
    share = {label: count / 200 for label, count in Counter(example.label for example in examples).items()}
    for piece in (learn, test):
        for label, count in Counter(example.label for example in piece).items():
            assert abs(count / len(piece) - share[label]) < 0.06
    assert split_labelled(examples, test=0.2, seed=0) == (learn, test)
    with pytest.raises(UserError, match="at least two labels"):
        split_labelled([example for example in examples if example.label == "a"], test=0.2, seed=0)


def test_the_sentences_of_uci_are_read():
    actual = [
        example
        for name in ("amazon_cells", "imdb")
        for example in read_labelled(shared_data("sentiment", "uci", f"{name}_labelled.txt"))
    ]
    assert Counter(example.label for example in actual) == {"0": 1000, "1": 1000}
