"""The form of published models that were tuned on passages: without one, they chat."""

from __future__ import annotations

import pytest
from test_retriever import INDEX, JOIN, QUESTION, assistant, user

from underhood.data.grounded import NOTHING_FOUND
from underhood.retrieve.retriever import Retriever
from underhood.retrieve.template import INSTRUCTED, TAUGHT, TUNED, template_for

TUNED_RETRIEVER = Retriever(INDEX, TUNED)


def test_a_question_with_a_passage_reads_it_as_the_taught_form_does():
    ours, taught = (Retriever(INDEX, template).prepare([user(QUESTION)]) for template in (TUNED, TAUGHT))
    assert ours.hits[0].passage == JOIN
    assert ours.messages == taught.messages
    assert ours.grammar is not None


@pytest.mark.parametrize("question", ["What is the capital of France?", "What is life?", "Hello!", "Tell me a joke"])
def test_a_general_question_stays_plain_chat_with_the_turns_before_it(question: str):
    conversation = [user(QUESTION), assistant("`os.path.join`: Join pathname components. [1]"), user(question)]
    prepared = TUNED_RETRIEVER.prepare(conversation)
    assert prepared.messages == tuple(conversation)
    assert (prepared.hits, prepared.grammar) == ((), None)


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
