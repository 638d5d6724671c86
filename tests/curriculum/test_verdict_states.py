"""Verdicts that a milestone knows a reason for: misprints of the source, and effects too small to show."""

from __future__ import annotations

import pytest

from underhood.cli.claims import MARKS
from underhood.core.verdicts import HELD, VERDICTS, Estimate, RangeRule, explained, judge
from underhood.curriculum.index import milestones
from underhood.curriculum.pages.story import HUES

RULE = RangeRule(low=0.01)
REFUTED = Estimate((0.0, 0.001), 0.0005, -0.002, 0.003)
CROSSING = Estimate((0.0, 0.02), 0.01, -0.01, 0.03)
HOLDING = Estimate((0.02, 0.03), 0.025, 0.02, 0.03)


@pytest.mark.parametrize(
    ("estimated", "expected", "verdict"),
    [
        (REFUTED, None, "does not hold here"),
        (REFUTED, "source's misprint", "source's misprint"),
        (REFUTED, "too small to show here", "does not hold here"),  # a clear refutation is not excused by its size
        (CROSSING, None, "inconclusive"),
        (CROSSING, "too small to show here", "too small to show here"),
        (CROSSING, "source's misprint", "inconclusive"),
        (HOLDING, "source's misprint", "holds"),
        (HOLDING, "too small to show here", "holds"),
    ],
)
def test_an_expected_verdict_replaces_only_the_failure_that_it_explains(estimated, expected, verdict):
    assert explained(judge(RULE, estimated), expected) == verdict


def test_every_verdict_has_a_sign_and_a_look_of_its_own():
    assert set(MARKS) == set(VERDICTS) == set(HUES) - {None}
    assert len(set(MARKS.values())) == len(VERDICTS)
    looks = [HUES[verdict] for verdict in VERDICTS if verdict not in HELD]
    assert len(set(looks)) == len(looks)


def test_explained_failures_are_not_counted_as_holding():
    assert not {"source's misprint", "too small to show here"} & set(HELD)


def test_reasons_are_written_down():
    for milestone in milestones().values():
        assert not milestone.problems()
        for claim in milestone.claims:
            if claim.expected == "source's misprint":
                assert milestone.errata
