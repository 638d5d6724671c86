"""Verdicts follow from measured values and a rule alone; intervals agree with SciPy; a trial leaves nothing open."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from underhood.core.figures import Frames, Grid, Heat, Plot, Series, Texts, figure_from_json, figure_to_json
from underhood.core.milestone import (
    Ablation,
    Claim,
    Exactly,
    Milestone,
    Minutes,
    at_least,
    at_most,
    judge,
    measured,
    near,
    student_t,
    worst,
)
from underhood.core.trial import Trial


def milestone(**changes) -> Milestone:
    claims = (
        Claim(key="count", statement="nine", judge=Exactly(9)),
        Claim(key="ratio", statement="twice", judge=at_least(2.0, shape=1.2, null=1.0)),
        Claim(key="slow", statement="at scale", judge=at_most(1.0), scale="report", aside=True),
    )
    fields = {
        "stem": "p2000_test",
        "rows": ("entropy",),
        "title": "A test",
        "year": 2000,
        "question": "Does it?",
        "idea": "It does.",
        "claims": claims,
        "ablations": (Ablation("idea", "the idea", ("ratio",)),),
        "minutes": Minutes(read=1, smoke=0.1, report=1),
    }
    return Milestone(**(fields | changes))


@pytest.mark.parametrize(
    ("rule", "values", "verdict"),
    [
        (Exactly(9), [9, 9], "exact"),
        (Exactly(9), [9, 8], "does not hold here"),
        (Exactly(0, within=1e-10), [3e-11, -9e-11], "exact"),
        (at_least(2), [2.0], "holds"),
        (at_least(2), [1.9], "does not hold here"),
        (at_least(2, shape=1.5), [1.9], "holds in shape"),
        (at_least(2, shape=1.5), [1.4], "does not hold here"),
        (at_most(0.5), [0.4, 0.5], "holds"),
        (near(0.208, 0.02), [0.213], "holds"),
        (near(0.208, 0.02, shape=0.1), [0.25], "holds in shape"),
        (at_least(2, null=1), [5.0], "not measurable here"),
        (at_least(2, null=1), [0.2, 9.0, 3.0], "not measurable here"),
        (at_least(2, null=1), [3.0, 3.1, 2.9], "holds"),
        (at_least(2, null=1), [0.5, 0.51, 0.49], "does not hold here"),
        (at_least(2), [math.nan], "does not hold here"),
        (Exactly(9), [math.inf], "does not hold here"),
    ],
)
def test_verdict_follows_from_rule_and_values(rule, values, verdict):
    assert judge(rule, measured(values)) == verdict


def test_worst_of_verdicts_is_the_least_good():
    assert worst(["exact", "not measurable here", "holds"]) == "not measurable here"
    assert worst(["exact", "holds in shape", "does not hold here"]) == "does not hold here"
    assert worst([]) is None


@pytest.mark.parametrize("freedom", [1, 2, 4, 9, 19, 30, 31, 60, 500])
def test_student_t_quantile_matches_scipy(freedom):
    assert student_t(freedom) == pytest.approx(scipy.stats.t.ppf(0.975, freedom), abs=1.5e-3)


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=12))
def test_interval_of_a_mean_matches_scipy(values):
    found = measured(values)
    error = scipy.stats.sem(values)
    if error > 1e-9:
        low, high = scipy.stats.t.interval(0.95, len(values) - 1, statistics.fmean(values), error)
        assert found.low == pytest.approx(low, rel=1e-3, abs=2e-3 * error)
        assert found.high == pytest.approx(high, rel=1e-3, abs=2e-3 * error)


@pytest.mark.parametrize("count", [6, 8, 15, 40])
def test_interval_of_a_median_covers_it_in_19_of_20_samples_or_more(count):
    rng = np.random.default_rng(count)
    covered = 0
    for _ in range(400):
        found = measured(list(rng.exponential(size=count)), "median")
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= math.log(2) <= found.high
    assert covered >= 0.93 * 400


def test_interval_of_a_median_needs_six_values():
    assert measured([1, 2, 3, 4, 5], "median").low is None
    assert measured([1, 2, 3, 4, 5, 6], "median").low == 1


def test_trial_judges_what_its_scale_judges():
    trial = Trial(milestone(), "smoke", seeds=range(3))
    for seed in trial.each_seed():
        trial.measure("ratio", 2.5 + 0.1 * seed)
    trial.measure("count", 9)
    verdicts = {claim["key"]: claim["verdict"] for claim in trial.as_json()}
    assert verdicts == {"count": "exact", "ratio": "holds", "slow": None}
    assert trial.wants("ratio")
    assert not trial.wants("slow")


def test_trial_that_leaves_a_claim_open_is_a_bug_unless_it_says_why():
    trial = Trial(milestone(), "smoke")
    trial.measure("count", 9)
    with pytest.raises(AssertionError, match="left the claim ratio open"):
        trial.as_json()
    trial.cannot("ratio", "needs a telescope")
    assert trial.verdict("ratio") == "not measurable here"
    assert "needs a telescope" in str(trial.as_json())


def test_ablated_trial_judges_only_what_must_break():
    trial = Trial(milestone(), "smoke", removed={"idea"})
    assert trial.without("idea")
    assert trial.wants("ratio")
    assert not trial.wants("count")
    trial.measure("ratio", 1.0)
    trial.figure(Grid(title="", head=(), rows=()))
    assert [claim["key"] for claim in trial.as_json()] == ["ratio"]
    assert trial.figures == []
    with pytest.raises(AssertionError, match="no ablation"):
        trial.without("something else")


def test_progress_of_nested_loops_only_grows_and_ends_at_one():
    told: list[float] = []
    trial = Trial(milestone(), "smoke", seeds=range(3), listener=lambda share, _: told.append(share))
    for _ in trial.each_seed():
        for _ in trial.each("abcd", "order"):
            trial.progress(0.5)
    assert told == sorted(told)
    assert told[0] == 0
    assert told[-1] == pytest.approx(1)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"ablations": ()}, "no ablation"),
        ({"ablations": (Ablation("a", "b", ("nothing",)),)}, "breaks no claim nothing"),
        ({"ablations": (Ablation("a", "b", ()),)}, "breaks nothing"),
        ({"ablations": (Ablation("a", "b", ("slow",)),)}, "not judged at smoke scale"),
        ({"claims": (Claim(key="ratio", statement="", judge=Exactly(0), row="adam"),)}, "none of its rows"),
        ({"claims": (Claim(key="ratio", statement="", judge=Exactly(0)),) * 2}, "two claims are called ratio"),
    ],
)
def test_description_that_contradicts_itself_is_found_out(changes, problem):
    assert milestone().problems() == []
    assert any(problem in found for found in milestone(**changes).problems())


@pytest.mark.parametrize(
    "figure",
    [
        Plot(title="t", x="x", y="y", series=(Series("a", (1, 2), (3, 4), (2, 3), (4, 5)),), levels=((1.0, "one"),)),
        Frames(
            title="t", control="k", frames=(("1", Plot(title="t", x="x", y="y", series=(Series("a", (1,), (2,)),))),)
        ),
        Heat(title="t", values=((1.0, -2.0),), rows=("r",), columns=("a", "b"), signed=True),
        Grid(title="t", head=("a", "b"), rows=(("x", 1.5),)),
        Texts(title="t", texts=(("first", "IN NO IST"),)),
    ],
    ids=lambda figure: type(figure).__name__,
)
def test_figure_survives_json(figure):
    import json

    assert figure_from_json(json.loads(json.dumps(figure_to_json(figure)))) == figure
