"""The results table: verdicts follow from the numbers, and JSON brings everything back."""

from __future__ import annotations

import json

import numpy as np
import pytest

from underhood.core.errors import UserError
from underhood.evals.intervals import Interval, bootstrap_ratio, wilson
from underhood.evals.table import Measurement, ResultsTable, StageResults, compare, measurement


def loss(nats, sizes) -> Measurement:
    return measurement(
        "bits per byte",
        bootstrap_ratio(nats, sizes),
        unit="bits/byte",
        higher_is_better=False,
        numerators=nats,
        denominators=sizes,
    )


def share(name: str, credit, **options) -> Measurement:
    return measurement(name, wilson(float(np.sum(credit)), len(credit)), numerators=credit, **options)


def table() -> ResultsTable:
    rng = np.random.default_rng(0)
    sizes = rng.integers(500, 2000, size=40)
    base = rng.normal(1.9, 0.4, size=40) * sizes
    worse = base + rng.uniform(0, 0.1, size=40) * sizes
    right = (rng.random(200) < 0.4).astype(float)
    more = np.maximum(right, rng.random(200) < 0.3)
    return ResultsTable.of(
        [
            StageResults(stage="base", measurements=(loss(base, sizes), share("choice", right, chance=0.25))),
            StageResults(stage="sft", measurements=(loss(worse, sizes), share("ends", [1.0] * 9 + [0.0]))),
            StageResults(stage="dpo", measurements=(loss(worse, sizes), share("choice", more, chance=0.25))),
        ],
        baselines=[Measurement(name="xz", value=1.74, unit="bits/byte", higher_is_better=False)],
    )


def test_verdicts_follow_from_paired_differences():
    verdicts = {(c.name, c.before, c.after): c.verdict for c in table().comparisons}
    assert verdicts == {
        ("bits per byte", "base", "sft"): "hurt",
        ("bits per byte", "sft", "dpo"): "no difference",  # not a single document changed
        ("choice", "base", "dpo"): "helped",  # sft didn't measure it: the nearest earlier stage counts
    }
    hurt = table().comparison("bits per byte", "sft")
    assert hurt is not None
    assert 0 < hurt.low < hurt.difference < hurt.high < 0.1
    assert table().comparison("ends", "sft") is None


def test_unpaired_measurements_differ_only_when_their_intervals_part():
    def of(low, high, **options):
        return Measurement(name="x", value=(low + high) / 2, low=low, high=high, **options)

    assert compare(of(0.1, 0.3), of(0.2, 0.4), stages=("a", "b")).verdict == "no difference"
    assert compare(of(0.1, 0.3), of(0.4, 0.5), stages=("a", "b")).verdict == "helped"
    assert compare(of(0.4, 0.5), of(0.1, 0.3), stages=("a", "b")).verdict == "hurt"
    lower = compare(of(0.4, 0.5), of(0.1, 0.3, higher_is_better=False), stages=("a", "b"))
    assert (lower.verdict, lower.low) == ("helped", None)
    bare = Measurement(name="x", value=1.0)
    assert compare(bare, of(2, 3), stages=("a", "b")).verdict == "no difference"


@pytest.mark.parametrize("items", [False, True])
def test_results_round_trip_through_json(items, tmp_path):
    path = tmp_path / "summary.json"
    path.write_text(json.dumps(table().to_json(items=items)))
    restored = ResultsTable.read(path)
    assert restored == (table() if items else table().without_items())
    assert restored.comparisons == table().comparisons  # verdicts survive though the items behind them don't
    assert bool(restored.stages[0]["choice"].numerators) == items


def test_results_refuse_what_is_not_theirs(tmp_path):
    with pytest.raises(UserError, match="unknown key 'stage'"):
        ResultsTable.from_json({"stage": []})
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(UserError, match=r"broken\.json can't be read"):
        ResultsTable.read(tmp_path / "broken.json")
    with pytest.raises(UserError, match="can't be read"):
        ResultsTable.read(tmp_path / "none.json")


def test_measurement_says_what_a_person_reads():
    assert share("a", [1.0] * 62 + [0.0] * 38).text() == "62.0 % (52.2–70.9)"
    bits = measurement("b", Interval(1.742, 1.69, 1.795, 67), unit="bits/byte", higher_is_better=False)
    assert bits.text() == "1.742 bits/byte (1.690–1.795)"
    alone = measurement("c", Interval(0.5, -np.inf, np.inf, 1))
    assert (alone.low, alone.text()) == (None, "50.0 %")


def test_stage_measures_each_thing_once():
    first = Measurement(name="x", value=1.0)
    with pytest.raises(ValueError, match="twice"):
        StageResults(stage="base", measurements=(first, first))
    assert ResultsTable.of([StageResults(stage="base", measurements=(first,))]).names == ["x"]
