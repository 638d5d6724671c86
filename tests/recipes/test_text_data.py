"""Training data from own documents: nothing from held-out ones, sources, and the examples at the end of a build."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from needs import REPOSITORY
from underhood.cli.results import print_examples
from underhood.data.sources import load_corpus
from underhood.recipes.corpus import clean_and_split, make_index
from underhood.recipes.text_data import about_text
from underhood.recipes.training_data import NOT_THERE, SHOWCASE, searcher
from underhood.retrieve.sentences import sentences

OWN_DATA = REPOSITORY / "tests" / "own_data"


@pytest.fixture(scope="module", params=["notes", "shop", "manual"])
def made(request):
    corpus = load_corpus(str(OWN_DATA / request.param))
    train, held_out, _ = clean_and_split(corpus, share_held_out=0.2, seed=0)
    index = make_index(request.param, corpus)
    return train, held_out, index, about_text(corpus, train, held_out, index, seed=0)


def test_no_training_example_has_a_sentence_or_the_name_of_a_held_out_document(made):
    train, held_out, _, data = made
    trained = " ".join(" ".join(document.text.split()) for document in train.documents)
    unseen = {
        sentence
        for document in held_out.documents
        for sentence in map(" ".join, map(str.split, sentences(document.text)))
        if len(sentence) > 30 and sentence not in trained
    } | {document.text.split("\n")[0][2:] for document in held_out.documents if document.kind == "record"}
    assert len(unseen) > 2
    for example in data.examples:
        text = " ".join(f"{example.question} {example.answer}".split())
        assert not [sentence for sentence in unseen if sentence in text]


def test_evaluation_asks_about_held_out_facts_and_about_invented_names(made):
    _, held_out, index, data = made
    files = {document.name.partition("#")[0] for document in held_out.documents}
    by_title = {}
    for passage in index.passages:
        by_title.setdefault(passage.title, set()).add(passage.source)
    kinds = {question.kind for question in data.grounded}
    assert kinds == {"sentence", "invented", SHOWCASE}
    for question in data.grounded:
        if question.kind == "sentence":
            assert by_title[question.expected.partition("`: ")[0].removeprefix("`")] & files
        elif question.kind == "invented":
            assert question.expected == NOT_THERE


def test_fine_tuning_is_measured_by_conversations_of_the_trained_kinds_about_held_out_documents(made):
    _, held_out, index, data = made
    files = {document.name.partition("#")[0] for document in held_out.documents}
    by_title = {}
    for passage in index.passages:
        by_title.setdefault(passage.title, set()).add(passage.source)
    answered = [example for example in data.held_out_examples if example.kind == "sentence"]
    assert len(answered) > 10
    for example in answered:
        sentence = example.answer.removesuffix(" [1]").partition("`: ")[2]
        assert sentence in example.question.partition("\n\n[1] ")[2]
        assert by_title[example.function] & files
    kinds = {example.kind for example in data.held_out_examples}
    assert kinds <= {example.kind for example in data.examples}
    assert not {str(each.messages) for each in answered} & {str(each.messages) for each in data.examples}


def test_examples_carry_the_passage_of_their_answer(made):
    *_, data = made
    answered = [example for example in data.examples if example.kind == "sentence"]
    assert len(answered) > 300
    for example in answered:
        sentence = example.answer.removesuffix(" [1]").partition("`: ")[2]
        assert sentence in example.question.partition("\n\n[1] ")[2]


def test_index_names_files_and_lines_that_hold_the_passage(made):
    *_, index, _ = made
    for passage in index.passages:
        [file] = list(OWN_DATA.glob(f"*/{passage.source}"))
        lines = file.read_text().splitlines()
        words = passage.text.replace("`", "").replace(": ", " ").strip("- .").split()
        near = " ".join(lines[passage.line - 1 : passage.line + 6])
        assert words[-1].strip(".") in near or words[0].strip(".") in near


def test_search_of_the_folder_answers_nothing_about_invented_names(made):
    *_, index, data = made
    search = searcher(index)
    invented = [question.prompt for question in data.grounded if question.kind == "invented"]
    assert sum(not search(question) for question in invented) >= 0.8 * len(invented)


def test_end_of_a_build_shows_three_answers_with_their_sources_and_one_refusal():
    out = Console(file=io.StringIO(), width=80)
    examples = [{"question": f"Q{n}?", "answer": f"`T`: A{n}. [1]", "source": f"a.md, line {n}"} for n in range(5)]
    print_examples(examples, {"question": "What is a blorf?", "answer": NOT_THERE}, out)
    text = out.file.getvalue()
    assert text.count("> Q") == 3
    assert "[1] a.md, line 2" in text
    assert "> What is a blorf?\nThat is not in the documents." in text
