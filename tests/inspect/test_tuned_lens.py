"""The tuned lens on a small trained model: closer to its predictions than the logit lens, on text it has not seen."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from sklearn.linear_model import Ridge
from traced import as_loaded, opened
from trained_model import TRAINED_LAYERS, held_out_texts, trained, training_texts

from underhood.core.errors import UserError
from underhood.infer.load import LoadedModel
from underhood.inspect.lens import logit_lens
from underhood.inspect.trace import trace
from underhood.inspect.tuned_lens import (
    RIDGE,
    TunedLens,
    least_squares,
    lens_divergences,
    load_tuned_lens,
    train_tuned_lens,
    tuned_lens,
)
from underhood.inspect.word_ranks import word_ranks


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return trained(tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="module")
def lens(loaded: LoadedModel) -> TunedLens:
    return train_tuned_lens(loaded, training_texts(), steps=60, batch_size=128)


def test_it_is_closer_to_the_model_than_the_logit_lens_at_every_layer(loaded: LoadedModel, lens: TunedLens):
    plain = lens_divergences(loaded, held_out_texts())
    tuned = lens_divergences(loaded, held_out_texts(), lens)
    assert (tuned[:-1] < 0.9 * plain[:-1]).all(), (tuned, plain)
    assert tuned[-1] == plain[-1]
    assert abs(float(tuned[-1])) < 1e-5


def test_the_start_is_scikit_learns_ridge_regression_with_weights():
    generator = torch.Generator().manual_seed(0)
    z_ND, final_ND = (torch.randn(200, 7, generator=generator, dtype=torch.float64) for _ in range(2))
    change_ND = z_ND @ torch.randn(7, 7, generator=generator, dtype=torch.float64) + 3 + 0.1 * final_ND
    matrix_DD, bias_D = least_squares(z_ND, change_ND, final_ND)
    weights = (1 / final_ND.square().mean(dim=1)).numpy()
    peer = Ridge(alpha=RIDGE).fit(z_ND.numpy(), change_ND.numpy(), sample_weight=weights / weights.sum())
    assert matrix_DD.numpy() == pytest.approx(peer.coef_, abs=1e-8)
    assert bias_D.numpy() == pytest.approx(peer.intercept_, abs=1e-8)


def test_training_improves_on_the_least_squares_start(loaded: LoadedModel, lens: TunedLens):
    untrained = train_tuned_lens(loaded, training_texts(), steps=0)
    plain, start, after = (
        lens_divergences(loaded, held_out_texts(), translators)[:-1] for translators in (None, untrained, lens)
    )
    assert start.mean() < plain.mean(), (start, plain)
    assert (after < start).all(), (after, start)


def test_divergence_is_torch_s_own(loaded: LoadedModel, lens: TunedLens):
    [text] = held_out_texts()[:1]
    recorded = trace(loaded, loaded.prompt_ids(text))
    model = loaded.decoder
    with torch.no_grad():
        final_TV = model.unembed(model.norm(recorded[f"residual.{TRAINED_LAYERS}"])).log_softmax(-1)
        moved_TD = recorded["residual.1"] @ (torch.eye(model.spec.d_model) + lens.matrices[1]).T + lens.biases[1]
        lens_TV = model.unembed(model.norm(moved_TD)).log_softmax(-1)
    expected = torch.nn.functional.kl_div(lens_TV, final_TV, log_target=True, reduction="none").sum(dim=-1)[1:].mean()
    assert lens_divergences(loaded, [text], lens)[1] == pytest.approx(float(expected), abs=1e-5)


def test_untrained_it_is_the_logit_lens_and_at_the_end_the_model(loaded: LoadedModel, lens: TunedLens):
    recorded = trace(loaded, held_out_texts()[0])
    plain = logit_lens(loaded, recorded)
    identity = tuned_lens(loaded, recorded, TunedLens.identity(loaded))
    assert torch.equal(identity.probabilities, plain.probabilities)
    tuned = tuned_lens(loaded, recorded, lens)
    assert torch.equal(tuned.probabilities[-1], plain.probabilities[-1])
    assert not torch.allclose(tuned.probabilities[1], plain.probabilities[1])
    assert tuned.trace is recorded
    followed = word_ranks(loaded, recorded, [int(tuned.ids[1, -1, 0])], translators=lens)
    assert followed.ranks[1, 0] == 1


def test_it_is_opened_as_it_was_saved(loaded: LoadedModel, lens: TunedLens, tmp_path: Path):
    lens.save(tmp_path / "lens.safetensors")
    again = load_tuned_lens(tmp_path / "lens.safetensors", loaded)
    assert set(again.matrices) == set(range(TRAINED_LAYERS))
    assert all(torch.equal(again.matrices[layer], matrix) for layer, matrix in lens.matrices.items())
    assert all(torch.equal(again.biases[layer], bias) for layer, bias in lens.biases.items())
    (tmp_path / "other").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match="is not a tuned lens"):
        load_tuned_lens(tmp_path / "other", loaded)
    with pytest.raises(UserError, match="for another model"):
        load_tuned_lens(tmp_path / "lens.safetensors", opened("gpt2", tmp_path / "gpt2")[0])


def test_unknown_layers_are_refused(loaded: LoadedModel):
    with pytest.raises(UserError, match="no layer 9"):
        train_tuned_lens(loaded, training_texts(), layers=[9])


def test_ids_without_a_token_do_not_count(loaded: LoadedModel, tmp_path: Path):
    padded = as_loaded(loaded.decoder, tmp_path)
    padded.decoder.token_count = padded.spec.vocab_size - 3
    try:
        assert lens_divergences(padded, [chr(0x100 + 5) * 9]).isfinite().all()
    finally:
        padded.decoder.token_count = None
