"""Preference pairs and multiple choice: right answers are right, wrong ones wrong, and no shortcut wins."""

from collections import Counter

import pytest

from underhood.data.documents import Corpus, Document
from underhood.data.preferences import generic_pairs, preference_pairs
from underhood.data.pydocs import DocumentedFunction, pydocs_functions
from underhood.data.questions import summary_questions


@pytest.fixture(scope="module")
def functions():
    return {function.name: function for function in pydocs_functions()}


@pytest.fixture(scope="module")
def pairs(functions):
    return preference_pairs(tuple(functions.values()), search, seed=0)


def search(question):
    """A search that always gives the same passages."""
    return [("os.path.join", "Join two or more pathname components. Parameters: `a` and `*p`.")]


def test_chosen_is_right_and_rejected_is_wrong(functions, pairs):
    for pair in pairs:
        refusal = f"`{pair.function}`: There is no such name in the documents."
        assert pair.chosen != pair.rejected
        assert pair.prompt[-1]["role"] == "user"
        question = pair.prompt[-1]["content"]
        assert pair.function in question
        if pair.kind == "invented":
            assert pair.function not in functions
            assert pair.chosen == refusal
            assert pair.rejected == "`os.path.join`: Join two or more pathname components. [1]"
            assert "[1] `os.path.join`: " in question
        elif pair.kind == "over-refusal":
            assert pair.chosen == f"`{pair.function}`: {functions[pair.function].summary} [1]"
            assert pair.chosen.removesuffix(" [1]") in question
            assert pair.rejected == refusal
        else:
            assert f"`{pair.function}`" in question
            assert pair.chosen == functions[pair.function].summary
            assert pair.rejected != refusal


def test_refusing_is_chosen_as_often_as_it_is_rejected(functions, pairs):
    kinds = Counter(pair.kind for pair in pairs)
    assert kinds["wrong-function"] == len(functions)
    assert kinds["invented"] == kinds["over-refusal"] == round(0.25 * len(functions))


def test_wrong_answers_are_hard(functions, pairs):
    """From the same module where it has another function, and no longer or shorter than right ones."""
    owner = {function.summary: function.owner for function in functions.values()}
    sizes = Counter(function.owner for function in functions.values())
    wrong = [pair for pair in pairs if pair.kind == "wrong-function"]
    for pair in wrong:
        same = owner[pair.rejected] == functions[pair.function].owner
        assert same or sizes[functions[pair.function].owner] == 1
    longer = sum(len(pair.chosen) > len(pair.rejected) for pair in wrong)
    shorter = sum(len(pair.chosen) < len(pair.rejected) for pair in wrong)
    assert longer / (longer + shorter) == pytest.approx(0.5, abs=0.06)


def test_pairs_depend_on_the_seed_only(functions, pairs):
    again = preference_pairs(tuple(functions.values()), search, seed=0)
    assert again == pairs
    assert preference_pairs(tuple(functions.values())[:100], search, seed=1) != preference_pairs(
        tuple(functions.values())[:100], search, seed=2
    )


def test_generic_pairs_prefer_the_true_continuation():
    stories = [
        f"There was a {animal} in the wood. It liked to eat {food} every day. One day the {animal} met a friend. "
        f"They ate {food} together and were happy. At night the {animal} went home to sleep."
        for animal, food in [("fox", "cheese"), ("bear", "honey"), ("mouse", "bread"), ("owl", "berries")]
    ]
    corpus = Corpus(tuple(Document(text, f"d{n}", "txt") for n, text in enumerate(stories)), "own")
    pairs = generic_pairs(corpus, seed=0)
    assert len(pairs) >= 4
    for pair in pairs:
        own = stories[int(pair.function[1:])]
        assert pair.chosen in own
        assert pair.rejected not in own


@pytest.fixture(scope="module")
def questions(functions):
    return summary_questions(tuple(functions.values()), n=800, seed=0)


def test_questions_have_four_different_choices_and_the_right_one_is_marked(functions, questions):
    assert len(questions) == 800
    assert len({question.function for question in questions}) == 800
    for question in questions:
        assert len(set(question.choices)) == 4
        assert question.choices[question.answer] == functions[question.function].summary
        assert f"`{question.function}`" in question.prompt


def test_answer_positions_are_balanced(questions):
    assert set(Counter(question.answer for question in questions).values()) == {200}


@pytest.mark.parametrize("rule", [min, max])
def test_length_gives_nothing_away(questions, rule):
    """Always choosing the shortest (longest) answer must stay near chance."""
    right = sum(
        rule(range(4), key=lambda index: len(question.choices[index])) == question.answer for question in questions
    )
    assert right / len(questions) == pytest.approx(0.25, abs=0.06)


def test_words_of_the_name_help_less_than_knowing(functions, questions):
    """The baseline of matching words of the name with words of the answers, which evaluation should report."""
    import re

    def overlap(name, choice):
        return len(set(re.findall("[a-z]{3,}", name.lower())) & set(re.findall("[a-z]{3,}", choice.lower())))

    right = sum(max(range(4), key=lambda index: overlap(q.function, q.choices[index])) == q.answer for q in questions)
    assert right / len(questions) < 0.75


def test_wrong_choices_mix_modules(functions, questions):
    owner = {function.summary: function.owner for function in functions.values()}
    sizes = Counter(function.owner for function in functions.values())
    for question in questions:
        mine = functions[question.function].owner
        same = sum(owner[choice] == mine for choice in question.choices) - 1
        assert same == (1 if sizes[mine] > 1 else 0)


def test_few_functions_still_make_questions():
    four = [DocumentedFunction(f"m.f{n}", "module m", "m", (), "", f"Return item number {n} of it.") for n in range(4)]
    questions = summary_questions(four, n=10, seed=0)
    assert len(questions) == 4
    assert all(len(set(question.choices)) == 4 for question in questions)
    with pytest.raises(ValueError, match="at least 4"):
        summary_questions(four[:3], n=10, seed=0)
