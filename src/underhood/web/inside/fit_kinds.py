"""Kinds of training on the page: a tuned lens, sparse autoencoders and linear probes, each with its cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from underhood.core.errors import UserError
from underhood.infer.load import LoadedModel
from underhood.inspect.corpus_values import SKIPPED, corpus_values, token_windows
from underhood.inspect.default_training import (
    AUTOENCODER_BATCH,
    AUTOENCODER_CHARACTERS,
    AUTOENCODER_STEPS,
    LENS_BATCH,
    LENS_CHARACTERS,
    LENS_STEPS,
    PROBE_CHARACTERS,
    autoencoder_training,
    default_tuned_lens,
    probed_layers,
)
from underhood.inspect.probe_tasks import FREQUENT, TASKS, ProbeTask, probe_task
from underhood.inspect.probes import ProbeResult, probe_layers
from underhood.inspect.sae import SparseAutoencoder, SplicedLoss, load_autoencoder, spliced_loss
from underhood.inspect.sae_examples import CorpusFeatures, features_of
from underhood.inspect.sae_training import train_autoencoder
from underhood.inspect.tuned_lens import TunedLens, lens_divergences, load_tuned_lens

CHARACTERS_PER_TOKEN = 3.5
HELD_OUT_CHARACTERS = 3_000
"""Text that is not trained on, to measure what was trained."""

PROBE_PASSES = 60
"""Passes over its tokens that the training of a probe takes, about."""

SOFTMAX = 128
"""Multiplications that the logarithm of a softmax takes the time of, for each score."""

Progress = Callable[[int, int], None]
"""Told how many steps are done, and of how many."""


@dataclass(frozen=True)
class TrainedLens:
    """A tuned lens with the mean divergence of both lenses from the model on other text, in nats, (L + 1,)."""

    lens: TunedLens
    plain: Float[Tensor, "L"]
    tuned: Float[Tensor, "L"]


@dataclass(frozen=True)
class TrainedFeatures:
    """An autoencoder, its features on the text, and how well it rebuilds other text."""

    autoencoder: SparseAutoencoder
    corpus: CorpusFeatures
    explained: float
    losses: SplicedLoss


@dataclass(frozen=True)
class TrainedProbes:
    """Probes of several residual streams for a task.

    Attributes:
        layers: before which they read, from 0; the number of layers is the end.
        labelled: tokens with a label.
    """

    task: ProbeTask
    layers: tuple[int, ...]
    results: tuple[ProbeResult, ...]
    labelled: int


@dataclass(frozen=True)
class FitKind:
    """Something that the page trains.

    Attributes:
        title: in words.
        once: what it is trained once for, in words.
        variants: which ones there are for a model: layers, tasks, or a single one without a name.
        characters: of text that it is trained on.
        flops: that the training takes.
        overhead: seconds that go by apart from that.
        make: trains a variant on texts, or reads it from a file; writes it there if the file is missing.
    """

    title: str
    once: str
    variants: Callable[[LoadedModel], Sequence[str]]
    characters: int
    flops: Callable[[LoadedModel], float]
    overhead: Callable[[LoadedModel], float]
    make: Callable[[LoadedModel, Sequence[str], str, Progress, Path | None], object]


def make_lens(
    loaded: LoadedModel, texts: Sequence[str], _variant: str, progress: Progress, file: Path | None
) -> TrainedLens:
    """A tuned lens as `inspect.default_training` trains it."""
    training, held_out = split_texts(texts)
    if file is not None and file.exists():
        lens = load_tuned_lens(file, loaded)
    else:
        lens = default_tuned_lens(loaded, training, lambda step, _: progress(step + 1, LENS_STEPS))
        if file is not None:
            lens.save(file)
    return TrainedLens(lens, lens_divergences(loaded, held_out), lens_divergences(loaded, held_out, lens))


def make_features(
    loaded: LoadedModel, texts: Sequence[str], layer: str, progress: Progress, file: Path | None
) -> TrainedFeatures:
    """A sparse autoencoder of the residual stream before a layer, as `inspect.default_training` has it."""
    site, width = f"residual.{layer}", loaded.decoder.spec.d_model
    training, held_out = split_texts(texts)
    windows = token_windows(loaded, training)
    values = corpus_values(loaded, windows, [site])
    if file is not None and file.exists():
        autoencoder = load_autoencoder(file)
        if autoencoder.decoder.shape[1] != width or autoencoder.site != site:
            raise UserError(f"{file} was made for another model or layer", expected=f"{site} of width {width}")
    else:
        autoencoder = train_autoencoder(
            values[site][values.positions >= SKIPPED],
            autoencoder_training(width),
            site=site,
            progress=lambda step, _: progress(step + 1, AUTOENCODER_STEPS),
        )
        if file is not None:
            autoencoder.save(file)
    corpus = features_of(autoencoder, windows, values)
    others = corpus_values(loaded, token_windows(loaded, held_out), [site])
    return TrainedFeatures(
        autoencoder,
        replace(corpus, values=replace(values, values={})),  # the activations have served
        autoencoder.explained(others[site][others.positions >= SKIPPED]),
        spliced_loss(loaded, autoencoder, held_out),
    )


def make_probes(
    loaded: LoadedModel, texts: Sequence[str], task_name: str, progress: Progress, _file: Path | None
) -> TrainedProbes:
    """Probes of the residual streams for a task, each with its control task and an untrained model."""
    windows = token_windows(loaded, texts)
    task = probe_task(task_name, loaded, windows)
    labels = task.labels(windows)
    layers = probed_layers(loaded)
    results = probe_layers(loaded, windows, labels, sites=[f"residual.{layer}" for layer in layers], progress=progress)
    return TrainedProbes(task, layers, tuple(results), sum(label is not None for each in labels for label in each))


def split_texts(texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """Texts to train on, and a few that are kept back; a single text is cut in two."""
    if len(texts) == 1:
        cut = max(len(texts[0]) * 9 // 10, len(texts[0]) - HELD_OUT_CHARACTERS)
        return [texts[0][:cut]], [texts[0][cut:]]
    training, held_out, room = list(texts), [], HELD_OUT_CHARACTERS
    while room > 0 and len(training) > max(1, len(texts) * 9 // 10):
        held_out.append(training.pop()[:room])
        room -= len(held_out[-1])
    return training, held_out or [training.pop()]


def _pass_flops(loaded: LoadedModel, characters: float) -> float:
    return characters / CHARACTERS_PER_TOKEN * loaded.decoder.spec.flops_per_token


def _lens_flops(loaded: LoadedModel) -> float:
    spec = loaded.decoder.spec
    read_out = 2.0 * spec.vocab_size * (spec.d_model + SOFTMAX)
    steps = LENS_STEPS * LENS_BATCH * (read_out + spec.layers * (2 * read_out + 6 * spec.d_model**2))
    start = LENS_CHARACTERS / CHARACTERS_PER_TOKEN * 4 * spec.layers * spec.d_model**2
    measured = HELD_OUT_CHARACTERS / CHARACTERS_PER_TOKEN * 2 * spec.layers * read_out
    return _pass_flops(loaded, LENS_CHARACTERS) + start + steps + measured


def _features_flops(loaded: LoadedModel) -> float:
    width = loaded.decoder.spec.d_model
    step = 16.0 * AUTOENCODER_BATCH * width * autoencoder_training(width).features
    return _pass_flops(loaded, AUTOENCODER_CHARACTERS + 3 * HELD_OUT_CHARACTERS) + AUTOENCODER_STEPS * step


def _probes_flops(loaded: LoadedModel) -> float:
    tokens = PROBE_CHARACTERS / CHARACTERS_PER_TOKEN
    probe = PROBE_PASSES * 6.0 * tokens * loaded.decoder.spec.d_model * FREQUENT
    return _pass_flops(loaded, 2 * PROBE_CHARACTERS) + 3 * len(probed_layers(loaded)) * probe


def _layers(loaded: LoadedModel) -> list[str]:
    return [str(layer) for layer in range(len(loaded.decoder.blocks))]


KINDS: Mapping[str, FitKind] = {
    "tuned": FitKind(
        "tuned lens",
        "this model",
        lambda _: ("",),
        LENS_CHARACTERS,
        _lens_flops,
        lambda loaded: 0.002 * LENS_STEPS * len(loaded.decoder.blocks),
        make_lens,
    ),
    "features": FitKind(
        "sparse autoencoder",
        "this layer of this model",
        _layers,
        AUTOENCODER_CHARACTERS,
        _features_flops,
        lambda _: 6.0,
        make_features,
    ),
    "probes": FitKind(
        "linear probes",
        "this question and model",
        lambda _: tuple(TASKS),
        PROBE_CHARACTERS,
        _probes_flops,
        lambda loaded: 0.3 * len(probed_layers(loaded)),
        make_probes,
    ),
}
"""By the name in requests."""
