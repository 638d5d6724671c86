"""Patches of every kind of site beside plain hooks, and first-order estimates beside derivatives of exact patches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from traced import IDS, opened

from underhood.core.errors import UserError
from underhood.infer.load import LoadedModel
from underhood.inspect.attribution_patching import PATCHED_KINDS, approximate_patches, patch_both_ways, patch_sites
from underhood.inspect.sites import sites_of
from underhood.inspect.trace import trace

OTHER = [*IDS[:7], 77, *IDS[8:]]
TOKENS = {"answer": 40, "other": 7}


@pytest.fixture(scope="module", params=["gpt2", "llama2", "mistral", "mixtral", "gemma2"])
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return opened(request.param, tmp_path_factory.mktemp(request.param))[0]


def patched_score(loaded: LoadedModel, site: str, column: int, share: float = 1.0) -> float:
    """The difference after `IDS` with `share` of the way to the source's value at one column, by a plain hook."""
    kind, model = site.partition(".")[0], loaded.decoder
    hook = sites_of(model)[site]
    clean, corrupted = (trace(loaded, ids, [site])[site] for ids in (OTHER, IDS))
    moved = torch.zeros_like(corrupted)
    moved[column] = (share * (clean - corrupted))[column]
    added = moved.transpose(0, 1).flatten(1) if kind == "heads" else moved
    handle = (
        hook.module.register_forward_pre_hook(lambda _m, inputs: (inputs[0] + added, *inputs[1:]))
        if hook.side == "input"
        else hook.module.register_forward_hook(lambda _m, _i, output: output + added)
    )
    with torch.no_grad():
        logits_V = model(torch.tensor([IDS]))[0, -1]
    handle.remove()
    return float(logits_V[40] - logits_V[7])


@pytest.mark.parametrize("kind", PATCHED_KINDS)
def test_patches_are_what_passes_with_hooks_give(kind: Any, loaded: LoadedModel):
    patches = patch_sites(loaded, OTHER, IDS, kind, **TOKENS)
    assert patches.target == pytest.approx(patched_score(loaded, f"{kind}.0", 0, 0.0), abs=1e-5)
    columns = range(4) if kind == "heads" else (7, 8, 11)
    for row, layer in enumerate(patches.layers):
        for column in columns:
            expected = patched_score(loaded, f"{kind}.{layer}", column)
            assert float(patches.differences[row, column]) == pytest.approx(expected, abs=1e-5)
    assert float((patches.differences - patches.target).abs().max()) > 1e-4


@pytest.mark.parametrize("kind", PATCHED_KINDS)
def test_estimates_are_the_slope_of_exact_patches(kind: Any, loaded: LoadedModel):
    step = 1e-2 if "router.0" in sites_of(loaded.decoder) else 1e-4  # experts are weighted in single precision
    loaded.decoder.double()
    try:
        estimate = approximate_patches(loaded, OTHER, IDS, **TOKENS, kinds=[kind])[kind]
        for column in range(4) if kind == "heads" else (7, 11):
            ends = [patched_score(loaded, f"{kind}.1", column, sign * step) for sign in (-1, 1)]
            row = estimate.layers.index(1)
            slope = float(estimate.differences[row, column]) - estimate.target
            assert slope == pytest.approx((ends[1] - ends[0]) / (2 * step), rel=1e-3, abs=1e-4)
    finally:
        loaded.decoder.float()


@pytest.mark.parametrize("near", [True, False])
def test_estimates_are_the_exact_patches_where_values_are_near(near: bool, loaded: LoadedModel):
    embeddings_VD = loaded.decoder.embed.weight
    kept_D = embeddings_VD[77].clone()
    if near:  # token 77 is then nearly the one that it replaces
        embeddings_VD.data[77] = embeddings_VD[IDS[7]] + 0.003 * kept_D
    try:
        errors = estimation_errors(loaded)
    finally:
        embeddings_VD.data[77] = kept_D
    assert set(errors) == set(PATCHED_KINDS)
    assert (max(errors.values()) < 0.05) == near, errors


def estimation_errors(loaded: LoadedModel) -> dict[str, float]:
    """Length of the error of each kind's estimates, as a share of the exact effects'."""
    errors = {}
    estimates = approximate_patches(loaded, OTHER, IDS, **TOKENS)
    for kind, estimate in estimates.items():
        exact = patch_sites(loaded, OTHER, IDS, kind, **TOKENS)
        assert (estimate.layers, estimate.columns) == (exact.layers, exact.columns)
        assert (estimate.source, estimate.target) == pytest.approx((exact.source, exact.target), abs=1e-5)
        missed = estimate.differences - exact.differences
        errors[kind] = float(missed.norm() / (exact.differences - exact.target).norm())
    return errors


def test_both_directions_begin_and_end_where_they_must(loaded: LoadedModel):
    there, back = patch_both_ways(loaded, OTHER, IDS, "residual", **TOKENS)
    assert (there.source, there.target) == pytest.approx((back.target, back.source), abs=1e-5)
    for patches in (there, back):
        assert float(patches.restored[0, 7]) == pytest.approx(1.0, abs=1e-3)  # the only token that differs
        assert float(patches.restored[-1, -1]) == pytest.approx(1.0, abs=1e-3)
        assert float(patches.restored[0, 3]) == pytest.approx(0.0, abs=1e-3)
    assert not torch.allclose(there.restored, back.restored, atol=1e-4)


def test_a_prompt_patched_with_itself_is_itself(loaded: LoadedModel):
    for kind in PATCHED_KINDS:
        same = patch_sites(loaded, IDS, IDS, kind, **TOKENS)
        assert torch.allclose(same.differences, torch.full_like(same.differences, same.target), atol=1e-5)


def test_mistakes_are_explained_and_results_describe_themselves(tmp_path: Path):
    loaded = opened("llama2", tmp_path / "llama")[0]
    router: Any = "router"
    with pytest.raises(UserError, match="equally many"):
        approximate_patches(loaded, IDS[:-1], IDS, **TOKENS)
    with pytest.raises(UserError, match="no router to patch; expected residual, middle"):
        patch_sites(loaded, OTHER, IDS, router, **TOKENS)
    patches = patch_sites(loaded, OTHER, IDS, "mixer", **TOKENS)
    assert "patches of mixer, exact" in repr(patches)
    assert "underhood" in patches._repr_html_()
