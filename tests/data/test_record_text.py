"""Tables and JSON records as text: the separator, the column that names a row, a sentence for every field."""

from __future__ import annotations

import json

import pytest

from underhood.core.errors import UserError
from underhood.data.record_text import field_sentence, name_column, record_text
from underhood.data.sources import load_corpus


@pytest.mark.parametrize(
    ("ending", "separator", "encoding"),
    [
        ("csv", ",", "utf-8"),
        ("csv", ";", "utf-8-sig"),
        ("tsv", "\t", "utf-8"),
        ("csv", "\t", "utf-16"),
        ("csv", "|", "utf-8"),
    ],
)
def test_rows_become_documents_with_their_lines(tmp_path, ending, separator, encoding):
    rows = [["Name", "price_eur", "note"], ["Basil", "3.20", ""], ["Mint", "2.90", "spreads quickly"]]
    text = "\n".join(separator.join(row) for row in rows) + "\n"
    (tmp_path / f"a.{ending}").write_bytes(text.encode(encoding))
    documents = load_corpus(str(tmp_path / f"a.{ending}")).documents
    assert [document.text for document in documents] == [
        "# Basil\n\nPrice eur: 3.20.",
        "# Mint\n\nPrice eur: 2.90.\nNote: spreads quickly.",
    ]
    assert [(document.source, document.source_line(3)) for document in documents] == [
        (f"a.{ending}", 2),
        (f"a.{ending}", 3),
    ]


def test_row_with_line_breaks_in_a_cell_keeps_the_line_where_it_begins(tmp_path):
    (tmp_path / "a.csv").write_text('name,text of it\na,"one\ntwo"\nb,three\n')
    documents = load_corpus(str(tmp_path / "a.csv")).documents
    assert [document.source_line(1) for document in documents] == [2, 4]
    assert documents[0].text == "# a\n\nText of it: one two."


def test_text_column_is_the_text_and_can_be_chosen(tmp_path):
    (tmp_path / "a.csv").write_text("label,text,remark\ngood,well done,x\nbad,oh no,y\n")
    path = str(tmp_path / "a.csv")
    assert [document.text for document in load_corpus(path).documents] == ["well done", "oh no"]
    assert [document.text for document in load_corpus(path, text_field="remark").documents] == ["x", "y"]
    with pytest.raises(UserError, match="remark"):
        load_corpus(path, text_field="remarks")


def test_json_records_without_a_text_field_are_read_by_their_fields(tmp_path):
    records = [
        {"city": "Oslo", "inhabitants": 717710, "rivers": ["Akerselva", "Alna"], "capital": True, "mayor": None},
        {"city": "Bergen", "inhabitants": 291940, "founded": 1070.0},
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, records)))
    documents = load_corpus(str(tmp_path / "a.jsonl")).documents
    assert documents[0].text == "# Oslo\n\nInhabitants: 717710.\nRivers: Akerselva, Alna.\nCapital: yes."
    assert (documents[1].name, documents[1].source, documents[1].source_line(9)) == ("a.jsonl#2", "a.jsonl", 2)


def test_name_column_tells_records_apart():
    columns = ["id", "kind", "plant"]
    records = [{"id": "1", "kind": "herb", "plant": "Basil"}, {"id": "2", "kind": "herb", "plant": "Mint"}]
    assert name_column(columns[1:], records) == "plant"
    assert name_column(columns, records) == "id"  # a usual name wins
    assert name_column(["kind"], records) is None
    assert record_text(records[0], "id").startswith("# Id 1\n")


def test_field_sentence_ends_once():
    assert field_sentence("a_b", "Really?") == "A b: Really?"
    assert field_sentence("a", " x \n y ") == "A: x y."
    assert field_sentence("a", "") == ""
