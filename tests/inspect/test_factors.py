"""Non-negative factors beside scikit-learn's, and what has to be shown before a factor means something."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.decomposition import NMF
from sklearn.metrics import mutual_info_score
from traced import IDS, opened

from underhood.core.errors import UserError
from underhood.inspect.factors import factor_information, mutual_information, neuron_factors, token_kind
from underhood.inspect.nmf import factorise, match_factors
from underhood.inspect.trace import trace


def uniform(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("seed", [0, 1])
def test_error_is_scikit_learns_from_the_same_start(seed: int):
    x_NF = (uniform(60, 5, seed=seed) @ uniform(5, 90, seed=seed + 10) - 0.5).clamp(min=0)
    start = uniform(60, 4, seed=3), uniform(4, 90, seed=4)
    ours = factorise(x_NF, 4, start=start, iterations=2000, tolerance=1e-8)
    peer = NMF(4, init="custom", solver="cd", max_iter=2000, tol=1e-8)
    peer.fit_transform(x_NF.numpy(), W=start[0].numpy().copy(), H=start[1].numpy().copy())
    assert ours.error == pytest.approx(peer.reconstruction_err_, rel=1e-3)
    assert ours.error == pytest.approx(float((x_NF - ours.strengths @ ours.factors).norm()))
    assert ours.strengths.min() >= 0
    assert ours.factors.min() >= 0
    assert ours.error < 0.9 * factorise(x_NF, 2, start=(start[0][:, :2], start[1][:2])).error  # it is not for free


def test_planted_factors_come_out_whatever_the_seed():
    w_NK = uniform(80, 3) * (uniform(80, 3, seed=1) < 0.3)
    h_KF = torch.zeros(3, 30, dtype=torch.float64)
    for factor in range(3):
        h_KF[factor, 10 * factor : 10 * factor + 10] = uniform(10, seed=factor + 5) + 0.5
    runs = [factorise(w_NK @ h_KF, 3, seed=seed, iterations=2000) for seed in range(3)]
    for run in runs:
        partners, correlations = match_factors(h_KF, run.factors)
        assert sorted(partners) == [0, 1, 2]
        assert correlations.min() > 0.99
    assert not torch.allclose(runs[0].strengths, runs[1].strengths, atol=1e-3)  # in another order, or of other size


def test_a_factor_that_fits_nothing_begins_anew():
    x_NF = uniform(30, 3) @ uniform(3, 12, seed=1)
    x_NF[:, 11] = 0
    w_NK, h_KF = uniform(30, 3, seed=2), uniform(3, 12, seed=3)
    h_KF[2] = torch.eye(12, dtype=torch.float64)[11]  # on where X is 0: its best strength is 0 for every row
    stuck = factorise(x_NF, 2, start=(w_NK[:, :2], h_KF[:2]), iterations=2000).error
    assert factorise(x_NF, 3, start=(w_NK, h_KF), iterations=2000, tolerance=1e-9).error < 0.2 * stuck


def test_counterparts_are_the_best_pairing():
    h_KF = torch.eye(4)
    partners, correlations = match_factors(h_KF, h_KF[[2, 0, 3, 1]])
    assert partners == [1, 3, 0, 2]
    assert torch.allclose(correlations, torch.ones(4))


def test_mutual_information_is_scikit_learns():
    first = (uniform(100) * 3).long()
    second = (first + (uniform(100, seed=1) * 2).long()) % 4
    expected = mutual_info_score(first.numpy(), second.numpy()) / np.log(2)
    assert mutual_information(first, second) == pytest.approx(expected)
    assert mutual_information(first, first) == pytest.approx(
        mutual_info_score(first.numpy(), first.numpy()) / np.log(2)
    )


def test_a_factor_that_follows_the_kind_is_told_from_those_that_do_not():
    kinds = ["number" if n % 4 == 0 else "word" for n in range(80)]
    follows = torch.tensor([1.0 if kind == "number" else 0.0 for kind in kinds]) + 0.01 * uniform(80)
    strengths_TK = torch.stack([follows, uniform(80, seed=1)], dim=1).float()
    real, chance = factor_information(strengths_TK, kinds)
    assert real.chance == pytest.approx(1 / 201)
    assert real.bits > 5 * real.shuffled
    assert chance.chance > 0.05
    assert chance.shuffled > 0  # few tokens give some bits by chance


def test_strengths_come_from_the_units_of_the_trace(tmp_path: Path):
    loaded, _ = opened("gpt2", tmp_path)
    recorded = trace(loaded, IDS, ["units"])
    factors = neuron_factors(recorded, 3)
    x_TF = torch.cat([recorded["units.0"], recorded["units.1"]], dim=1).clamp(min=0)
    rebuilt = factors.strengths @ factors.units
    explained = 1 - float((x_TF - rebuilt).square().sum() / x_TF.square().sum())
    assert factors.explained == pytest.approx(explained, abs=1e-4)
    assert torch.allclose(factors.strengths.amax(dim=0), torch.ones(3))
    sizes = factors.strengths.norm(dim=0) * factors.units.norm(dim=1)
    assert (sizes.diff() <= 0).all()
    layer, unit = factors.top_units(0, 1)[0]
    best = factors.units[0].argmax()
    assert factors.names[int(best)] == (layer, unit)
    assert torch.equal(x_TF[:, int(best)], recorded[f"units.{layer}"][:, unit].clamp(min=0))
    assert neuron_factors(recorded, 3, layers=[1]).units.shape == (3, recorded["units.1"].shape[1])


def test_agreement_of_seeds_shows_when_one_ends_elsewhere(tmp_path: Path):
    loaded, _ = opened("gpt2", tmp_path)
    planted = torch.zeros(12, 40)
    for token in range(12):
        planted[token, 10 * (token % 3) : 10 * (token % 3) + 10] = 1.0 + token % 3
    recorded = replace(trace(loaded, IDS, ["units.0"]), values={"units.0": planted})
    assert neuron_factors(recorded, 3, seeds=(0, 2, 4)).agreement.min() > 0.999
    # Seed 1 ends in another minimum, where two factors share a group of units.
    other = neuron_factors(recorded, 3, seeds=(1, 0))
    assert other.agreement.min() < 0.6
    assert other.explained > 0.999  # the better of the two is kept


def test_kinds_of_tokens():
    pieces = ["·list", "ing", "·42", "7", "·", ",", "()", "\n"]
    kinds = ["word", "inside", "number", "number", "blank", "sign", "sign", "blank"]
    assert [token_kind(piece) for piece in pieces] == kinds


def test_mistakes_are_explained(tmp_path: Path):
    loaded, _ = opened("mixtral", tmp_path)
    with pytest.raises(UserError, match="has no units"):
        neuron_factors(trace(loaded, IDS))
    with pytest.raises(UserError, match="negative entries"):
        factorise(-uniform(5, 5), 2)
    with pytest.raises(UserError, match="out of range"):
        factorise(uniform(5, 5), 6)
    with pytest.raises(UserError, match="do not fit"):
        factor_information(uniform(5, 2).float(), ["a"])
