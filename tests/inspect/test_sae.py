"""The TopK sparse autoencoder: planted features, exact parts, examples over a corpus, and spliced into a model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from trained_model import held_out_texts, trained, training_texts

from underhood.core.errors import UserError
from underhood.infer.load import LoadedModel
from underhood.inspect.corpus_values import corpus_values, ordinary, token_windows
from underhood.inspect.sae import SparseAutoencoder, load_autoencoder, spliced_in, spliced_loss
from underhood.inspect.sae_examples import feature_examples
from underhood.inspect.sae_training import AutoencoderTraining, train_autoencoder, train_on_site, unit_rows
from underhood.inspect.trace import trace

PLANTED = AutoencoderTraining(features=256, k=4, steps=1500, batch_size=256, lr=3e-3, dead_after=5_000)


def planted(count: int = 40_000) -> tuple[torch.Tensor, torch.Tensor]:
    """Sums of four of 256 directions in 64 dimensions, far from the origin, and the directions."""
    generator = torch.Generator().manual_seed(2024)  # another than the training's, which would begin at the answer
    directions_MD = unit_rows(torch.randn(256, 64, generator=generator))
    chosen = torch.rand(count, 256, generator=generator).topk(4, dim=1).indices
    sizes = 0.5 + torch.rand(count, 4, generator=generator)
    x_ND = torch.zeros(count, 256).scatter(1, chosen, sizes) @ directions_MD
    return x_ND + 5 * torch.randn(64, generator=generator), directions_MD


def recovery(autoencoder: SparseAutoencoder, x_ND: torch.Tensor, directions_MD: torch.Tensor) -> tuple[float, float]:
    """Mean over the planted directions of the largest cosine with a feature, and the share of dead features."""
    cosines = (directions_MD @ autoencoder.decoder.T).amax(dim=1)
    return float(cosines.mean()), autoencoder.dead(x_ND)


def test_planted_features_are_recovered():
    x_ND, directions_MD = planted()
    cosine, dead = recovery(train_autoencoder(x_ND, PLANTED), x_ND, directions_MD)
    assert cosine >= 0.9
    assert dead <= 0.05


@pytest.mark.slow
def test_without_the_auxiliary_loss_more_features_are_dead():
    x_ND, directions_MD = planted()
    _, dead = recovery(train_autoencoder(x_ND, replace(PLANTED, auxiliary=0.0)), x_ND, directions_MD)
    assert dead > 0.05


@pytest.mark.slow
def test_without_centring_hardly_a_feature_is_recovered():
    x_ND, directions_MD = planted()
    cosine, dead = recovery(train_autoencoder(x_ND, replace(PLANTED, centred=False)), x_ND, directions_MD)
    assert cosine < 0.6
    assert dead > 0.5


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return trained(tmp_path_factory.mktemp("trained"))


def test_attention_sinks_within_a_window_neither_train_nor_count(loaded: LoadedModel):
    x_ND, _ = planted(500)
    sinks_ND = torch.cat([x_ND, 1000 * torch.randn(3, 64, generator=torch.Generator().manual_seed(1))])
    assert ordinary(sinks_ND).tolist() == [True] * 500 + [False] * 3
    short = replace(PLANTED, steps=20)
    without, among = train_autoencoder(x_ND, short), train_autoencoder(sinks_ND, short)
    assert torch.equal(without.encoder, among.encoder)
    assert without.explained(x_ND) == among.explained(sinks_ND)
    # A scale that the sinks decide leaves nothing of the other tokens.
    spoilt = replace(without, mean=sinks_ND.mean(dim=0), scale=float(sinks_ND.var(dim=0).mean().sqrt()))
    assert spoilt.explained(x_ND) < without.explained(x_ND) - 0.1


@pytest.fixture(scope="module")
def autoencoder(loaded: LoadedModel) -> SparseAutoencoder:
    return train_on_site(loaded, training_texts(), "residual.2", AutoencoderTraining(features=96, k=8, steps=400))


def test_directions_have_length_1_and_inputs_are_standardised(loaded: LoadedModel, autoencoder: SparseAutoencoder):
    assert torch.allclose(autoencoder.decoder.norm(dim=1), torch.ones(96), atol=1e-5)
    values = corpus_values(loaded, token_windows(loaded, training_texts()), ["residual.2"])
    x_ND = values["residual.2"][values.positions > 0]
    assert torch.allclose(autoencoder.mean, x_ND.mean(dim=0), atol=1e-5)
    assert autoencoder.scale == pytest.approx(float((x_ND - x_ND.mean(dim=0)).square().mean().sqrt()))


def test_reconstruction_is_its_formula(autoencoder: SparseAutoencoder):
    x_ND = torch.randn(7, 32, generator=torch.Generator().manual_seed(1))
    z_ND = (x_ND - autoencoder.mean) / autoencoder.scale
    before = (z_ND - autoencoder.centre) @ autoencoder.encoder.T + autoencoder.threshold
    kept = torch.where(before >= before.sort(dim=1).values[:, [-8]], before, 0.0).clamp(min=0)
    expected = autoencoder.mean + autoencoder.scale * (kept @ autoencoder.decoder + autoencoder.centre)
    assert torch.allclose(autoencoder.reconstruct(x_ND), expected, atol=1e-5)
    explained = 1 - (x_ND - expected).square().sum() / (x_ND - x_ND.mean(dim=0)).square().sum()
    assert autoencoder.explained(x_ND) == pytest.approx(float(explained), abs=1e-5)


def test_it_explains_held_out_activations_and_can_replace_them(loaded: LoadedModel, autoencoder: SparseAutoencoder):
    values = corpus_values(loaded, token_windows(loaded, held_out_texts()), ["residual.2"])
    assert autoencoder.explained(values["residual.2"][values.positions > 0]) > 0.8
    losses = spliced_loss(loaded, autoencoder, held_out_texts())
    assert losses.plain < losses.spliced < losses.zeroed
    assert losses.recovered > 0.8
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in loaded.decoder.modules())


def test_spliced_in_the_model_goes_on_with_the_reconstruction(loaded: LoadedModel, autoencoder: SparseAutoencoder):
    [window] = token_windows(loaded, held_out_texts()[:1])
    plain = trace(loaded, window)["residual.2"]
    with spliced_in(loaded.decoder, autoencoder):
        recorded = trace(loaded, window)
    assert torch.equal(recorded["residual.1"], trace(loaded, window)["residual.1"])
    last = replace(autoencoder, site="feedforward.2")
    with spliced_in(loaded.decoder, last):
        changed = trace(loaded, window, ["residual", "middle"])
    original = trace(loaded, window, ["feedforward"])["feedforward.2"]
    expected = changed["middle.2"][1:] + last.reconstruct(original[1:])
    assert torch.allclose(changed["residual.3"][1:], expected, atol=1e-4)
    assert torch.allclose(changed["residual.3"][0], trace(loaded, window)["residual.3"][0])
    assert not torch.equal(recorded["residual.3"], trace(loaded, window)["residual.3"])
    assert torch.equal(plain, trace(loaded, window)["residual.2"])


def test_examples_are_the_strongest_tokens_of_different_windows(loaded: LoadedModel, autoencoder: SparseAutoencoder):
    texts = held_out_texts()
    examples = feature_examples(loaded, autoencoder, texts, count=3, context=4)
    windows = token_windows(loaded, texts)
    values = corpus_values(loaded, windows, ["residual.2"])
    strengths, chosen = autoencoder.features(values["residual.2"])
    strengths[values.positions == 0] = 0
    for of_feature in examples[:5]:
        hits = torch.where(chosen == of_feature.feature, strengths, 0.0).amax(dim=1)
        assert of_feature.examples[0].strength == pytest.approx(float(hits.max()))
        assert of_feature.density == pytest.approx(float((hits > 0).sum() / (values.positions > 0).sum()))
        by_window = sorted(
            (float(hits[values.windows == number].max()) for number in range(len(windows))), reverse=True
        )
        expected = [strength for strength in by_window[:3] if strength > 0]
        assert [example.strength for example in of_feature.examples] == pytest.approx(expected)
    token = int(torch.where(chosen == examples[0].feature, strengths, 0.0).amax(dim=1).argmax())
    raw = loaded.tokenizer.decode_bytes([int(values.ids[token])]).decode("utf-8", "replace")
    assert examples[0].examples[0].token.replace("·", " ") == raw


def test_it_is_opened_as_it_was_saved(autoencoder: SparseAutoencoder, tmp_path: Path):
    autoencoder.save(tmp_path / "features.safetensors")
    again = load_autoencoder(tmp_path / "features.safetensors")
    assert (again.site, again.k, again.scale) == (autoencoder.site, autoencoder.k, autoencoder.scale)
    x_ND = torch.randn(5, 32, generator=torch.Generator().manual_seed(2))
    assert torch.equal(again.reconstruct(x_ND), autoencoder.reconstruct(x_ND))
    (tmp_path / "other").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match="is not a sparse autoencoder"):
        load_autoencoder(tmp_path / "other")


def test_mistakes_are_explained(loaded: LoadedModel, autoencoder: SparseAutoencoder):
    with pytest.raises(UserError, match="no feature 96"):
        feature_examples(loaded, autoencoder, held_out_texts(), features=[96])
    with pytest.raises(UserError, match="k is out of range"):
        AutoencoderTraining(features=4, k=5)
    with pytest.raises(UserError, match="not a single site"):
        train_on_site(loaded, held_out_texts(), "residual", AutoencoderTraining(features=4, k=2))
