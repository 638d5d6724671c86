"""Instruction examples: answers are true, invented functions don't exist, and nothing depends on company."""

import importlib
import warnings
from collections import Counter

import pytest

from underhood.data.documents import Corpus, Document
from underhood.data.instruct import closed_book_examples, generic_examples, invented_functions, sentences
from underhood.data.pydocs import DocumentedFunction, pydocs_functions


@pytest.fixture(scope="module")
def functions():
    return pydocs_functions()


@pytest.fixture(scope="module")
def examples(functions):
    return closed_book_examples(functions, seed=0)


def resolve(name):
    """The thing that a dotted name means in this Python, or None."""
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                thing = importlib.import_module(".".join(parts[:cut]))
        except ImportError:
            continue
        for piece in parts[cut:]:
            try:
                thing = getattr(thing, piece)
            except AttributeError:
                return None
        return thing
    return None


def test_every_kind_is_there_in_the_promised_share(functions, examples):
    kinds = Counter(example.kind for example in examples)
    assert set(kinds) == {"describe", "refusal"}
    assert kinds["describe"] / len(functions) == pytest.approx(0.22, abs=0.02)
    assert kinds["refusal"] / len(examples) == pytest.approx(0.2, abs=0.005)


def test_examples_are_one_question_and_one_answer(examples):
    for example in examples:
        assert [message["role"] for message in example.messages] == ["user", "assistant"]
        assert "`" in example.question
        assert example.answer.strip() == example.answer != ""
    questions = Counter(example.question for example in examples)
    assert max(questions.values()) == 1  # so each has one right answer


def test_answers_agree_with_their_function(functions, examples):
    by_name = {function.name: function for function in functions}
    for example in examples:
        function = by_name.get(example.function)
        if example.kind == "describe":
            assert example.answer == function.summary
        else:
            assert function is None
            assert example.answer == f"`{example.function}`: There is no such name in the documents."


def test_invented_functions_do_not_exist_in_live_modules(functions):
    """Oracle: the interpreter itself, asked for every invented name."""
    quiet = [f for f in functions if f.owner.split(".")[0] not in {"tkinter", "curses", "turtle", "idlelib"}]
    invented = invented_functions(quiet, 300, 7)
    assert len(set(invented)) == 300
    assert [name for name in invented if resolve(name) is not None] == []
    assert resolve("os.path.join") is not None  # the oracle does find what exists
    assert resolve("asyncio.gather") is not None


def test_invented_functions_are_plausible_and_of_both_sorts(functions):
    invented = invented_functions(functions, 400, 1)
    real_tails = {function.name.rpartition(".")[2] for function in functions}
    moved = [name for name in invented if name.rpartition(".")[2] in real_tails]
    assert 0.3 < len(moved) / len(invented) < 0.75
    owners = {function.owner for function in functions}
    assert all(name.rpartition(".")[0] in owners for name in invented)


def test_invented_functions_avoid_those_already_trained_on(functions):
    trained = invented_functions(functions, 200, 1)
    tested = invented_functions(functions, 200, 1, avoid=set(trained))
    assert len(tested) == 200
    assert not set(tested) & set(trained)


def test_examples_are_deterministic_and_independent_of_company(functions):
    some = functions[:200]
    assert closed_book_examples(some, seed=3) == closed_book_examples(some, seed=3)
    assert closed_book_examples(some, seed=3) != closed_book_examples(some, seed=4)
    alone = {e.messages for e in _frozen(closed_book_examples(some[:50], seed=3)) if e.kind != "refusal"}
    among = {e.messages for e in _frozen(closed_book_examples(some, seed=3)) if e.kind != "refusal"}
    assert alone < among


def _frozen(examples):
    from types import SimpleNamespace

    return [SimpleNamespace(kind=e.kind, messages=(e.question, e.answer)) for e in examples]


def test_too_few_functions_give_no_refusals_rather_than_false_ones():
    lone = DocumentedFunction("a.f", "module a", "a", ("x",), "x", "Return the first item of the list.")
    assert invented_functions([lone], 5, 0) == []
    assert {example.kind for example in closed_book_examples([lone], seed=0, share=1.0)} == {"describe"}


STORY = "Once there was a fox. It lived in a wood. Every morning it went to the river to drink. One day it met a crow. "


def corpus_of(*texts):
    return Corpus(tuple(Document(text, f"d{n}", "txt") for n, text in enumerate(texts)), "own")


def test_generic_examples_continue_what_the_text_says():
    text = STORY * 3 + "\n\nThe fox had a plan. It would ask the crow to sing, and then it would take the cheese."
    examples = generic_examples(corpus_of(text), seed=0)
    flat = " ".join(text.split())
    assert examples
    for example in examples:
        lead = example.question.split("\n\n", 1)[1]
        assert f"{lead} {example.answer}" in flat


def test_generic_examples_of_verse_ask_for_the_next_line():
    verse = "Roses are red, they say,\nViolets are blue,\nSugar is sweet today,\nAnd so are you.\n"
    examples = [e for e in generic_examples(corpus_of(verse), seed=0) if e.kind == "after"]
    assert examples
    lines = verse.splitlines()
    for example in examples:
        line = example.question.split("\n\n", 1)[1]
        assert lines[lines.index(line) + 1] == example.answer


def test_generic_examples_have_one_answer_per_question_and_skip_tiny_texts():
    corpus = corpus_of("tiny", STORY * 2, STORY * 2, "")
    examples = generic_examples(corpus, seed=0, per_document=5)
    questions = [example.question for example in examples]
    assert len(set(questions)) == len(questions)
    assert {example.function for example in examples} <= {"d1", "d2"}


def test_sentences_split_prose():
    assert sentences('One. Two!  "Three?" Four\n\nFive') == ["One.", "Two!", '"Three?"', "Four", "Five"]
