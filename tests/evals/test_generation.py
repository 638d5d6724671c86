"""Measures of written text against values worked out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from underhood.evals.generation import (
    GeneratedAnswer,
    evaluate_answers,
    evaluate_refusals,
    exact_match,
    prefix_match,
    repetition,
    rouge_l,
    token_f1,
)


def test_exact_match_sets_case_punctuation_and_articles_aside():
    assert exact_match("The  cat, sat!", "cat sat")
    assert not exact_match("cat sat down", "cat sat")
    assert prefix_match("A cat sat down.", "The cat sat.")
    assert not prefix_match("cats sat", "cat")
    assert not prefix_match("cat", "cat sat")


def test_token_f1_counts_shared_words_with_multiplicity():
    assert token_f1("red red fish", "red fish swims") == pytest.approx(2 * 2 / (3 + 3))
    assert token_f1("fish red", "red fish") == 1
    assert token_f1("", "red") == token_f1("red", "") == token_f1("blue", "red") == 0
    assert token_f1("", "the") == 1  # nothing is left of either


def test_rouge_l_follows_order():
    # Lin 2004, section 3.1: S1 against S2 and S3; LCS 3 and 2 of 4 words.
    assert rouge_l("police kill the gunman", "police killed the gunman") == pytest.approx(3 / 4)
    assert rouge_l("the gunman kill police", "police killed the gunman") == pytest.approx(2 / 4)
    assert token_f1("the gunman kill police", "police killed the gunman") == pytest.approx(2 / 3)  # order-blind
    assert rouge_l("a b c d e", "a x c") == pytest.approx(2 * 2 / 8)
    assert rouge_l("Über-Größe", "über größe") == 1
    assert rouge_l("", "") == 1
    assert rouge_l("…", "word") == 0


@given(st.lists(st.sampled_from("abc"), max_size=8), st.lists(st.sampled_from("abc"), max_size=8))
def test_rouge_l_matches_trying_every_subsequence(first, second):
    def subsequences(words):
        actual = {()}
        for word in words:
            actual |= {(*before, word) for before in actual}
        return actual

    longest = max(map(len, subsequences(first) & subsequences(second)))
    expected = 2 * longest / (len(first) + len(second)) if first and second else float(first == second)
    assert rouge_l(" ".join(first), " ".join(second)) == pytest.approx(expected)


def test_repetition_is_the_share_of_runs_used_before():
    assert repetition("a b c d") == 0
    assert repetition("a b c") == 0
    assert repetition("a a a a a a") == pytest.approx(2 / 3)  # three runs, one distinct
    assert repetition("a b c d a b c d") == pytest.approx(1 / 5)


def test_answer_report_measures_every_item():
    written = {
        "q1": GeneratedAnswer("Joins paths.", True),
        "q2": GeneratedAnswer("Returns the sum of all, and so on", False),
        "q3": GeneratedAnswer("Something else entirely", True),
    }
    report = evaluate_answers(
        lambda prompts: [written[prompt] for prompt in prompts],
        ["q1", "q2", "q3"],
        ["Joins paths.", "Returns the sum.", "Opens a file."],
    )
    assert report.ended_N.tolist() == [1, 0, 1]
    assert report.ended.value == pytest.approx(2 / 3)
    assert report.exact_N.tolist() == [1, 0, 0]
    assert report.prefix_N.tolist() == [1, 1, 0]
    assert report.f1_N.tolist() == pytest.approx([1, 2 * 2 / (7 + 2), 0])
    assert report.rouge_l.low <= report.rouge_l.value <= report.rouge_l.high
    assert report.answers[1].text.endswith("so on")


def test_refusals_are_counted_for_invented_and_for_real_things():
    known = {"os.path.join", "len", "print"}

    def careful(prompts):
        return [GeneratedAnswer("It adds." if prompt in known else "I do not know it.", True) for prompt in prompts]

    declines = lambda text: text.startswith("I do not know")  # noqa: E731
    report = evaluate_refusals(careful, ["os.magic", "len2"], ["os.path.join", "len", "abs"], declines)
    assert report.invented.value == 1
    assert report.real.value == pytest.approx(1 / 3)
    always = evaluate_refusals(
        lambda prompts: [GeneratedAnswer("I do not know", True)] * len(prompts), ["a"], ["b"], declines
    )
    assert (always.invented.value, always.real.value) == (1, 1)


def test_answers_must_match_their_prompts_in_number():
    with pytest.raises(ValueError, match="2 prompts, 1 answers"):
        evaluate_answers(lambda prompts: [GeneratedAnswer("x", True)], ["a", "b"], ["x", "y"])
    with pytest.raises(ValueError, match="1 prompts, 2 references"):
        evaluate_answers(lambda prompts: [GeneratedAnswer("x", True)], ["a"], ["x", "y"])
    with pytest.raises(ValueError, match="no prompts"):
        evaluate_answers(lambda prompts: [], [], [])
