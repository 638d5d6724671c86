"""Payloads of the page's views of attribution, ablation, ranks, factors, paths, induction and differences."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from inside_payload import decoded, family, subject_of
from tiny_run import make_run

from underhood.core.errors import UserError
from underhood.inspect.ablation_grid import head_grid
from underhood.inspect.attribution import attribute
from underhood.inspect.comparison import compare
from underhood.inspect.deletion import deletion_curves
from underhood.inspect.factors import neuron_factors
from underhood.inspect.induction import induction_scores
from underhood.inspect.stage_patching import ModelRun
from underhood.inspect.target import Target
from underhood.inspect.trace import trace
from underhood.inspect.trajectory import token_paths
from underhood.inspect.word_ranks import word_ranks
from underhood.web.inside.subjects import InsideModels, Subject
from underhood.web.inside.views import view


def read(subject: Subject, name: str, **given: str | int):
    return decoded(view(subject, name, given).to_bytes())


@pytest.fixture(scope="module", params=["gpt2", "mixtral", "recurrent"])
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return subject_of(family(request.param, tmp_path_factory.mktemp(request.param)))


def test_attribution_has_the_methods_and_curves_of_python(subject: Subject):
    answer, other = chr(0x100 + 40), chr(0x100 + 7)
    target = Target(token=40, against=7, position=8)
    methods = attribute(subject.loaded, subject.ids, target)
    curves = deletion_curves(subject.loaded, methods, orders=12)
    inserted = deletion_curves(subject.loaded, methods, orders=12, insertion=True)
    facts, arrays = read(subject, "attribution", position=8, answer=answer, other=other)
    assert [method["name"] for method in facts["methods"]] == [method.method for method in methods]
    assert arrays["values"].shape == (4, 9)
    for row, (method, curve, back) in enumerate(zip(methods, curves, inserted, strict=True)):
        assert np.allclose(arrays["insertion"][row], back.scores, atol=1e-4)
        assert facts["methods"][row]["insertion_gain"] == pytest.approx(back.gain, abs=1e-4)
        assert facts["methods"][row]["insertion_area"] == pytest.approx(back.area, abs=1e-4)
        assert np.allclose(arrays["values"][row], method.values, atol=1e-5)
        assert np.allclose(arrays["curves"][row], curve.scores, atol=1e-4)
        assert facts["methods"][row]["gain"] == pytest.approx(curve.gain, abs=1e-4)
    assert facts["random_area"] == pytest.approx(curves[0].random_area, abs=1e-4)
    assert facts["insertion_random_area"] == pytest.approx(inserted[0].random_area, abs=1e-4)
    assert np.allclose(arrays["insertion_random"], inserted[0].random.mean(dim=0), atol=1e-4)
    assert not np.allclose(arrays["insertion"], arrays["curves"], atol=1e-3)


def test_ablation_is_the_grid_of_python(subject: Subject):
    target = Target(token=40, position=8)
    expected = head_grid(subject.loaded, subject.ids, target, mode="mean")
    facts, arrays = read(subject, "ablation", position=8, answer=chr(0x100 + 40))
    assert np.allclose(arrays["changes"], expected.changes, atol=1e-5, equal_nan=True)
    assert facts["score"] == pytest.approx(expected.score, abs=1e-5)
    layer, head, change = expected.largest(1)[0]
    assert facts["largest"][0] == pytest.approx({"layer": layer, "head": head, "change": change}, abs=1e-5)


def test_ranks_paths_and_similarity_are_those_of_python(subject: Subject):
    words = [chr(0x100 + 40), chr(0x100 + 7)]
    expected = word_ranks(subject.loaded, subject.trace, words, position=5)
    facts, arrays = read(subject, "ranks", position=5, words="|".join(words))
    assert facts["pieces"] == list(expected.pieces)
    assert arrays["ranks"].tolist() == expected.ranks.tolist()
    facts, arrays = read(subject, "paths")
    assert np.allclose(arrays["points"], token_paths(subject.trace).points, atol=1e-5)
    values = read(subject, "similarity")[1]["values"]
    assert np.allclose(np.diag(values), 1, atol=1e-3)
    assert np.allclose(values, values.T, atol=1e-3)


def test_factors_are_those_of_python_where_there_are_hidden_units(subject: Subject):
    units = [site for site in trace(subject.loaded, subject.ids, ["residual"]).values if site.startswith("units.")]
    assert not units
    if type(subject.model.blocks[0].feedforward).__name__ == "MixtureOfExperts":
        with pytest.raises(UserError, match="experts"):
            read(subject, "factors")
        return
    expected = neuron_factors(trace(subject.loaded, subject.ids, ["units"]), 4)
    facts, arrays = read(subject, "factors", count=4)
    assert np.allclose(arrays["strengths"], expected.strengths, atol=1e-3)
    assert facts["explained"] == pytest.approx(expected.explained, abs=1e-6)
    assert facts["units"][0][0] == list(expected.top_units(0, 1)[0])


def test_induction_scores_are_those_of_python(subject: Subject):
    expected = induction_scores(subject.loaded, length=50)
    facts, arrays = read(subject, "induction")
    assert np.allclose(arrays["induction"], expected.induction, atol=1e-3)
    assert facts["layers"] == list(expected.layers)
    assert facts["second_loss"] == pytest.approx(expected.second_loss, abs=1e-5)


def test_difference_of_two_stages_is_that_of_python(tmp_path: Path):
    models = InsideModels.open(make_run(tmp_path / "tiny"))
    dpo, base = (models.subject(id, "The list is") for id in ("dpo", "base"))
    expected = compare(ModelRun(base.loaded, base.trace), ModelRun(dpo.loaded, dpo.trace))
    _, arrays = read(dpo, "difference", beside="base")
    assert np.allclose(arrays["divergence"], expected.lens_kl, atol=1e-5)
    assert np.allclose(arrays["cosine"], expected.cosine, atol=1e-6)
    with pytest.raises(UserError):
        read(dpo, "difference", beside="base", against="a much longer prompt than the other")
