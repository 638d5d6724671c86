"""Radford et al. 2018: accuracy by the number of labels, for a model that has read plain text and one that has not."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor

from underhood.align.classify import (
    ClassificationLoss,
    Classifier,
    ClassifierSpec,
    LabelledBatches,
    class_probabilities,
)
from underhood.core.figures import Series
from underhood.core.runlog import RunLog
from underhood.core.trial import Trial
from underhood.models.decoder import Decoder
from underhood.models.gpt2 import gpt2_shaped
from underhood.models.presets import count_parameters
from underhood.path.lib.short_training import train_by_step
from underhood.train.cross_entropy import cross_entropy
from underhood.train.loop import FitSpec, fit
from underhood.train.optim import AdamWSpec
from underhood.train.schedule import ScheduleSpec

MOOD_WORDS, PLAIN_WORDS, LENGTH, MOODY = 100, 60, 12, 0.5
START, EXTRACT, FIRST = 0, 1, 2
VOCABULARY = FIRST + 2 * MOOD_WORDS + PLAIN_WORDS
SENTENCES, TESTS, BATCH = 10_000, 500, 16
SMALL = gpt2_shaped(vocab_size=VOCABULARY, context_length=LENGTH + 2, d_model=32, layers=1, heads=4)


def run(trial: Trial) -> None:
    gpt1 = gpt2_shaped(vocab_size=40_478, context_length=512, d_model=768, layers=12, heads=12)
    # GPT-1 normalises after each sublayer, which costs as much, and has no norm after the last block.
    trial.measure("parameters", count_parameters(gpt1)[0] - 2 * 768)
    counts = trial.by_scale(smoke=(20,), report=(20, 60, 200, 600, 2000))
    curves: dict[str, list[list[float]]] = {"pre-trained": [], "fresh": []}
    for seed in trial.each_seed():
        text_NT, _ = sentences(SENTENCES, seed)
        if trial.ablated("company"):
            order = torch.randperm(text_NT.numel(), generator=torch.Generator().manual_seed(seed))
            text_NT = text_NT.flatten()[order].view_as(text_NT)
        labelled = sentences(max(counts), 1000 + seed)
        test = sentences(TESTS, 2000 + seed)
        starts = {"pre-trained": pretrained(trial, text_NT, seed), "fresh": SMALL.initialize(seed=seed)}
        right = {
            name: [accuracy(tuned(model, labelled, n, seed), test) for n in counts] for name, model in starts.items()
        }
        for name, values in right.items():
            curves[name].append(values)
        trial.measure("few", right["pre-trained"][0] - right["fresh"][0])
        if trial.scale == "report" and not trial.is_ablation:
            trial.measure("tenfold", right["pre-trained"][0] - right["fresh"][counts.index(200)])
            alone = tuned(starts["pre-trained"], labelled, 200, seed)
            both = tuned(starts["pre-trained"], labelled, 200, seed, lm_weight=0.5)
            trial.measure("kept", word_loss(alone.model, test[0]) - word_loss(both.model, test[0]))
            trial.measure("many", right["pre-trained"][-1] - right["fresh"][-1])
            trial.measure("auxiliary", accuracy(both, test) - accuracy(alone, test))
    if trial.scale == "report":
        tables = {name: np.array(values) for name, values in curves.items()}
        series = [Series(name, counts, t.mean(axis=0), t.min(axis=0), t.max(axis=0)) for name, t in tables.items()]
        trial.plot(title="A pre-trained model needs few labels", x="labels", y="share right", series=series, log_x=True)


def sentences(count: int, seed: int) -> tuple[Tensor, list[int]]:
    """Sentences of twelve words, and the mood (0 or 1) of each: half of its words are of that mood."""
    draw = np.random.default_rng(seed)
    mood_N1 = draw.integers(2, size=(count, 1))
    moody = FIRST + mood_N1 * MOOD_WORDS + draw.integers(MOOD_WORDS, size=(count, LENGTH))
    plain = FIRST + 2 * MOOD_WORDS + draw.integers(PLAIN_WORDS, size=(count, LENGTH))
    words_NT = np.where(draw.random((count, LENGTH)) < MOODY, moody, plain)
    return torch.from_numpy(words_NT), mood_N1[:, 0].tolist()


def pretrained(trial: Trial, text_NT: Tensor, seed: int) -> Decoder:
    """A model that has predicted the words of the text, sentence by sentence."""

    def loss(step: int) -> Tensor:
        chosen = torch.randint(len(text_NT), (32,), generator=torch.Generator().manual_seed(seed * 10**6 + step))
        return next_word_loss(model, text_NT[chosen])

    model = SMALL.initialize(seed=seed)
    steps = trial.by_scale(smoke=100, report=400)
    return train_by_step(model, loss, steps, fall=2.0, tell=trial.progress)


def next_word_loss(model: Decoder, words_NT: Tensor) -> Tensor:
    """Mean loss of all words of sentences that begin with the start token."""
    tokens_NT = torch.cat([torch.full((len(words_NT), 1), START), words_NT], dim=1)
    return cross_entropy(model(tokens_NT[:, :-1]).flatten(0, 1), tokens_NT[:, 1:].flatten())


@torch.no_grad()
def word_loss(model: Decoder, words_NT: Tensor) -> float:
    return float(next_word_loss(model, words_NT))


def task_input(words_NT: Tensor) -> list[list[int]]:
    """A text as the task is written: start token, words, and the token at which the answer is read off."""
    return [[START, *words, EXTRACT] for words in words_NT.tolist()]


def tuned(
    start: Decoder, labelled: tuple[Tensor, list[int]], count: int, seed: int, *, lm_weight: float = 0.0
) -> Classifier:
    """A copy of the model, fine-tuned on the first `count` labels."""
    spec = ClassifierSpec(labels=("sad", "glad"), pool="last")
    classifier = spec.build(copy.deepcopy(start))
    rows, classes = task_input(labelled[0][:count]), labelled[1][:count]
    batches = LabelledBatches(rows, classes, batch_size=BATCH, seed=seed)
    optimizer = AdamWSpec(lr=2e-3, rates=(("head.", 1e-2),), weight_decay=0.01).build(classifier)
    steps = max(40, 2 * count // BATCH)
    recipe = FitSpec(steps=steps, schedule=ScheduleSpec(warmup=0.1, decay=0.9))
    loss = ClassificationLoss(lm_weight=lm_weight)
    fit(classifier, batches, loss, optimizer, recipe, stage="classify", log=RunLog(None))
    return classifier.eval()


def accuracy(classifier: Classifier, test: tuple[Tensor, list[int]]) -> float:
    answers_N = class_probabilities(classifier, task_input(test[0]), batch=250).argmax(dim=-1)
    return float((answers_N == torch.tensor(test[1])).float().mean())
