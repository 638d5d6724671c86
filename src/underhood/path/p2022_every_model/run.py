"""Hang Li 2022: language models past and present, all of them on one corpus and in one unit."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from numpy.typing import NDArray

from underhood.core.figures import Series
from underhood.core.trial import Trial
from underhood.data.letters import plain_english, symbols
from underhood.evals.compression import compressors_bits_per_byte
from underhood.models.base import parameter_count
from underhood.models.decoder import qwen3_shaped
from underhood.models.ngram import NGram, NGramSpec
from underhood.train.cross_entropy import cross_entropy
from underhood.train.optim import MuonAdamWSpec, scale_lr

Ids = NDArray[np.int64]
COUNTING = {"equal chances": 0, "letters": 1, "pairs": 2, "triples": 3, "five letters": 5, "eight letters": 8}
CONTEXT, BATCH = 128, 16


def run(trial: Trial) -> None:
    train, held_out = plain_english(only_topics=trial.scale == "smoke")
    text, other = symbols(" ".join(train)), [symbols(passage) for passage in held_out]
    bits: dict[str, float] = {}
    for name, order in trial.each(tuple(COUNTING.items()), "model"):
        model = counted(text, min(order, 1) if trial.ablated("past") else order)
        bits[name] = -float(np.concatenate(model.log_probs(other)).mean() / np.log(2))
        if order == 3:
            every = [np.array(word) for word in itertools.product(range(27), repeat=3)]
            trial.measure("chain", sum(np.exp(logs.sum()) for logs in model.log_probs(every)))
    trial.measure("history", float(-np.diff(list(bits.values())).max()))
    packed = compressors_bits_per_byte(train, held_out)
    trial.measure("packers", min(packed.values()) / bits["eight letters"])
    if trial.wants("transformer"):
        bits["Transformer"], curve = transformer(trial, text, np.concatenate(other))
        trial.measure("transformer", bits["Transformer"] / bits["eight letters"])
        best = (bits["eight letters"], "counts of eight letters")
        steps, values = zip(*curve, strict=True)
        series = (Series("Transformer", steps, values),)
        trial.plot(
            title="A network overtakes the counts, or not yet",
            x="steps",
            y="bits per letter",
            series=series,
            levels=(best,),
        )
    if not trial.is_ablation:
        rows = sorted({**bits, **packed}.items(), key=lambda row: -row[1])
        names, values = zip(*rows, strict=True)
        places = tuple(map(float, range(len(rows))))
        series = (Series("held-out text", places, values),)
        trial.plot(
            title="One corpus, every model", x="model", y="bits per letter", kind="bars", names=names, series=series
        )
        table = tuple((name, round(value, 3), f"{value / np.log2(27):.0%}") for name, value in rows)
        trial.table(title="The same as a table", head=("model", "bits per letter", "of equal chances"), rows=table)


def counted(text: Ids, order: int) -> NGram:
    """Kneser-Ney counts of a text; order 0 has read nothing and gives all symbols equal chances."""
    model = NGramSpec(vocab_size=27, order=max(order, 1)).build()
    return model.fit([text]) if order else model


def transformer(trial: Trial, text: Ids, other: Ids, count: int = 600) -> tuple[float, list[tuple[float, float]]]:
    """Trains a small decoder; its bits per letter on the held-out text, and some along the way."""
    spec = qwen3_shaped(vocab_size=27, context_length=CONTEXT, d_model=128, layers=3, heads=4)
    model = spec.initialize(seed=0)
    rule = MuonAdamWSpec().build(model)
    rng = np.random.default_rng(0)
    data = torch.from_numpy(text)
    curve = []
    for step in range(count):
        starts = torch.from_numpy(rng.integers(0, len(text) - CONTEXT - 1, BATCH))[:, None]
        rows = data[starts + torch.arange(CONTEXT + 1)]
        cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten()).backward()
        scale_lr(rule, min(1.0, 3 * (1 - step / count)))  # the last third goes down to zero
        rule.step()
        model.zero_grad()
        if step % 100 == 0:
            curve.append((float(step), judged(model, other[: 40 * CONTEXT])))
        trial.progress(step / count, "Transformer")
    judgement = judged(model, other)
    trial.note(f"The Transformer has {parameter_count(model):,} weights and read {count * BATCH * CONTEXT:,} letters.")
    return judgement, [*curve, (float(count), judgement)]


@torch.inference_mode()
def judged(model: torch.nn.Module, other: Ids) -> float:
    """Bits per letter in windows that overlap by half, so that every letter but the first ones has some past."""
    half = CONTEXT // 2
    rows = torch.from_numpy(np.lib.stride_tricks.sliding_window_view(other, CONTEXT + 1)[::half].copy())
    total, letters = 0.0, 0
    for chunk in rows.split(64):
        logits = model(chunk[:, :-1])[:, half:]
        total += float(cross_entropy(logits.flatten(0, 1), chunk[:, 1 + half :].flatten())) * logits[..., 0].numel()
        letters += logits[..., 0].numel()
    return total / letters / np.log(2)
