"""Tables as spreadsheets write them: the separator is seen, not believed."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from needs import shared_data
from underhood.core.errors import UserError
from underhood.data.labelled import read_labelled

ROWS = [("text", "label"), ("It is good; really, very", "1"), ('He said "no"', "0"), ("a, b | c", "1")]
EXPECTED = [(text, label) for text, label in ROWS[1:]]


def read(path: Path, **options: str) -> list[tuple[str, str]]:
    return [(example.text, example.label) for example in read_labelled(path, **options)]


def written(separator: str, rows: list[tuple[str, str]] = ROWS) -> str:
    out = io.StringIO()
    csv.writer(out, delimiter=separator).writerows(rows)
    return out.getvalue()


@pytest.mark.parametrize("name", ["excel.csv", "excel16.txt"])
def test_given_tables_are_read(name: str):
    examples = read(shared_data("faults", name))
    assert len(examples) == 60
    assert examples[:2] == [("This is bad, number 0", "0"), ("That is good, number 1", "1")]


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".txt"])
@pytest.mark.parametrize("separator", [",", ";", "|"])
def test_separator_is_the_headers_whatever_the_ending(tmp_path: Path, ending: str, separator: str):
    path = tmp_path / f"table{ending}"
    path.write_text(written(separator), encoding="utf-8-sig")
    assert read(path) == EXPECTED


def test_tabs_are_not_quoted_unless_excel_wrote_them(tmp_path: Path):
    path = tmp_path / "table.csv"
    path.write_text('text\tlabel\n"quoted\t1\nplain\t0\n', encoding="utf-8")
    assert read(path) == [('"quoted', "1"), ("plain", "0")]
    path.write_text(written("\t"), encoding="utf-16")
    assert read(path) == EXPECTED


def test_excels_own_word_for_the_separator_is_followed(tmp_path: Path):
    path = tmp_path / "table.csv"
    path.write_text("sep=;\r\n" + written(";"), encoding="utf-8")
    assert read(path) == EXPECTED
    assert read_labelled(path)[0].source == "table.csv line 3"


def test_without_a_header_a_separator_that_cuts_every_line_is_taken(tmp_path: Path):
    path = tmp_path / "table.csv"
    path.write_text("".join(f"text {number}.;{number % 2}\n" for number in range(6)), encoding="utf-8")
    assert read(path) == [(f"text {number}.", str(number % 2)) for number in range(6)]


def test_columns_of_other_names_tell_the_separator_too(tmp_path: Path):
    path = tmp_path / "table.csv"
    path.write_text("Frage;Art\nWer, wann?;a\nWo?;b\n", encoding="utf-8")
    assert read(path, text="Frage", label="Art") == [("Wer, wann?", "a"), ("Wo?", "b")]


def test_json_lines_and_arrays_are_read_under_either_ending(tmp_path: Path):
    lines = '{"text": "a", "label": 1}\n{"text": "b", "label": 0}\n'
    array = '[{"text": "a", "label": 1}, {"text": "b", "label": 0}]'
    for name, content in (("a.json", lines), ("b.jsonl", lines), ("c.json", array), ("d.jsonl", array)):
        (tmp_path / name).write_text(content, encoding="utf-8")
        assert read(tmp_path / name) == [("a", "1"), ("b", "0")]
    (tmp_path / "a.json").write_text(lines + "{oops\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"a\.json line 3 is not JSON"):
        read(tmp_path / "a.json")
