"""Query rewriting: what the questions of a conversation are searched with."""

from __future__ import annotations

import pytest

from underhood.retrieve.followup import search_query
from underhood.retrieve.questions import parse_question
from underhood.text.chat import Message


def talk(*turns: str) -> list[Message]:
    """Turns of user and assistant in turn, the last one the user's."""
    roles = ("user", "assistant")
    assert len(turns) % 2
    return [{"role": roles[number % 2], "content": text} for number, text in enumerate(turns)]


JOIN = "What does os.path.join do?"
ANSWER = "`os.path.join`: Join two or more pathname components. [1]"


@pytest.mark.parametrize(
    "question",
    [
        JOIN,
        "How do I sort a list?",
        "How do I split a string and strip it?",
        "Is it possible to sort a list?",
        "What does textwrap.dedent do, and is it quick?",
        "What are the parameters of json.dumps?",
        "do you know what sorted() does",
    ],
)
@pytest.mark.parametrize("earlier", [(), (JOIN, ANSWER), ("How do I join two paths?", "I do not know.")])
def test_a_question_with_its_own_subject_is_searched_as_it_is(question: str, earlier: tuple[str, ...]) -> None:
    assert search_query(talk(*earlier, question)) == question


@pytest.mark.parametrize(
    "question",
    [
        "and its parameters?",
        "What are its parameters?",
        "which parameters does it take?",
        "what does it return?",
        "Does it return a string?",
        "Can I use this with bytes?",
        "the parameters?",
        "and the return value?",
        "why?",
        "an example?",
        "What type does that function return?",
    ],
)
def test_a_question_that_points_back_is_searched_with_the_subject_before_it(question: str) -> None:
    query = search_query(talk(JOIN, "I do not know.", question))
    assert query == f"{question} `os.path.join`"
    assert "os.path.join" in parse_question(query).identifiers
    # The ablation: in a first turn there is nothing to point to.
    assert "os.path.join" not in search_query(talk(question))


def test_the_title_of_an_answer_is_the_subject_of_what_follows() -> None:
    how_to = "How do I join two paths?"
    assert search_query(talk(how_to, ANSWER, "and its parameters?")) == "and its parameters? `os.path.join`"
    refused = "`os.frob`: There is no such name in the documents."
    assert search_query(talk(how_to, refused, "what does it return?")) == "what does it return? join two paths"
    headings = "`Install > Linux`: Use pip. [1]"
    assert search_query(talk("How do I install it?", headings, "and then?")) == "and then? `Install > Linux`"


def test_the_subject_is_carried_through_several_turns_and_small_talk() -> None:
    turns = ("What does `dedent` do?", "-", "and its parameters?", "-", "Who are you?", "-", "Thanks!", "-")
    assert search_query(talk(*turns, "what does it return?")) == "what does it return? `dedent`"


def test_a_question_that_goes_on_with_another_subject_keeps_the_surroundings_of_the_old_one() -> None:
    assert search_query(talk(JOIN, "-", "what about split?")) == "`split` os path"
    assert search_query(talk(JOIN, ANSWER, "And how about dirname?")) == "`dirname` os path"
    assert search_query(talk("How do I install it on Windows?", "-", "and on Linux?")) == "`Linux` install Windows"
    turns = (JOIN, "-", "what about split?", "-", "does it return a list?")
    assert search_query(talk(*turns)) == "does it return a list? `split` os path"
    assert search_query(talk(JOIN, "-", "And what does json.loads do?")) == "And what does json.loads do?"


@pytest.mark.parametrize(
    "question",
    ["Hello!", "hi", "Thank you!", "Who are you?", "What can you do?", "what are you", "Are you a human?", "?", "",
     "What is your name?", "Who made you?"],
)  # fmt: skip
@pytest.mark.parametrize("earlier", [(), (JOIN, ANSWER)])
def test_greetings_and_questions_about_the_model_search_for_nothing(question: str, earlier: tuple[str, ...]) -> None:
    assert search_query(talk(*earlier, question)) == ""


def test_nothing_said_searches_for_nothing() -> None:
    assert search_query([]) == ""
