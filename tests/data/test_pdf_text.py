"""PDF files: the text layer page by page, and errors that say what is missing."""

from __future__ import annotations

import sys

import pytest

from underhood.core.errors import UserError
from underhood.data.sources import load_corpus


def pdf(*pages: str) -> bytes:
    """A PDF with these pages, each line of a page on a line of its own, written by hand from the specification."""
    kids = " ".join(f"{4 + 2 * number} 0 R" for number in range(len(pages)))
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        f"<</Type/Pages/Kids[{kids}]/Count {len(pages)}>>".encode(),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>",
    ]
    for number, page in enumerate(pages):
        shown = "".join(f"({line}) Tj 0 -14 Td " for line in page.split("\n")) if page else ""
        stream = f"BT /F1 12 Tf 72 720 Td {shown}ET".encode("cp1252")
        page_object = f"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Contents {5 + 2 * number} 0 R"
        objects.append(f"{page_object}/Resources<</Font<</F1 3 0 R>>>>>>".encode())
        objects.append(b"<</Length %d>>stream\n%s\nendstream" % (len(stream), stream))
    data, offsets = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        offsets.append(len(data))
        data += b"%d 0 obj%s endobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    count = len(objects) + 1
    trailer = b"trailer<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % (count, len(data))
    return data + b"xref\n0 %d\n0000000000 65535 f \n%s%s" % (count, table, trailer)


def test_pages_become_documents_and_cut_words_are_joined(tmp_path):
    pytest.importorskip("pypdf")
    (tmp_path / "a.pdf").write_bytes(pdf("The first page.\nIt has two sen-\ntences.", "", "Third caf\xe9."))
    documents = load_corpus(str(tmp_path / "a.pdf")).documents
    assert [document.name for document in documents] == ["a.pdf#page=1", "a.pdf#page=3"]
    assert documents[0].text == "The first page.\nIt has two sentences."
    assert documents[1].text == "Third caf\xe9."


def test_pdf_without_text_layer_is_refused_with_advice(tmp_path):
    pytest.importorskip("pypdf")
    (tmp_path / "scan.pdf").write_bytes(pdf(""))
    with pytest.raises(UserError, match="no text layer") as caught:
        load_corpus(str(tmp_path / "scan.pdf"))
    assert "text recognition" in str(caught.value)


def test_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pypdf", None)
    (tmp_path / "a.pdf").write_bytes(pdf("text"))
    with pytest.raises(UserError, match=r"underhood\[pdf\]"):
        load_corpus(str(tmp_path / "a.pdf"))
