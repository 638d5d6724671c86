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
from underhood.core.milestone import Ablation, Claim, Milestone, Minutes, read_milestone
from underhood.core.trial import Trial
from underhood.core.verdicts import ExactRule, RangeRule, count_held, estimate, judge, parse_rule, verdict_of, worst


def milestone(**changes) -> Milestone:
    claims = (
        Claim(key="count", statement="nine", rule=ExactRule(9)),
        Claim(key="ratio", statement="twice", rule=parse_rule({"at_least": 2.0, "shape": 1.2}), headline=True),
        Claim(key="slow", statement="at scale", rule=parse_rule({"at_most": 1.0}), scale="report"),
    )
    fields = {
        "stem": "p2000_test",
        "topics": ("entropy",),
        "title": "A test",
        "year": 2000,
        "question": "Does it?",
        "idea": "It does.",
        "claims": claims,
        "ablations": (Ablation(key="idea", removes="the idea", breaks=("ratio",)),),
        "minutes": Minutes(read=1, smoke=0.1, report=1),
    }
    return Milestone(**(fields | changes))


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"exactly": 9}, ExactRule(9)),
        ({"exactly": 0.0, "within": 1e-10}, ExactRule(0.0, 1e-10)),
        ({"at_least": 2}, RangeRule(2, math.inf)),
        ({"at_least": 2, "shape": 1.5}, RangeRule(2, math.inf, (1.5, math.inf))),
        ({"at_most": 2, "shape": 3}, RangeRule(-math.inf, 2, (-math.inf, 3))),
        ({"near": 5, "within": 1, "shape": 2}, RangeRule(4, 6, (3, 7))),
        ({"from": 0.9, "to": 1.1}, RangeRule(0.9, 1.1)),
    ],
)
def test_rule_is_read_from_its_fields(fields, rule):
    assert parse_rule(fields) == rule


@pytest.mark.parametrize(
    "fields", [{}, {"near": 5}, {"at_least": 1, "at_most": 2}, {"exactly": 1, "shape": 2}, {"at_lest": 1}]
)
def test_rule_of_no_known_form_is_refused(fields):
    with pytest.raises(ValueError, match="a rule is one of"):
        parse_rule(fields)


TWO = {"at_least": 2}
SHAPE = {"at_least": 2, "shape": 1.5}


@pytest.mark.parametrize(
    ("fields", "values", "verdict"),
    [
        ({"exactly": 9}, [9, 9], "exact"),
        ({"exactly": 9}, [9, 8], "does not hold here"),
        ({"exactly": 0, "within": 1e-10}, [3e-11, -9e-11], "exact"),
        ({"exactly": 9}, [math.inf], "does not hold here"),
        (TWO, [3.0, 3.1, 2.9], "holds"),
        (TWO, [0.5, 0.51, 0.49], "does not hold here"),
        (TWO, [1.0, 9.0, 3.0], "inconclusive"),  # the mean is on the right side, the interval crosses
        (TWO, [0.5, 2.5, 1.0], "inconclusive"),  # the mean is on the wrong side, the interval crosses
        (TWO, [5.0], "inconclusive"),  # one seed has no interval
        (TWO, [math.nan, 3.0], "does not hold here"),
        (SHAPE, [1.9, 1.91, 1.89], "holds in shape"),
        (SHAPE, [2.3, 2.0, 1.9], "holds in shape"),  # crosses the threshold within the shape
        (SHAPE, [1.4, 1.6, 1.5], "inconclusive"),
        (SHAPE, [1.4, 1.41, 1.39], "does not hold here"),
        ({"near": 5, "within": 1}, [5.5, 5.6, 5.4], "holds"),
        ({"near": 5, "within": 1}, [3.5, 6.5, 5.0], "inconclusive"),  # wider than the range on both sides
    ],
)
def test_verdict_needs_the_whole_interval_on_the_right_side(fields, values, verdict):
    assert judge(parse_rule(fields), estimate(values)) == verdict


def test_value_that_does_not_depend_on_seeds_needs_no_interval():
    assert judge(parse_rule(TWO), estimate([2.0], fixed=True)) == "holds"
    assert judge(parse_rule(TWO), estimate([1.9], fixed=True)) == "does not hold here"


def test_extremes_are_judged_on_every_value():
    at_most_two = parse_rule({"at_most": 2})
    assert judge(at_most_two, estimate([1.0, 1.9, 0.5], "max")) == "holds"
    assert judge(at_most_two, estimate([1.0, 2.1, 0.5], "max")) == "does not hold here"


def claim(verdict, headline=False, topic=""):
    return {"verdict": verdict, "headline": headline, "topic": topic}


def test_milestone_verdict_is_that_of_its_headline_claims():
    claims = [
        claim("exact", True),
        claim("holds", True, "huffman"),
        claim("does not hold here"),
        claim(None),
        claim("inconclusive", topic="huffman"),
    ]
    assert verdict_of(claims) == "holds"
    assert verdict_of(claims, "huffman") == "holds"
    assert verdict_of(claims, "entropy") == "exact"
    assert count_held(claims) == (2, 4)
    assert verdict_of([claim("holds")]) is None


def test_worst_of_verdicts_is_the_least_good():
    assert worst(["exact", "inconclusive", "holds"]) == "inconclusive"
    assert worst(["exact", "holds in shape", "does not hold here"]) == "does not hold here"
    assert worst([]) is None


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=12))
def test_interval_of_a_mean_matches_scipy(values):
    actual = estimate(values)
    error = scipy.stats.sem(values)
    if error > 1e-9:
        low, high = scipy.stats.t.interval(0.95, len(values) - 1, statistics.fmean(values), error)
        assert actual.low == pytest.approx(low, rel=1e-6, abs=1e-6 * error)
        assert actual.high == pytest.approx(high, rel=1e-6, abs=1e-6 * error)


@pytest.mark.parametrize("count", [6, 8, 15, 40])
def test_interval_of_a_median_covers_it_in_19_of_20_samples_or_more(count):
    rng = np.random.default_rng(count)
    covered = 0
    for _ in range(400):
        actual = estimate(list(rng.exponential(size=count)), "median")
        assert actual.low is not None
        assert actual.high is not None
        covered += actual.low <= math.log(2) <= actual.high
    assert covered >= 0.93 * 400


def test_interval_of_a_median_needs_six_values():
    assert estimate([1, 2, 3, 4, 5], "median").low is None
    assert estimate([1, 2, 3, 4, 5, 6], "median").low == 1


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
    trial.skip_claim("ratio", "needs a telescope")
    assert trial.verdict("ratio") == "not measurable here"
    assert "needs a telescope" in str(trial.as_json())


def test_ablated_trial_judges_only_what_must_break():
    trial = Trial(milestone(), "smoke", removed={"idea"})
    assert trial.ablated("idea")
    assert trial.wants("ratio")
    assert not trial.wants("count")
    trial.measure("ratio", 1.0)
    trial.figure(Grid(title="", head=(), rows=()))
    assert [claim["key"] for claim in trial.as_json()] == ["ratio"]
    assert trial.figures == []
    with pytest.raises(AssertionError, match="no ablation"):
        trial.ablated("something else")


def test_plots_and_tables_of_a_trial_are_figures():
    trial = Trial(milestone(), "smoke")
    line = Series("a", (1, 2), (3, 4))
    trial.plot(title="t", x="x", y="y", log_y=True, series=(each for each in [line]))
    trial.table(title="t", head=("a",), rows=[("x",)])
    assert trial.figures == [
        Plot(title="t", x="x", y="y", log_y=True, series=(line,)),
        Grid(title="t", head=("a",), rows=(("x",),)),
    ]


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
        ({"ablations": (Ablation(key="a", removes="b", breaks=("nothing",)),)}, "breaks no claim nothing"),
        ({"ablations": (Ablation(key="a", removes="b", breaks=()),)}, "breaks nothing"),
        ({"ablations": (Ablation(key="a", removes="b", breaks=("slow",)),)}, "not judged at smoke scale"),
        ({"claims": (Claim(key="ratio", statement="", rule=ExactRule(0), topic="adam"),)}, "none of its topics"),
        ({"claims": (Claim(key="ratio", statement="", rule=ExactRule(0)),)}, "no headline claim"),
        ({"claims": (Claim(key="ratio", statement="", rule=ExactRule(0)),) * 2}, "two claims are called ratio"),
    ],
)
def test_description_that_contradicts_itself_is_found_out(changes, problem):
    assert milestone().problems() == []
    assert any(problem in actual for actual in milestone(**changes).problems())


def write_folder(folder, toml="", prose="# A test\n\nIt does.\n"):
    folder.mkdir()
    text = """
topics = ["entropy"]
year = 2000
question = "Does it?"
minutes = { read = 1, smoke = 0.1, report = 1 }

[[claims]]
key = "ratio"
headline = true
statement = "twice"
rule = { at_least = 2.0 }
"""
    (folder / "milestone.toml").write_text(text + toml, encoding="utf-8")
    (folder / "idea.md").write_text(prose, encoding="utf-8")
    return folder


def test_milestone_is_read_from_its_folder(tmp_path):
    prose = "# A test\n\nIt *does*.\n\n## What was hard\n\nAll.\n\n## Errata\n\n- one\n  more\n- two\n"
    read = read_milestone(write_folder(tmp_path / "p2000_test", prose=prose))
    assert (read.stem, read.title, read.idea, read.hard) == ("p2000_test", "A test", "It *does*.", "All.")
    assert read.errata == ("one more", "two")
    assert read.claims[0].rule == RangeRule(2.0)


@pytest.mark.parametrize(
    ("toml", "prose", "message"),
    [
        ("unit_ = 1", "# A\n", "claim has no unit_"),
        ("paper = { value = 1, evidnce = 'verified' }", "# A\n", "printed has no evidnce"),
        ("[extra]", "# A\n", "milestone has no extra"),
        ("", "A\n", "begins with its title"),
        ("", "# A\n\n## Notes\n", "a section 'Notes', expected What was hard"),
    ],
)
def test_milestone_file_with_a_mistake_is_refused_by_name(tmp_path, toml, prose, message):
    folder = write_folder(tmp_path / "p2000_test", toml, prose)
    with pytest.raises(ValueError, match=message) as error:
        read_milestone(folder)
    assert "p2000_test" in str(error.value)


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
