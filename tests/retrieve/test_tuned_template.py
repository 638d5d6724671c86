"""The form of published models that were tuned on passages: without one, they chat."""

from __future__ import annotations

from dataclasses import replace

import pytest
from test_retriever import INDEX, JOIN, QUESTION, assistant, user

from underhood.data.grounded import NOTHING_FOUND
from underhood.data.instruct import NO_SUCH_NAME, NOT_THERE
from underhood.retrieve.index import Hit, PassageIndex
from underhood.retrieve.passages import Passage
from underhood.retrieve.retriever import Retriever, is_about
from underhood.retrieve.template import INSTRUCTED, TAUGHT, TUNED, template_for

TUNED_RETRIEVER = Retriever(INDEX, TUNED)


def test_a_question_with_a_passage_reads_it_as_the_taught_form_does():
    ours, taught = (Retriever(INDEX, template).prepare([user(QUESTION)]) for template in (TUNED, TAUGHT))
    assert ours.hits[0].passage == JOIN
    assert ours.messages == taught.messages
    assert ours.grammar is not None


GENERAL = ["What is the capital of France?", "What is life?", "Hello!", "Tell me a joke"]


@pytest.mark.parametrize("question", GENERAL)
def test_a_general_question_stays_plain_chat_with_the_turns_before_it(question: str):
    conversation = [user("I am Ada."), assistant("Hello Ada, how can I help you?"), user(question)]
    prepared = TUNED_RETRIEVER.prepare(conversation)
    assert prepared.messages == tuple(conversation)
    assert (prepared.hits, prepared.grammar) == ((), None)


@pytest.mark.parametrize("question", GENERAL)
@pytest.mark.parametrize(
    "answer",
    [
        "`os.path.join`: Join pathname components. [1]",
        NO_SUCH_NAME.format(name="os.frobnicate"),
        NOT_THERE,
    ],
)
def test_plain_chat_goes_on_without_the_turns_that_were_answered_from_passages(question: str, answer: str):
    before = [user("I am Ada."), assistant("Hello Ada, how can I help you?")]
    prepared = TUNED_RETRIEVER.prepare([*before, user(QUESTION), assistant(answer), user(question)])
    assert prepared.messages == (*before, user(question))


@pytest.mark.parametrize(
    ("title", "matched", "about"),
    [
        ("str.split", ("split", "string"), True),
        ("math.sqrt", ("square", "root"), False),
        ("textwrap.dedent", ("remove", "leading", "whitespace"), True),
        ("difflib.get_close_matches", ("apple",), False),
        ("email.encoders.encode_7or8bit", ("7", "8"), False),
    ],
)
def test_a_passage_is_about_a_question_by_its_title_or_by_several_words(title: str, matched: tuple, about: bool):
    hit = Hit(Passage(title=title, text="A text.", source="notes", line=1), score=1.0, matched=matched, coverage=1.0)
    assert is_about(hit) == about


def test_a_word_used_in_passing_brings_no_passage():
    index = PassageIndex.build(
        [
            Passage(
                title="difflib.get_close_matches",
                source="module difflib",
                line=1,
                text="Return the best matches, e.g. apple for appel.",
            ),
            JOIN,
        ]
    )
    question = user("What is an apple?")
    assert Retriever(index, TUNED).prepare([question]).messages == (question,)
    assert Retriever(index, replace(TUNED, chats=False)).prepare([question]).hits  # the ablation


@pytest.mark.parametrize(
    "question", ["What does os.frobnicate do?", "Explain `frobnicate`", "how do I call frobnicate()"]
)
def test_a_name_written_as_code_that_nobody_has_is_said_to_be_missing(question: str):
    prepared = TUNED_RETRIEVER.prepare([user(question)])
    assert prepared.messages == (user(f"{question}\n\n{NOTHING_FOUND}"),)
    assert prepared.grammar is not None


def test_a_question_that_shares_a_word_with_a_passage_only_does_not_get_it():
    question = "What whitespace do Norwegian poets love?"
    taught = Retriever(INDEX, TAUGHT).prepare([user(question)])
    assert TUNED_RETRIEVER.prepare([user(question)]).messages == (user(question),)
    assert taught.messages != (user(question),)  # the ablation: it is told that nothing was found


def test_a_checkpoint_names_its_template():
    assert [template_for(name) for name in ("taught", "tuned", None)] == [TAUGHT, TUNED, INSTRUCTED]
