"""The list of topics is whole, routes are shortest, and results speak for milestones."""

from __future__ import annotations

import json
import math

import pytest

from underhood.core.errors import UserError
from underhood.core.verdicts import parse_rule
from underhood.curriculum import index, results
from underhood.curriculum.checks import CHECKS, chinchilla_ratio, zipf_entropy
from underhood.curriculum.excerpts import excerpt
from underhood.curriculum.reproduce import failures, is_sound, recompute, reproduce
from underhood.curriculum.route import path_to
from underhood.curriculum.topics import ERAS, GRADES, TIERS, after, before, depths, topic, topics


def test_rows_are_whole_and_their_prerequisites_form_no_cycle():
    table = topics()
    assert len(table) == 243  # the 242 of the seeds, and the policy gradient that PPO is made of
    for row in table.values():
        assert row.section in ERAS
        assert row.tier in TIERS
        assert row.grade in GRADES
        assert row.title
        assert set(row.needs) <= set(table)
        assert row.id not in row.needs
    depth = depths()  # endless recursion if there were a cycle
    assert all(depth[need] < depth[id] for id, row in table.items() for need in row.needs)
    assert sum(row.section in "ABC" for row in table.values()) == 36
    assert sum(row.section in "ABC" and row.tier == 1 for row in table.values()) == 17


def test_way_names_everything_needed_once_and_before_its_use():
    steps = [step.id for step in before("lm-compressor")]
    assert set(steps) == {"entropy", "mle-xent", "ngram-smoothing", "lm-compressor"}
    for position, id in enumerate(steps):
        assert set(topic(id).needs) <= set(steps[:position])
    for id in topics():
        actual = [step.id for step in before(id)]
        assert len(actual) == len(set(actual))
        # The ablation of "shortest": leave any stop out, and something later lacks it.
        assert all(any(stop in topic(other).needs for other in actual) for stop in actual[:-1])


def test_way_leaves_out_what_is_known_and_what_only_that_needs():
    every = {topic.id for step in path_to("lm-compressor") for topic in step.topics}
    some = {topic.id for step in path_to("lm-compressor", {"ngram-smoothing"}) for topic in step.topics}
    assert every - some == {"ngram-smoothing", "mle-xent"}


def test_after_is_the_inverse_of_needs():
    assert {step.id for step in after("perceptron")} == {
        id for id, step in topics().items() if "perceptron" in step.needs
    }


def test_unknown_row_names_the_nearest():
    with pytest.raises(UserError, match="Did you mean markov-1913"):
        topic("markov-1914")


def test_finding_takes_stem_row_or_word():
    for name in ("p1913_markov", "markov-1913", "hayes-article", "markov"):
        assert index.find(name).stem == "p1913_markov"
    with pytest.raises(UserError, match="has no milestone yet"):
        index.find("rag-2020")
    with pytest.raises(UserError, match="Did you mean"):
        index.find("markof-1913")


def test_excerpt_is_the_source_without_its_docstring():
    actual = excerpt("underhood.curriculum.topics:after")
    assert actual.file == "underhood/curriculum/topics.py"
    assert actual.lines[0] == "def after(name: str) -> list[Topic]:"
    assert actual.lines[-1].startswith("    return ")
    with pytest.raises(LookupError):
        excerpt("underhood.curriculum.topics:nothing")


def test_result_survives_the_disk_and_a_report_speaks_before_smoke(tmp_path):
    milestone = index.find("markov-1913")
    result = reproduce(milestone, "smoke", seeds=2)
    assert failures(result) == []
    file = results.save(tmp_path, result)
    assert results.load(file) == json.loads(json.dumps(result))
    assert results.latest("p1913_markov", [tmp_path]) == (file, results.load(file))
    report = result | {"scale": "report", "created": "2020-01-01T00:00:00+00:00"}
    old = results.save(tmp_path, report)
    actual = results.latest("p1913_markov", [tmp_path])
    assert actual is not None
    assert actual[0] == old


def test_damaged_result_is_said_to_be_one(tmp_path):
    (tmp_path / "p1913_markov").mkdir()
    (tmp_path / "p1913_markov" / "2026.json").write_text("{")
    with pytest.raises(UserError, match="is not a result"):
        results.latest("p1913_markov", [tmp_path])


def test_ablation_that_breaks_nothing_is_found_out():
    """The ablation of the ablations: a run that ignores what is taken away."""
    milestone = index.find("markov-1913")
    run = index.runner(milestone.stem)

    def stubborn(trial):
        trial.removed = frozenset()
        run(trial)

    result = reproduce(milestone, "smoke", seeds=2, run=stubborn)
    assert any("is not refuted" in problem for problem in failures(result))


def test_shannons_word_model_sums_to_one_where_the_harmonic_sum_says():
    rank, bits = zipf_entropy()
    assert sum(0.1 / n for n in range(1, rank)) < 1 <= sum(0.1 / n for n in range(1, rank + 1))
    assert (rank, round(bits, 2)) == (12_367, 9.72)


def test_chinchilla_constants_match_a_numerical_optimum():
    from scipy.optimize import minimize_scalar

    def loss(log_parameters: float) -> float:
        parameters = math.exp(log_parameters)
        return 406.4 / parameters**0.34 + 410.7 / (5.76e23 / 6 / parameters) ** 0.28

    best = math.exp(minimize_scalar(loss, bounds=(math.log(1e8), math.log(1e13)), method="bounded").x)
    assert 5.76e23 / 6 / best**2 == pytest.approx(chinchilla_ratio(), rel=1e-3)


def test_checks_name_rows_and_find_contradictions():
    assert {check.topic for check in CHECKS} <= set(topics())
    wrong = [check for check in CHECKS if check.verdict != "exact"]
    assert len(wrong) >= 12
    assert any(check.verdict == "exact" for check in CHECKS)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"exactly": 9760}, "exactly 9,760"),
        ({"near": 1.0, "within": 1e-6}, "1 ± 1e-06"),
        ({"near": 2, "within": 1, "shape": 2}, "1 to 3; in shape 0 to 4"),
    ],
)
def test_rule_in_words_says_its_numbers(rule, words):
    assert parse_rule(rule).words == words


def test_verdicts_of_a_stored_result_follow_the_present_rules():
    milestone = index.find("markov-1913")
    result = reproduce(milestone, "smoke", seeds=2)
    old = json.loads(json.dumps(result))
    for claim in old["claims"]:
        if "values" in claim:
            claim |= {"verdict": "does not hold here", "rule": "another"}
    assert recompute(milestone, old)["claims"] == json.loads(json.dumps(result["claims"]))
    assert recompute(milestone, old)["ablations"] == old["ablations"]


def test_ablation_counts_only_if_its_claims_hold_with_the_idea_and_fail_without():
    def claims(intact, ablated):
        return [{"with": {"verdict": intact}, "without": {"verdict": ablated}}]

    assert is_sound(claims("holds", "does not hold here")) is True
    assert is_sound(claims("holds", "inconclusive")) is False
    assert is_sound(claims("inconclusive", "does not hold here")) is False
    assert is_sound(claims("not measurable here", "not measurable here")) is None
