"""Files and folders → documents, and every mistake named in one line."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from needs import shared_data
from underhood.core.errors import UserError
from underhood.data.documents import Corpus, Document, require_enough
from underhood.data.files import sections
from underhood.data.sources import load_corpus


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def texts(corpus):
    return [document.text for document in corpus.documents]


def test_text_file_is_one_document(tmp_path):
    corpus = load_corpus(write(tmp_path / "a.txt", "\ufeffHello\nworld\n"))
    assert texts(corpus) == ["Hello\nworld\n"]  # the byte-order mark is not text
    assert corpus.documents[0].name == "a.txt"


def test_separator_lines_part_documents_as_in_tinystories():
    path = shared_data("text", "tinystories", "tinystories_sample.txt")
    corpus = load_corpus(str(path))
    assert len(corpus) == path.read_text(encoding="utf-8").count("<|endoftext|>") + 1
    assert not any("<|endoftext|>" in document.text for document in corpus.documents)
    assert load_corpus(str(path), limit=5).documents == corpus.documents[:5]


@given(st.lists(st.text(alphabet="ab é\n", max_size=40), max_size=60), st.integers(8, 64))
def test_sections_join_to_the_text_and_cut_only_at_line_ends(parts, size):
    text = "\n".join(parts)
    pieces = sections(text, size)
    assert "".join(pieces) == text
    assert all(piece.endswith("\n") for piece in pieces[:-1])


def test_sections_prefer_blank_lines():
    paragraphs = ["".join(f"line {n} of {p}\n" for n in range(5)) + "\n" for p in range(100)]
    pieces = sections("".join(paragraphs), 200)
    assert len(pieces) > 10
    assert all(piece.endswith("\n\n") for piece in pieces)


def test_long_text_file_can_be_split_by_document():
    corpus = load_corpus(str(shared_data("text", "tinyshakespeare", "input.txt")))
    assert len(corpus) > 100
    assert "".join(texts(corpus)) == shared_data("text", "tinyshakespeare", "input.txt").read_text(encoding="utf-8")


def test_jsonl_reads_the_named_field_or_finds_one(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"text": "one", "title": "T"}\n\n{"text": "two", "title": "U"}\n"plain"\n')
    assert texts(load_corpus(path)) == ["one", "two", "plain"]
    path = write(tmp_path / "b.jsonl", '{"text": "one", "title": "T"}\n')
    assert texts(load_corpus(path, text_field="title")) == ["T"]


def test_jsonl_line_separators_inside_strings_part_nothing(tmp_path):
    path = write(tmp_path / "a.jsonl", json.dumps({"text": "a\u2028b\x85c"}, ensure_ascii=False) + "\n")
    assert texts(load_corpus(path)) == ["a\u2028b\x85c"]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_parquet_reads_the_text_column(tmp_path, kind):
    table = pa.table({"id": [1, 2, 3], "text": pa.array(["one", None, "three"], kind)})
    pq.write_table(table, tmp_path / "a.parquet")
    corpus = load_corpus(str(tmp_path / "a.parquet"))
    assert texts(corpus) == ["one", "three"]
    assert [document.name for document in corpus.documents] == ["a.parquet#1", "a.parquet#3"]


def test_parquet_with_one_odd_text_column_needs_no_flag(tmp_path):
    pq.write_table(pa.table({"n": [1], "poem": ["roses"]}), tmp_path / "a.parquet")
    assert texts(load_corpus(str(tmp_path / "a.parquet"))) == ["roses"]


def test_folder_reads_all_kinds_in_order(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / ".hidden").mkdir()
    write(tmp_path / "b.md", "# B")
    write(tmp_path / "a.txt", "A")
    write(tmp_path / "empty.txt", "")
    write(tmp_path / "image.png", b"\x89PNG\0")
    write(tmp_path / ".hidden" / "x.txt", "no")
    write(tmp_path / "sub" / "c.jsonl", '{"content": "C"}\n')
    pq.write_table(pa.table({"text": ["D"]}), tmp_path / "sub" / "d.parquet")
    corpus = load_corpus(str(tmp_path))
    assert [document.name for document in corpus.documents] == ["a.txt", "b.md", "sub/c.jsonl#1", "sub/d.parquet#1"]
    assert (corpus.facts["files"], corpus.facts["empty_files"], corpus.facts["other_files"]) == (4, 1, 1)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("empty.txt", "", ["empty.txt", "empty"]),
        ("blank.txt", " \n\n", ["empty"]),
        ("binary.txt", b"abc\0def", ["binary", "offset 3"]),
        ("latin.txt", b"caf" + b"\xe9 au lait", ["UTF-8", "0xe9", "offset 3"]),
        ("bom.txt", b"\xef\xbb\xbfab\xff", ["0xff", "offset 5"]),
        ("broken.jsonl", '{"text": "a"}\n{"text": \n', ["line 2", "not JSON"]),
        ("list.jsonl", "[1, 2]\n", ["line 1", "object"]),
        ("number.jsonl", '{"text": 5}\n', ["line 1", "'text'", "not text"]),
        ("nofield.jsonl", '{"turns": [{"a": 1}], "meta": {}}\n', ["line 1", "turns, meta", "--text-field"]),
        ("mixed.jsonl", '{"text": "a"}\n{"title": "b"}\n', ["line 2", "title", "--text-field"]),
        ("header.csv", "name,price\n", ["header", "no row"]),
        ("uneven.csv", "name,price\na,1\nb,2,3\n", ["line 3", "2 columns", "got 3"]),
        ("twice.csv", "name,name\na,b\n", ["two columns", "'name'"]),
        ("menu.html", "<nav>Home</nav><script>x</script>", ["no text", "navigation"]),
        ("broken.pdf", "no PDF at all", ["broken.pdf", "PDF"]),
        ("file.parquet", "no parquet at all", ["file.parquet", "Parquet"]),
        ("file.docx", "PK", ["unsupported", ".docx", ".jsonl"]),
        ("nothing.jsonl", '{"text": "  "}\n', ["no text"]),
    ],
)
def test_bad_file_is_explained_in_one_line(tmp_path, name, content, told):
    with pytest.raises(UserError) as caught:
        load_corpus(write(tmp_path / name, content))
    message = str(caught.value)
    assert "\n" not in message
    for piece in told:
        assert piece in message


def test_missing_field_names_the_nearest(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"story": "a", "id": 1}\n')
    with pytest.raises(UserError, match=r"'stroy'.*'story'"):
        load_corpus(path, text_field="stroy")
    pq.write_table(pa.table({"story": ["a"], "n": [1]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"'storys'.*'story'"):
        load_corpus(str(tmp_path / "a.parquet"), text_field="storys")
    with pytest.raises(UserError, match="not text"):
        load_corpus(str(tmp_path / "a.parquet"), text_field="n")


def test_parquet_without_or_with_many_text_columns_is_explained(tmp_path):
    pq.write_table(pa.table({"a": [1], "b": [2.0]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"no text column.*a, b"):
        load_corpus(str(tmp_path / "a.parquet"))
    pq.write_table(pa.table({"question": ["x"], "answer": ["y"]}), tmp_path / "b.parquet")
    with pytest.raises(UserError, match=r"question, answer.*--text-field"):
        load_corpus(str(tmp_path / "b.parquet"))


def test_missing_path_names_the_nearest(tmp_path):
    write(tmp_path / "stories.txt", "a")
    with pytest.raises(UserError, match=r"storys\.txt.*stories\.txt"):
        load_corpus(str(tmp_path / "storys.txt"))
    with pytest.raises(UserError, match="pydocs"):
        load_corpus("pydoc")
    with pytest.raises(UserError, match="hf:roneneldan/TinyStories"):
        load_corpus("roneneldan/TinyStories")


def test_folder_without_text_says_what_it_holds(tmp_path):
    write(tmp_path / "a.png", b"x")
    with pytest.raises(UserError, match=r"\.txt.*1 files \(\.png\)"):
        load_corpus(str(tmp_path))


def test_require_enough_counts_bytes_not_characters():
    corpus = Corpus((Document("é" * 50, "a", "txt"),), "small")
    require_enough(corpus, 100)
    with pytest.raises(UserError, match=r"at least 101 bytes.*100 bytes in 1 document"):
        require_enough(corpus, 101)


def test_digest_sees_names_texts_and_their_borders():
    def digest(*pairs):
        return Corpus(tuple(Document(text, name, "txt") for name, text in pairs), "x").digest

    base = digest(("a", "bc"), ("d", "e"))
    assert base == digest(("a", "bc"), ("d", "e"))
    assert len({base, digest(("ab", "c"), ("d", "e")), digest(("a", "bcd"), ("", "e")), digest(("d", "e"))}) == 4
