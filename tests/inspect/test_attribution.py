"""Attribution beside captum, separate passes and a planted cause; deletion curves beside random orders."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from planted_recall import recall_model, recall_prompts
from traced import IDS, opened

from underhood.core.errors import UserError
from underhood.infer.load import LoadedModel
from underhood.inspect.attribution import (
    Attribution,
    Quadrature,
    attribute,
    gradient_times_input,
    integrated_gradients,
    occlusion,
    quadrature,
    steps_per_batch,
)
from underhood.inspect.deletion import deletion_curve, deletion_curves
from underhood.inspect.sites import sites_of
from underhood.inspect.target import Target

TARGET = Target(token=40, against=7)
RULES = {"gauss-legendre": "gausslegendre", "middle": "riemann_middle", "left": "riemann_left"} | {
    "right": "riemann_right"
}


@pytest.fixture(scope="module", params=["gpt2", "llama2", "mistral", "mixtral", "qwen3", "gemma2"])
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return opened(request.param, tmp_path_factory.mktemp(request.param))[0]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return opened("llama2", tmp_path_factory.mktemp("llama"))[0]


def from_embeddings(loaded: LoadedModel) -> Any:
    """The target as a function of the token embeddings, through the model's own forward pass."""

    def forward(embedded_BTD: torch.Tensor) -> torch.Tensor:
        handle = loaded.decoder.embed.register_forward_hook(lambda _m, _i, _o: embedded_BTD)
        try:
            logits_BV = loaded.decoder(torch.tensor([IDS]).expand(len(embedded_BTD), -1))[:, -1]
        finally:
            handle.remove()
        return logits_BV[:, 40] - logits_BV[:, 7]

    return forward


@pytest.mark.parametrize("rule", RULES)
def test_integrated_gradients_match_captum(rule: Any, loaded: LoadedModel):
    from captum.attr import IntegratedGradients

    embedded_1TD = loaded.decoder.embed(torch.tensor([IDS])).detach()
    baseline_1TD = loaded.decoder.embed(torch.full((1, len(IDS)), 9)).detach()
    theirs, delta = IntegratedGradients(from_embeddings(loaded)).attribute(
        embedded_1TD, baseline_1TD, n_steps=16, method=RULES[rule], return_convergence_delta=True
    )
    ours = integrated_gradients(loaded, IDS, TARGET, baseline=9, steps=16, rule=rule, held=())
    expected_T = theirs[0].sum(dim=-1)
    assert torch.allclose(ours.values, expected_T.float(), atol=1e-4 * float(expected_T.abs().max()))
    assert ours.error == pytest.approx(float(delta), abs=1e-4)


def test_gradient_times_input_matches_captum(loaded: LoadedModel):
    from captum.attr import InputXGradient

    embedded_1TD = loaded.decoder.embed(torch.tensor([IDS])).detach().requires_grad_()
    product_TD = InputXGradient(from_embeddings(loaded)).attribute(embedded_1TD)[0].detach()
    signed = gradient_times_input(loaded, IDS, TARGET, norm=False)
    assert torch.allclose(signed.values, product_TD.sum(dim=-1), atol=1e-5)
    lengths = gradient_times_input(loaded, IDS, TARGET)
    assert torch.allclose(lengths.values, product_TD.norm(dim=-1), atol=1e-5)
    assert float(lengths.shares.sum()) == pytest.approx(1.0)


def test_integrated_gradients_are_complete(loaded: LoadedModel):
    fine = integrated_gradients(loaded, IDS, TARGET, baseline=9, steps=128, held=())
    assert fine.error is not None
    assert fine.baseline_score is not None
    change = abs(fine.score - fine.baseline_score)
    if "router.0" in sites_of(loaded.decoder):  # it jumps from expert to expert: slopes do not add up over a jump
        assert abs(fine.error) > 0.1
        return
    assert abs(fine.error) < 1e-3 * max(change, 1.0)
    coarse = integrated_gradients(loaded, IDS, TARGET, baseline=9, steps=1, rule="left", held=())
    assert coarse.error is not None
    assert abs(coarse.error) > abs(fine.error)


@pytest.mark.parametrize("baseline", ["zero", "mean", 3])
def test_a_baseline_is_stated_and_used(baseline: Any, loaded: LoadedModel):
    result = integrated_gradients(loaded, IDS, TARGET, baseline=baseline, steps=2, held=())
    table_VD = loaded.decoder.embed(torch.arange(loaded.decoder.vocab_size))
    vector_D = {"zero": table_VD[0] * 0, "mean": table_VD.mean(dim=0)}.get(baseline, table_VD[3])
    expected = from_embeddings(loaded)(vector_D.expand(1, len(IDS), -1))
    assert result.baseline_score == pytest.approx(float(expected[0]), abs=1e-5)
    assert {"zero": "zero", "mean": "mean"}.get(baseline, "id 3") in result.baseline


def test_a_held_token_counts_for_nothing_and_starts_as_it_is(loaded: LoadedModel):
    result = integrated_gradients(loaded, IDS, TARGET, baseline=9, steps=2, held=[0, 4])
    start_TD = loaded.decoder.embed(torch.tensor([IDS[0], 9, 9, 9, IDS[4], *[9] * 7]))
    assert result.baseline_score == pytest.approx(float(from_embeddings(loaded)(start_TD[None])[0]), abs=1e-5)
    assert result.values[[0, 4]].tolist() == [0.0, 0.0]
    assert result.baseline.endswith("held")


def test_both_ways_in_share_the_default_of_mean_and_held_first_token(loaded: LoadedModel):
    alone = integrated_gradients(loaded, IDS, TARGET)
    among = attribute(loaded, IDS, TARGET, replacement=9)[2]
    stated = integrated_gradients(loaded, IDS, TARGET, baseline="mean", steps=64, held=[0])
    for result in (alone, among):
        assert torch.equal(result.values, stated.values)
        assert result.baseline == stated.baseline
    assert stated.values[0] == 0
    only = integrated_gradients(loaded, IDS[:1], TARGET, steps=4)
    assert "held" not in only.baseline
    assert only.values[0] != 0


def test_batches_of_steps_change_nothing(llama: LoadedModel, monkeypatch: pytest.MonkeyPatch):
    whole = integrated_gradients(llama, IDS, TARGET, steps=7)
    assert steps_per_batch(llama.decoder, len(IDS)) >= 7
    monkeypatch.setattr("underhood.inspect.attribution.ACTIVATION_MB", 0.2)
    assert steps_per_batch(llama.decoder, len(IDS)) < 7
    assert torch.allclose(integrated_gradients(llama, IDS, TARGET, steps=7).values, whole.values, atol=1e-6)


def test_occlusion_is_separate_passes(loaded: LoadedModel):
    result = occlusion(loaded, IDS, TARGET, replacement=9)

    def score(ids: list[int]) -> float:
        logits_V = loaded.decoder(torch.tensor([ids]))[0, -1]
        return float(logits_V[40] - logits_V[7])

    for token in range(len(IDS)):
        expected = score(IDS) - score([*IDS[:token], 9, *IDS[token + 1 :]])
        assert result.values[token] == pytest.approx(expected, abs=1e-5)
    assert "id 9" in result.baseline


def test_contrast_is_the_difference_of_two_targets(loaded: LoadedModel):
    for method in (
        lambda target: gradient_times_input(loaded, IDS, target, norm=False),
        lambda target: integrated_gradients(loaded, IDS, target, steps=4),
        lambda target: occlusion(loaded, IDS, target, replacement=9),
    ):
        both = method(TARGET)
        alone = [method(Target(token=token)).values for token in (40, 7)]
        assert torch.allclose(both.values, alone[0] - alone[1], atol=1e-5)


def test_a_position_cuts_what_comes_after(loaded: LoadedModel):
    early = Target(token=40, against=7, position=5)
    for ours, cut in zip(
        attribute(loaded, IDS, early, steps=4, replacement=9),
        attribute(loaded, IDS[:6], TARGET, steps=4, replacement=9),
        strict=True,
    ):
        assert torch.equal(ours.values, cut.values)


def hits(attributions: list[Attribution], causes: list[int]) -> float:
    """How often the cause counts most, of the tokens before the last, whose own embedding is part of every answer."""
    right = [int(each.values.abs()[:-1].argmax()) == cause for each, cause in zip(attributions, causes, strict=True)]
    return sum(right) / len(right)


def test_every_method_hits_a_planted_cause_and_random_does_not(tmp_path: Path):
    loaded, prompts = recall_model(tmp_path), recall_prompts(40)
    causes = [cause for _, cause, _, _ in prompts]
    results = [
        attribute(loaded, ids, Target(token=value, against=other), steps=8, held=(), replacement=0)
        for ids, _, value, other in prompts
    ]
    for method in range(4):
        assert hits([each[method] for each in results], causes) > 0.9, results[0][method].method
    generator = torch.Generator().manual_seed(2)
    guesses = [int(torch.randint(len(ids) - 1, (1,), generator=generator)) for ids, *_ in prompts]
    assert sum(guess == cause for guess, cause in zip(guesses, causes, strict=True)) / len(causes) < 0.3


def test_without_copying_the_cause_is_not_hit(tmp_path: Path):
    loaded, prompts = recall_model(tmp_path, copies=False, noise=0.05), recall_prompts(40)
    results = [
        integrated_gradients(loaded, ids, Target(token=value, against=other), steps=8, held=())
        for ids, _, value, other in prompts
    ]
    intact = recall_model(tmp_path, noise=0.05)
    with_copying = [
        integrated_gradients(intact, ids, Target(token=value, against=other), steps=8, held=())
        for ids, _, value, other in prompts
    ]
    causes = [cause for _, cause, _, _ in prompts]
    shares = [
        sum(float(each.values[cause]) for each, cause in zip(group, causes, strict=True)) / len(causes)
        for group in (results, with_copying)
    ]
    assert abs(shares[0]) < 0.2 * shares[1]


def test_curves_are_separate_passes_and_random_orders_are_worse(tmp_path: Path):
    loaded = recall_model(tmp_path)
    ids, cause, value, other = recall_prompts(1)[0]
    target = Target(token=value, against=other)
    exact = occlusion(loaded, ids, target, replacement=0)
    curve = deletion_curve(loaded, exact, replacement=0)
    assert curve.scores[0] == pytest.approx(exact.score, abs=1e-5)
    without = [0 if token == cause else id for token, id in enumerate(ids)]
    logits_V = loaded.decoder(torch.tensor([without]))[0, -1]
    assert curve.scores[1] == pytest.approx(float(logits_V[value] - logits_V[other]), abs=1e-4)
    alone = [replace(curve, scores=scores).area for scores in curve.random]
    assert curve.area <= min(alone)
    assert curve.random_area == pytest.approx(sum(alone) / len(alone))
    back = deletion_curve(loaded, exact, replacement=0, insertion=True)
    assert back.scores[-1] == pytest.approx(exact.score, abs=1e-5)
    assert back.scores[0] == pytest.approx(float(curve.scores[-1]), abs=1e-5)
    assert back.area >= max(replace(back, scores=scores).area for scores in back.random)
    assert curve.area == pytest.approx(float((curve.scores[1:] + curve.scores[:-1]).mean() / 2), abs=1e-5)


def test_a_reversed_ranking_is_worse_than_random(tmp_path: Path):
    loaded = recall_model(tmp_path)
    ids, _, value, other = recall_prompts(1)[0]
    exact = occlusion(loaded, ids, Target(token=value, against=other), replacement=0)
    reversed_ = Attribution(exact.method, exact.target, exact.ids, exact.pieces, -exact.values, exact.score)
    right, wrong = deletion_curves(loaded, [exact, reversed_], replacement=0)
    assert right.gain > 0 > wrong.gain


@pytest.mark.parametrize("steps", [2, 5, 16])
def test_quadratures_integrate_what_they_must(steps: int):
    exact_degrees: dict[Quadrature, int] = {"gauss-legendre": 2 * steps - 1, "middle": 1, "trapezoid": 1, "left": 0}
    for rule, exact_degree in exact_degrees.items():
        nodes, weights = quadrature(rule, steps)
        for degree in range(exact_degree + 1):
            integral = sum(weight * node**degree for node, weight in zip(nodes, weights, strict=True))
            assert integral == pytest.approx(1 / (degree + 1), abs=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: integrated_gradients(model, IDS, TARGET, steps=0), "steps is out of range"),
        (lambda model: integrated_gradients(model, IDS, TARGET, rule="simpson"), "no quadrature 'simpson'"),
        (lambda model: integrated_gradients(model, IDS, TARGET, baseline="noise"), "no baseline 'noise'"),
        (lambda model: integrated_gradients(model, IDS, TARGET, baseline=500), "no token 500"),
        (lambda model: integrated_gradients(model, IDS, TARGET, held=[12]), "a held position is out of range"),
        (lambda model: occlusion(model, IDS, TARGET, replacement=-1), "no token -1"),
        (lambda model: deletion_curve(model, occlusion(model, IDS, TARGET), orders=1), "orders is out of range"),
    ],
)
def test_mistakes_are_explained(call: Any, message: str, llama: LoadedModel):
    with pytest.raises(UserError, match=message):
        call(llama)


def test_results_describe_themselves(llama: LoadedModel):
    for each in attribute(llama, IDS, TARGET, steps=2):
        assert each.method in repr(each)
        assert "underhood" in each._repr_html_()
    curve = deletion_curve(llama, occlusion(llama, IDS, TARGET))
    assert "deletion curve of occlusion" in repr(curve)
    assert "Deletion" in curve._repr_html_()
