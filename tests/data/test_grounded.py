"""Questions with passages: answers are quotations, refusals are true, and the forms are those of the chat."""

import random
import re
from collections import Counter

import pytest

from underhood.data.grounded import (
    MAX_CHARACTERS,
    NOTHING_FOUND,
    answer_from,
    contrasted_examples,
    function_text,
    grounded_examples,
    parameters_sentence,
    shown_as,
    text_of,
    with_passages,
)
from underhood.data.instruct import NO_SUCH_NAME, NOT_THERE
from underhood.data.pydocs import known_names, pydocs_functions
from underhood.data.question_forms import NAMES, TYPED_DESCRIBE, task_of, typed_question
from underhood.data.small_talk import PYDOCS_EXAMPLE, PYDOCS_TEXT, elsewhere, small_talk
from underhood.retrieve.documentation import documentation_passages
from underhood.retrieve.index import PassageIndex
from underhood.retrieve.retriever import Retriever
from underhood.retrieve.template import TAUGHT


@pytest.fixture(scope="module")
def functions():
    return pydocs_functions()


@pytest.fixture(scope="module")
def index():
    return PassageIndex.build(documentation_passages())


@pytest.fixture(scope="module")
def examples(functions, index):
    retriever = Retriever(index, TAUGHT)

    def search(question):
        return [(hit.passage.title, hit.passage.text) for hit in retriever.find(question)]

    return grounded_examples(functions, search, seed=0)


def parted(example):
    """The question, and its passage or None where none was found."""
    question, passage, nothing = re.fullmatch(
        rf"(.*?)\n\n(?:\[1\] (.*)|({NOTHING_FOUND}))", example.question, re.DOTALL
    ).groups()
    assert (passage is None) == (nothing is not None)
    return question, passage


def test_answers_are_quotations_of_their_passage(functions, examples):
    by_name = {function.name: function for function in functions}
    for example in examples:
        if example.kind == "unanswered":
            continue
        _, passage = parted(example)
        function = by_name[example.function]
        assert passage == f"`{function.name}`: {text_of(function)}"
        head, _, rest = example.answer.partition(": ")
        assert head == f"`{function.name}`"
        assert rest.endswith(" [1]")
        assert rest.removesuffix(" [1]") in passage
        wanted = parameters_sentence(function.parameters) if example.kind == "parameters" else function.summary
        assert rest.removesuffix(" [1]") == wanted


def test_refusals_come_with_nothing_or_with_passages_that_do_not_answer(functions, examples):
    by_name = {function.name: function for function in functions}
    refused = [example for example in examples if example.kind == "unanswered"]
    invented = [example for example in refused if example.answer != NOT_THERE]
    for example in invented:
        assert example.answer == NO_SUCH_NAME.format(name=example.function)
        assert example.function not in known_names()
    assert sum(parted(example)[1] is None for example in invented) / len(invented) > 0.95  # the search has no such name
    with_passage = [parted(example) for example in refused if parted(example)[1] is not None]
    assert len(with_passage) > 100
    for question, passage in with_passage:
        summary = by_name.get(passage.partition("`: ")[0].strip("`"))
        assert summary is None or summary.summary[:30].casefold() not in question.casefold()


def test_each_kind_has_its_share(functions, examples):
    kinds = Counter(example.kind for example in examples)
    assert kinds["unanswered"] / len(functions) == pytest.approx(0.22, abs=0.01)
    for kind, least in (("describe", 0.35), ("parameters", 0.2), ("how-to", 0.1)):
        assert kinds[kind] / len(examples) > least


def test_examples_depend_on_seed_and_function_only(functions):
    def search(question):
        return []

    alone = [e for e in grounded_examples(functions[:40], search, seed=1) if e.kind != "unanswered"]
    among = [e for e in grounded_examples(functions[:200], search, seed=1) if e.kind != "unanswered"]
    assert set(map(repr, alone)) < set(map(repr, among))
    assert alone != [e for e in grounded_examples(functions[:40], search, seed=2) if e.kind != "unanswered"]


def test_the_chat_puts_passages_before_the_model_as_training_did(index):
    """Two writers of one form: `data.grounded` for training, the retrieval template for talking."""
    hit = index.search("What does os.path.join do?", k=1)[0]
    talked = TAUGHT.apply([{"role": "user", "content": "What does os.path.join do?"}], [hit.passage])
    shown = shown_as(hit.passage.title, hit.passage.text)
    assert shown == hit.passage.shown
    assert talked[-1]["content"] == with_passages("What does os.path.join do?", [shown])
    unknown = TAUGHT.apply([{"role": "user", "content": "What does os.frob do?"}], [])
    assert unknown[-1]["content"] == with_passages("What does os.frob do?", [])


def test_passages_of_functions_are_short_and_say_all_parameters(functions):
    texts = [text_of(function) for function in functions]
    assert max(map(len, texts)) <= MAX_CHARACTERS
    known = [(f, text) for f, text in zip(functions, texts, strict=True) if f.signature is not None]
    complete = [text.endswith(parameters_sentence(function.parameters)) for function, text in known]
    assert sum(complete) / len(complete) > 0.99
    assert function_text("Joins.", ("a", "*p")) == "Joins. Parameters: `a` and `*p`."
    assert function_text("Joins.", ()) == "Joins. Parameters: none."
    assert function_text("Joins.", None) == "Joins."
    assert answer_from("os.path.join", "Joins.") == "`os.path.join`: Joins. [1]"


def test_names_are_typed_in_every_way():
    pick = random.Random(0)
    typed = [typed_question(TYPED_DESCRIBE, "os.path.join", pick) for _ in range(2000)]
    assert all("os.path.join" in question for question in typed)
    shares = {form: sum(form.format(name="os.path.join") in q for q in typed) / 2000 for form in set(NAMES)}
    assert shares["`{name}`"] > 0.2
    assert shares["{name}()"] > 0.1
    assert sum(not q.endswith(("?", ".")) for q in typed) / 2000 > 0.2
    assert sum(q[0].islower() for q in typed if "`" not in q[:1]) / 2000 > 0.1


def test_tasks_come_from_imperative_summaries_only():
    pick = random.Random(0)
    assert task_of("Remove any common leading whitespace from every line in `text`.", pick) is not None
    for summary in ("A subclass of dict.", "Base class for finders.", "The error that is raised."):
        assert task_of(summary, pick) is None


def test_small_talk_speaks_of_the_text_and_asks_for_nothing_impossible():
    talk = small_talk(PYDOCS_TEXT, PYDOCS_EXAMPLE)
    answers = dict(talk)
    assert "language model" in answers["Who are you?"]
    assert PYDOCS_TEXT in answers["What can you do?"]
    assert len(answers) == len(talk)  # one answer to each
    drawn = [question for question, _ in zip(elsewhere(random.Random(0)), range(200), strict=False)]
    assert len(set(drawn)) > 100


def test_contrasted_pairs_differ_in_question_and_answer_only(functions):
    examples = contrasted_examples(functions, seed=0)
    pairs = list(zip(examples[::2], examples[1::2], strict=True))
    assert len(pairs) > 1000
    for describe, parameters in pairs:
        assert (describe.kind, parameters.kind) == ("describe", "parameters")
        passages = {example.question.partition("\n\n")[2] for example in (describe, parameters)}
        assert len(passages) == 1
        [passage] = passages
        for example in (describe, parameters):
            title, _, sentence = example.answer.removesuffix(" [1]").partition(": ")
            assert passage.startswith(f"[1] {title}: ")
            assert sentence in passage
        assert describe.answer != parameters.answer
        assert describe.question != parameters.question
