"""Default training of the tuned lens and the sparse autoencoder, for the terminal and the page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from underhood.infer.load import LoadedModel
from underhood.inspect.sae import SparseAutoencoder
from underhood.inspect.sae_training import AutoencoderTraining, train_on_site
from underhood.inspect.tuned_lens import TunedLens, train_tuned_lens

LENS_CHARACTERS, LENS_STEPS, LENS_BATCH = 40_000, 40, 64
"""For some minutes with SmolLM2: each step works out the scores of the whole vocabulary for every layer."""

AUTOENCODER_CHARACTERS, AUTOENCODER_STEPS, AUTOENCODER_BATCH = 120_000, 1500, 256
EXAMPLE_CHARACTERS = 16_000
"""Text in which the strongest examples of features are looked up."""

PROBE_CHARACTERS = 30_000
PROBED_LAYERS = 13
"""Most residual streams that are probed, spread over the depth."""

FEATURES_PER_DIMENSION, FEATURES_MAX = 4, 2048

Progress = Callable[[int, float], None]


def default_tuned_lens(loaded: LoadedModel, texts: Sequence[str], progress: Progress | None = None) -> TunedLens:
    """A translator for every layer, trained on texts of about `LENS_CHARACTERS`."""
    return train_tuned_lens(loaded, texts, steps=LENS_STEPS, batch_size=LENS_BATCH, progress=progress)


def default_autoencoder(
    loaded: LoadedModel, texts: Sequence[str], layer: int, progress: Progress | None = None
) -> SparseAutoencoder:
    """A sparse autoencoder of the residual stream before a layer, trained on about `AUTOENCODER_CHARACTERS` of text."""
    training = autoencoder_training(loaded.decoder.spec.d_model)
    return train_on_site(loaded, texts, f"residual.{layer}", training, progress=progress)


def autoencoder_training(width: int) -> AutoencoderTraining:
    """As many features as suit a residual stream of some width."""
    features = min(FEATURES_PER_DIMENSION * width, max(FEATURES_MAX, width))
    used = max(4, min(32, width // 24))
    return AutoencoderTraining(features=features, k=used, steps=AUTOENCODER_STEPS, batch_size=AUTOENCODER_BATCH)


def probed_layers(loaded: LoadedModel) -> tuple[int, ...]:
    """Residual streams from the first to the last, all of them or evenly spread."""
    layers = len(loaded.decoder.blocks)
    count = min(PROBED_LAYERS, layers + 1)
    return tuple(sorted({round(layers * number / (count - 1)) for number in range(count)}))


def clipped(documents: Iterable[str], characters: int) -> list[str]:
    """About so many characters of some documents; the last one is cut."""
    texts: list[str] = []
    for document in documents:
        texts.append(document[:characters])
        characters -= len(texts[-1])
        if characters <= 0:
            break
    return texts
