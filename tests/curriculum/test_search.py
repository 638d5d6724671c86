"""The search leads newcomers to what exists, and ranks as its formula says."""

from __future__ import annotations

import ast
import shutil
from collections import Counter
from pathlib import Path

import pytest
from newcomer_questions import ANSWERED, HELD_OUT, TUNED_ON

from underhood.cli import generate
from underhood.cli.main import verbs
from underhood.cli.options import options_of
from underhood.curriculum.pages.reference import own_link, reference, reference_names
from underhood.curriculum.search import code_entries, doc_entries
from underhood.curriculum.search.analysis import document_terms, question_words, root_of
from underhood.curriculum.search.command_entries import command_entries
from underhood.curriculum.search.entries import KIND_WEIGHT
from underhood.curriculum.search.ranking import ALONE, NAMED, search, search_index

QUESTIONS = TUNED_ON | HELD_OUT
TOP = 3


def leads(question: str) -> bool:
    targets = tuple(target.casefold() for target in QUESTIONS[question])
    return any(hit.entry.exists and hit.entry.target.casefold().startswith(targets) for hit in search(question)[:TOP])


def test_newcomers_questions_lead_to_something_useful_that_exists():
    assert len(QUESTIONS) == 40
    missed = [question for question in QUESTIONS if not leads(question)]
    assert len(missed) <= 4, missed


@pytest.mark.parametrize("question", ANSWERED)
def test_question_in_words_leads_first_to_the_page_that_answers(question: str):
    assert search(question)[0].entry.target in ANSWERED[question]
    assert search(question + "?")[0].entry.target in ANSWERED[question]


def test_questions_that_no_tuning_looked_at_do_as_well():
    missed = [question for question in HELD_OUT if not leads(question)]
    assert len(missed) <= 2, missed


def test_targets_of_the_questions_exist():
    """A question that nothing could answer would be counted as missed for ever."""
    known = [entry.target.casefold() for entry in search_index().entries]
    for question, targets in QUESTIONS.items():
        assert any(target.startswith(tuple(map(str.casefold, targets))) for target in known), question


def test_what_exists_comes_before_what_is_planned_and_a_name_comes_first():
    for question in ("act", "fsdp", "bigbird", "retrieval-augmented generation"):
        exist = [hit.entry.exists for hit in search(question)]
        assert exist == sorted(exist, reverse=True)
        assert not all(exist)  # the topic of that name is not written, and the list says so
    assert search("temperature")[0].entry.target == "glossary: temperature"
    assert "nn/rope.py" in [hit.entry.target for hit in search("RoPE")[:3]]
    assert "underhood finetune" in [hit.entry.target for hit in search("fine-tune")[:3]]


@pytest.mark.parametrize(
    ("question", "stem"),
    [
        ("why does depth need backpropagation?", "p1986_backprop"),
        ("what was the first language model?", "p1913_markov"),
        ("kneser ney", "p1999_kneser_ney"),
        ("dropout", "p2012_alexnet"),
    ],
)
def test_question_about_a_milestone_finds_it_among_the_first_two(question: str, stem: str):
    assert stem in [hit.entry.target for hit in search(question)[:2]]


def test_question_without_known_words_finds_nothing():
    assert search("zzqx") == []
    assert search("what is the") == []
    assert search("") == []


def test_score_is_what_the_formula_says():
    """A question of one word that is a name: the posting's impact times the kind's weight, and the bonus of a name."""
    index = search_index()
    (word,) = question_words("perplexity")
    documents, impacts = index.bm25.postings(word)
    impact = dict(zip(documents.tolist(), impacts.tolist(), strict=True))
    hits = search("perplexity")
    assert len(hits) > 2
    for hit in hits:
        number = index.entries.index(hit.entry)
        named = NAMED if [word] in map(question_words, hit.entry.full_names) else 0.0
        assert hit.score == pytest.approx(KIND_WEIGHT[hit.entry.kind] * impact[number] + named)


def test_what_speaks_of_half_a_question_counts_less():
    """By hand: an entry with only the second of two words, whose idf is known, loses the share that is not covered."""
    index = search_index()
    first, second = (index.bm25.idf(word) for word in question_words("perplexity gguf"))
    (hit,) = [hit for hit in search("perplexity gguf", 40) if hit.entry.target == "evals/perplexity.py"]
    alone = next(hit.score for hit in search("perplexity", 40) if hit.entry.target == "evals/perplexity.py") - NAMED
    assert hit.score == pytest.approx(alone * (ALONE + (1 - ALONE) * first / (first + second)))


def test_derived_joined_and_british_words_meet():
    assert root_of(question_words("quantization")[0]) == root_of(question_words("quantizer")[0])
    assert question_words("normalise behaviour") == question_words("normalize behavior")
    assert "finetun" in document_terms("how to fine-tune it")
    assert question_words("What's the café doing?") == ["cafe"]


def test_docstrings_by_pattern_are_those_of_pythons_parser():
    for file in code_entries.module_files():
        source = file.read_text(encoding="utf-8")
        tree = ast.parse(source)
        assert code_entries.module_docstring(source) == (ast.get_docstring(tree) or ""), file
        expected = [
            (node.name, ast.get_docstring(node))
            for node in tree.body
            if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
            and not node.name.startswith("_")
            and ast.get_docstring(node)
        ]
        assert code_entries.definitions(source) == expected, file


def test_commands_and_options_are_those_that_the_command_line_takes():
    entries = list(command_entries())
    commands = {f"underhood {name}" for group in verbs().values() for name in group}
    assert {entry.target for entry in entries if entry.kind == "command"} == commands
    flags = {option.flag for option in options_of(generate.Args) if not option.positional}
    described = {
        f"--{entry.named.replace(' ', '-')}"
        for entry in entries
        if entry.kind == "option" and ("underhood generate" in entry.target or "generate" in entry.summary)
    }
    assert flags <= described


def test_targets_and_anchors_are_unique_and_pages_exist():
    index = search_index()
    counts = Counter(entry.target for entry in index.entries)
    assert [target for target, count in counts.items() if count > 1] == []
    pages = set(reference_names())
    texts = {name: str(reference(name)["body"] or "") for name in pages if name.startswith("docs-")}
    for entry in index.entries:
        name, _, anchor = entry.page.partition("#")
        if entry.kind in ("docs", "glossary"):
            assert name.removesuffix(".html") in pages, entry.target
            assert not anchor or f'id="{anchor}"' in texts[name.removesuffix(".html")], entry.target
    assert own_link("sampling.md#sampling") == "docs-sampling.html#sampling"
    assert own_link("../README.md") == "docs-readme.html"
    assert own_link("https://example.org") == "https://example.org"


def test_installed_package_finds_its_own_copy_of_the_documentation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A wheel holds docs inside the package; without any documentation the rest is still searched."""
    package = tmp_path / "site" / "underhood"
    (package / "docs").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "docs" / "glossary.md").write_text("| term | meaning | source | code |\n| --- | --- | --- | --- |\n")
    (package / "docs" / "README.md").write_text("# Hello\nA word.\n")
    monkeypatch.setattr(doc_entries.underhood, "__file__", str(package / "__init__.py"))
    assert doc_entries.docs_folder() == package / "docs"
    assert [entry.target for entry in doc_entries.doc_entries()] == ["README.md#hello"]
    shutil.rmtree(package / "docs")
    assert doc_entries.docs_folder() is None
    assert list(doc_entries.doc_entries()) == []
