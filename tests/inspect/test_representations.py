"""Ranks of words, paths and similarity of representations, beside scikit-learn, closed forms and the logit lens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.cross_decomposition import CCA
from sklearn.decomposition import PCA
from traced import IDS, opened

from underhood.core.errors import UserError
from underhood.infer.load import LoadedModel
from underhood.inspect.lens import logit_lens
from underhood.inspect.similarity import (
    canonical_correlations,
    layer_similarity,
    linear_cka,
    stream_values,
    svcca,
)
from underhood.inspect.trace import trace
from underhood.inspect.trajectory import principal_components, token_paths
from underhood.inspect.word_ranks import word_ranks


@pytest.fixture(scope="module", params=["gpt2", "gemma2"])
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return opened(request.param, tmp_path_factory.mktemp(request.param))[0]


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_ranks_and_probabilities_are_those_of_the_lens(loaded: LoadedModel):
    recorded = trace(loaded, IDS)
    lens = logit_lens(loaded, recorded, positions=[-2], k=loaded.spec.vocab_size)
    followed = word_ranks(loaded, recorded, [40, 7], position=-2)
    for layer, order in enumerate(lens.ids[:, 0].tolist()):
        for word, id in enumerate(followed.ids):
            assert order.index(id) + 1 == followed.ranks[layer, word]
            assert float(lens.probabilities[layer, 0, order.index(id)]) == pytest.approx(
                float(followed.probabilities[layer, word]), abs=1e-6
            )
    best = int(lens.ids[-1, 0, 0])
    start = word_ranks(loaded, recorded, [best], position=-2).first_best(0)
    leaders = [best == id for id in lens.ids[:, 0, 0].tolist()]
    assert start is not None
    assert all(leaders[start:])
    assert start == 0 or not leaders[start - 1]
    assert word_ranks(loaded, recorded, [int(lens.ids[-1, 0, 1])], position=-2).first_best(0) is None


def test_words_of_several_tokens_are_refused(loaded: LoadedModel):
    with pytest.raises(UserError, match="is 2 tokens"):
        word_ranks(loaded, trace(loaded, IDS), ["ĀĂ"])
    with pytest.raises(UserError, match="no token 12"):
        word_ranks(loaded, trace(loaded, IDS), [1], position=12)


def test_components_are_scikit_learns():
    x_ND = random(40, 7) * torch.arange(1, 8)
    mean_D, components_kD, explained_k = principal_components(x_ND, 3)
    peer = PCA(3).fit(x_ND.numpy())
    assert np.allclose(mean_D, peer.mean_)
    assert np.allclose(explained_k, peer.explained_variance_ratio_)
    assert np.allclose((components_kD.numpy() * peer.components_).sum(axis=1) ** 2, 1)


def test_paths_are_projections_of_the_streams(loaded: LoadedModel):
    recorded = trace(loaded, IDS)
    paths = token_paths(recorded, positions=[3, -1], dimensions=12, normalise=False)
    streams_TLD = recorded.layers("residual").transpose(0, 1)
    # Distances survive a projection on all components there are; here 12 of them hold most of the variance.
    full = token_paths(recorded, positions=[3, -1], dimensions=32, normalise=False)
    expected = (streams_TLD[[3, 11], 1:] - streams_TLD[[3, 11], :-1]).norm(dim=-1)
    assert torch.allclose(full.step_lengths(), expected, rtol=1e-3)
    assert torch.allclose(full.points[..., :12], paths.points, atol=1e-3)
    assert (paths.step_lengths() <= expected + 1e-4).all()
    assert paths.positions == (3, 11)


def test_two_prompts_share_a_plane(loaded: LoadedModel):
    first, second = trace(loaded, IDS), trace(loaded, [*IDS[:3], 77, *IDS[4:]])
    paths = token_paths(first, second, positions=[2, 3])
    assert paths.traces == (0, 0, 1, 1)
    assert torch.allclose(paths.points[0], paths.points[2], atol=1e-4)  # before the first difference
    assert not torch.allclose(paths.points[1], paths.points[3], atol=1e-2)
    with pytest.raises(UserError, match="no token 40"):
        token_paths(first, positions=[40])


def test_canonical_correlations_are_scikit_learns():
    x_ND = random(200, 5)
    y_NE = torch.cat([x_ND[:, :2] + 0.5 * random(200, 2, seed=1), random(200, 2, seed=2)], dim=1)
    left, right = CCA(n_components=4, scale=False, max_iter=5000, tol=1e-12).fit_transform(x_ND.numpy(), y_NE.numpy())
    expected = [np.corrcoef(left[:, n], right[:, n])[0, 1] for n in range(4)]
    assert np.allclose(canonical_correlations(x_ND, y_NE), expected, atol=1e-5)
    mixed = y_NE @ random(4, 4, seed=3)
    assert torch.allclose(canonical_correlations(x_ND, mixed), canonical_correlations(x_ND, y_NE))


def test_cka_is_its_closed_form_and_ignores_rotation_and_scale():
    x_ND, y_NE = random(50, 6), random(50, 4, seed=1) + random(50, 6)[:, :4]
    x, y = (each - each.mean(dim=0) for each in (x_ND, y_NE))
    expected = float((y.T @ x).norm() ** 2 / ((x.T @ x).norm() * (y.T @ y).norm()))
    assert linear_cka(x_ND, y_NE) == pytest.approx(expected)
    turned = 3 * x_ND @ torch.linalg.qr(random(6, 6, seed=2)).Q + 5
    for measure in (linear_cka, svcca, lambda a, b: linear_cka(a, b, unbiased=True)):
        assert measure(x_ND, turned) == pytest.approx(1)
        assert measure(turned, y_NE) == pytest.approx(measure(x_ND, y_NE))
    # The ablation: stretched in one direction it is another cloud for CKA, not for canonical correlations.
    stretched = x_ND * torch.tensor([30.0, 1, 1, 1, 1, 1])
    assert linear_cka(x_ND, stretched) < 0.6
    assert float(canonical_correlations(x_ND, stretched).min()) == pytest.approx(1)


def test_unbiased_cka_of_random_clouds_is_zero_where_the_plain_one_is_not():
    pairs = [(random(20, 200, seed=n), random(20, 200, seed=n + 100)) for n in range(10)]
    assert np.mean([linear_cka(x, y) for x, y in pairs]) > 0.7
    assert abs(np.mean([linear_cka(x, y, unbiased=True) for x, y in pairs])) < 0.05


def test_svcca_of_few_tokens_is_refused():
    with pytest.raises(UserError, match="20 tokens are too few"):
        svcca(random(20, 30), random(20, 30, seed=1))


def test_layers_are_compared_with_each_other_and_with_another_model(loaded: LoadedModel, tmp_path: Path):
    text = "".join(chr(0x100 + (7 * n + n * n) % 90 + 3) for n in range(300))
    streams_LND = stream_values(loaded, [text], tokens=250)
    assert streams_LND.shape[1] == 250
    for measure in ("cka", "unbiased_cka", "svcca"):
        alone = layer_similarity(streams_LND, measure=measure)
        assert torch.allclose(alone.values.diagonal(), torch.ones(len(streams_LND)).to(alone.values))
        assert torch.allclose(alone.values, alone.values.T)
        assert alone.values.min() < 0.99
    between = layer_similarity(streams_LND, measure="svcca").values[0, 2]
    assert between == pytest.approx(svcca(streams_LND[0], streams_LND[2]))
    other, _ = opened("llama2", tmp_path)
    between = layer_similarity(streams_LND, stream_values(other, [text], tokens=250))
    assert between.values.shape == (len(streams_LND), 3)
    assert between.values[0, 1] == pytest.approx(linear_cka(streams_LND[0], stream_values(other, [text])[1][:250]))
    recorded = trace(loaded, IDS)
    assert layer_similarity(recorded, recorded).values[1, 1] == pytest.approx(1)
    with pytest.raises(UserError, match="different tokens"):
        layer_similarity(recorded, trace(loaded, IDS[::-1]))
