"""Facts as passages: table rows and definitions under their own titles, with file and line; sections put together."""

from __future__ import annotations

from underhood.data.sources import load_corpus
from underhood.retrieve.collect import corpus_passages
from underhood.retrieve.sentences import sentences

NOTES = """# Club

## Fees

| Who | Fee | Note |
| --- | --- | --- |
| Adults | 24 euros | due in `May \\| June` |
| Children | | free |

## Words

- **Mulch**: a cover of straw
- `--dry`: shows what
  would be done
- no definition here
- Also none: at http://example.org the colon of an address is far from the beginning, see there: below

End.
"""


def test_rows_and_definitions_are_passages_with_their_lines(tmp_path):
    (tmp_path / "notes.md").write_text(NOTES)
    passages = corpus_passages(load_corpus(str(tmp_path / "notes.md")).documents, max_characters=240)
    assert [(p.title, p.text, p.source, p.line) for p in passages[:4]] == [
        ("Club > Fees > Adults", "Fee: 24 euros. Note: due in `May | June`.", "notes.md", 7),
        ("Club > Fees > Children", "Note: free.", "notes.md", 8),
        ("Club > Words > Mulch", "a cover of straw", "notes.md", 12),
        ("Club > Words > --dry", "shows what would be done", "notes.md", 13),
    ]
    assert passages[4].title == "Club > Words"
    assert passages[4].line == 15


def test_file_in_several_documents_keeps_headings_and_lines(tmp_path):
    text = "".join(f"# Part {n}\n\n" + "".join(f"Sentence {n}.{k} is here.\n\n" for k in range(60)) for n in range(20))
    (tmp_path / "long.md").write_text(text)
    documents = load_corpus(str(tmp_path / "long.md")).documents
    assert len(documents) > 3
    lines = text.split("\n")
    passages = corpus_passages(documents, max_characters=240)
    for passage in passages:
        first = passage.text.partition(" is here.")[0]
        assert lines[passage.line - 1].startswith(first)
        assert passage.source == "long.md"
        assert passage.title == f"Part {first.split()[1].partition('.')[0]}"
    assert sum(len(sentences(passage.text)) for passage in passages) == 20 * 60


def test_html_passages_name_the_line_of_the_page(tmp_path):
    (tmp_path / "a.html").write_text(
        "<title>T</title>\n<nav>Menu</nav>\n<h1>Top</h1>\n<dl>\n<dt>Reef\n<dd>A rock.\n</dl>\n<p>Last."
    )
    passages = corpus_passages(load_corpus(str(tmp_path / "a.html")).documents, max_characters=240)
    assert [(p.title, p.text, p.line) for p in passages] == [("Top > Reef", "A rock.", 6), ("Top", "Last.", 8)]


def test_items_of_a_list_are_sentences_of_their_own():
    assert sentences("Bring this:\n- a rag\n- a shirt\n2. and tea") == [
        "Bring this:",
        "- a rag",
        "- a shirt",
        "2. and tea",
    ]
