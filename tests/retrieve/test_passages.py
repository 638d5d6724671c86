"""Passages: no sentence lost, right lines, headings, Python sources."""

from __future__ import annotations

import ast
import re
import textwrap
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from needs import REPOSITORY
from underhood.data.documents import Document
from underhood.data.pydocs import pydocs_corpus
from underhood.retrieve.passages import Passage, split_document
from underhood.retrieve.sentences import sentence_spans, sentences

GUIDE = """\
# Guide

Read this first. It is short.

## Install

On any system, run the command. Then wait.

- first item
- second item
  goes on

### Linux

```bash
# not a heading
pip install guide
```

| a | b |
| - | - |
| 1 | 2 |

Usage
-----

Call it. Done.
"""


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text)


def test_markdown_headings_lists_code_and_tables_keep_title_and_line():
    passages = split_document(Document(GUIDE, "guide.md", "md"))
    assert [(p.title, p.line) for p in passages] == [
        ("Guide", 3),
        ("Guide > Install", 7),
        ("Guide > Install > Linux", 16),
        ("Guide > Usage", 27),
    ]
    assert passages[1].text == "On any system, run the command. Then wait.\n- first item\n- second item goes on"
    assert passages[2].text == "# not a heading\npip install guide\n| a | b |\n| - | - |\n| 1 | 2 |"
    assert passages[0].shown == "`Guide`: Read this first. It is short."
    assert {p.source for p in passages} == {"guide.md"}


def test_restructuredtext_headings_are_told_by_their_underlines():
    text = (
        "=====\nTitle\n=====\n\nOne.\n\nPart A\n------\n\nTwo.\n\nDetail\n~~~~~~\n\nThree.\n\nPart B\n------\n\nFour.\n"
    )
    passages = split_document(Document(text, "x.rst", "rst"))
    expected = [
        ("Title", "One.", 5),
        ("Title > Part A", "Two.", 10),
        ("Title > Part A > Detail", "Three.", 15),
        ("Title > Part B", "Four.", 20),
    ]
    assert [(p.title, p.text, p.line) for p in passages] == expected


def test_long_paragraph_is_cut_between_sentences_which_overlap():
    numbered = [f"Sentence number {number} says something." for number in range(40)]
    lines = textwrap.wrap(" ".join(numbered), 70)
    passages = split_document(Document("\n".join(["", *lines]), "x", "txt"), max_characters=200, overlap=1)
    cut = [sentences(passage.text) for passage in passages]
    assert all(len(passage.text) <= 200 for passage in passages)
    assert all(after[0] == before[-1] for before, after in pairwise(cut))
    assert list(dict.fromkeys(sentence for piece in cut for sentence in piece)) == numbered
    for passage in passages:
        assert " ".join(lines[passage.line - 2 :]).find(" ".join(passage.text.split()[:4])) in range(70)


def test_overlap_0_repeats_nothing():
    text = " ".join(f"Sentence {number} is here." for number in range(50))
    passages = split_document(Document(text, "x", "txt"), max_characters=120, overlap=0)
    assert " ".join(passage.text for passage in passages) == text


def test_word_longer_than_a_passage_is_cut_and_complete():
    passages = split_document(Document("x" * 250 + " y", "x", "txt"), max_characters=100)
    assert [len(passage.text) for passage in passages] == [100, 100, 52]
    assert "".join(passage.text for passage in passages) == "x" * 250 + " y"


@given(st.text(alphabet=st.sampled_from("ab. !?\n#-|`=(é東。"), max_size=300), st.sampled_from(["txt", "md", "rst"]))
def test_any_text_keeps_its_words_in_order_on_their_lines(text: str, kind: str):
    passages = split_document(Document(text, "x", kind), max_characters=40, overlap=0)
    assert all(0 < len(passage.text) <= 40 for passage in passages)
    lines = text.splitlines()
    for passage in passages:
        first = next(iter(re.findall(r"\S+", passage.text)))
        assert first[:40] in lines[passage.line - 1]
    if kind == "txt" and not re.search(r"([=\-#`.])\1\1", text):
        assert "".join("".join(p.text for p in passages).split()) == "".join(text.split())


@given(st.text(max_size=200))
def test_sentences_cover_every_character_but_space(text: str):
    spans = sentence_spans(text)
    assert all(start < end for start, end in spans)
    assert all(before[1] <= after[0] for before, after in pairwise(spans))
    assert "".join("".join(sentences(text)).split()) == "".join(text.split())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ("See e.g. os.path. Then go.", ["See e.g. os.path.", "Then go."]),
        ("It (really. Yes.) works. Ok.", ["It (really. Yes.) works.", "Ok."]),
        ("Version 3.11 is out. new names", ["Version 3.11 is out. new names"]),
        ("He said “stop.” They left.", ["He said “stop.”", "They left."]),
        ("第一句。第二句！", ["第一句。", "第二句！"]),
        ("A heading\n\nA paragraph", ["A heading", "A paragraph"]),
    ],
)
def test_sentence_ends(text: str, expected: list[str]):
    assert sentences(text) == expected


def test_real_documents_keep_every_word():
    documents = [Document(p.read_text(encoding="utf-8"), p.name, "md") for p in (REPOSITORY / "docs").glob("*.md")]
    documents += [document for document in pydocs_corpus().documents if document.kind == "topic"]
    assert len(documents) > 50
    for document in documents:
        passages = split_document(document, overlap=0)
        have = set(words(" ".join(f"{p.title} {p.text}" for p in passages)))
        fences = set(re.findall(r"^\s*(?:```|~~~)\s*(\w+)", document.text, re.MULTILINE))
        headings = set(words(" ".join(re.findall(r"^#+ (.*)$", document.text, re.MULTILINE))))
        assert set(words(document.text)) - have <= fences | headings, document.name
        lines = document.text.splitlines()
        assert all(p.text.split()[0] in lines[p.line - 1] for p in passages)


def test_python_source_gives_functions_by_dotted_name():
    source = '''\
"""Tools for paths.

More about them.
"""

import os


class Finder(Base):
    """Finds files."""

    def __init__(self, root, *, deep=True):
        self.root = root

    async def find(self, pattern="*"):
        """Yields the files.

        Hidden ones are left out.
        """
        return os.walk(self.root)


def helper(): pass
'''
    passages = split_document(Document(source, "src/tools/paths.py", "py"))
    assert [(p.title, p.text, p.line) for p in passages] == [
        ("tools.paths", "Tools for paths.\nMore about them.", 1),
        ("tools.paths.Finder", "Finder(root, *, deep=True): Finds files.", 9),
        ("tools.paths.Finder.__init__", "__init__(root, *, deep=True)", 12),
        ("tools.paths.Finder.find", "find(pattern='*'): Yields the files.\nHidden ones are left out.", 15),
        ("tools.paths.helper", "helper()", 23),
    ]
    assert "os.walk" in passages[3].search_text
    assert "os.walk" not in passages[3].text


def test_every_function_of_our_own_sources_is_found_on_its_line():
    for file in sorted((REPOSITORY / "src" / "underhood" / "data").glob("*.py")):
        source = file.read_text(encoding="utf-8")
        titles = {(p.title.rpartition(".")[2], p.line) for p in split_document(Document(source, file.name, "py"))}
        defined = {
            (node.name, node.lineno)
            for node in ast.parse(source).body
            if isinstance(node, (ast.FunctionDef, ast.ClassDef))
        }
        assert defined <= titles


def test_python_that_does_not_parse_is_read_as_text():
    passages = split_document(Document("def broken(:\n    pass", "x.py", "py"))
    assert [(p.title, p.text) for p in passages] == [("", "def broken(: pass")]


def test_impossible_sizes_are_refused():
    with pytest.raises(ValueError, match="40 characters"):
        split_document(Document("x", "x", "txt"), max_characters=10)
    assert Passage(title="", text="a", source="s").shown == "a"
