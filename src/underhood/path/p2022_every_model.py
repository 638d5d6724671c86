"""Hang Li 2022: language models past and present, all of them on one corpus and in one unit."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from numpy.typing import NDArray

from underhood.core.figures import Grid, Plot, Series
from underhood.core.milestone import (
    Ablation,
    Claim,
    Exactly,
    Milestone,
    Minutes,
    Paper,
    Seeds,
    at_least,
    at_most,
)
from underhood.core.trial import Trial
from underhood.data.letters import plain_english, symbols
from underhood.evals.compression import compressors_bits_per_byte
from underhood.models.decoder import parameter_count, qwen3_shaped
from underhood.models.ngram import NGram, NGramSpec
from underhood.train.cross_entropy import cross_entropy
from underhood.train.optim import MuonAdamWSpec

Ids = NDArray[np.int64]
COUNTING = {"equal chances": 0, "letters": 1, "pairs": 2, "triples": 3, "five letters": 5, "eight letters": 8}
CONTEXT, BATCH = 128, 16

MILESTONE = Milestone(
    stem="p2022_every_model",
    topics=("hangli-2022",),
    title="Language models past and present: one corpus, every model",
    year=2022,
    question="How do all language models since 1906 compare, measured with one yardstick?",
    asks=(
        "what is language modelling?",
        "how far have language models come?",
        "how does one compare language models?",
        "is a language model a compressor?",
    ),
    papers=(
        Paper(
            authors="H. Li",
            year=2022,
            title="Language models: past, present, and future",
            link="https://doi.org/10.1145/3490443",
        ),
    ),
    idea=r"""
Markov, Shannon, n-grams, recurrent networks, Transformers: for Hang Li they are one story, for they all do one thing.
They give a probability to a text, and by the chain rule that is a matter of the next symbol only:

$$P(x_1, \dots, x_T) = \prod_t P(x_t \mid x_1, \dots, x_{t-1})$$

What differs is how much of the past is looked at and how. A Markov chain looks at a symbol, an n-gram at a few and only
at *equal* pasts, a network at many and at *similar* ones. So they can all be measured with one yardstick, the bits that
the model needs per symbol of a text which it has not seen:

$$F = -\frac1T \sum_t \log_2 P(x_t \mid x_1, \dots, x_{t-1})$$

It is the length to which the model could pack the text, and so file compressors stand in the same table. Fewer bits
mean that more of the language's regularities are in the model. Everything here read the same 2 million letters of
Python's documentation and is judged on the same documents that were held out.
""",
    claims=(
        Claim(
            key="chain",
            statement="The probabilities of all texts of three letters add up to one: it is a distribution",
            judge=Exactly(1.0, within=1e-9),
        ),
        Claim(
            key="history",
            statement="Every step of the history of counting saves bits (the least saving)",
            judge=at_least(0.01),
            unit="bits per letter",
        ),
        Claim(
            key="packers",
            statement="The best of gzip, bz2 and xz needs at least 5 % more bits than the model of eight letters",
            judge=at_least(1.05, shape=1.0),
        ),
        Claim(
            key="transformer",
            statement="A small Transformer needs fewer bits than the best counts, from the same text in two minutes",
            judge=at_most(1.0, shape=1.1),
            scale="report",
        ),
    ),
    ablations=(Ablation("past", "no model looks at what came before", ("history", "packers")),),
    minutes=Minutes(read=5, smoke=0.2, report=4),
    seeds=Seeds(smoke=1, report=1),
    code=("underhood.models.ngram:NGram.log_probs", "underhood.train.cross_entropy:cross_entropy"),
    hard="""
The unit must not depend on how a model cuts the text, so all read 27 symbols. Compressors are primed with the training
text and pay only for what follows. The Transformer stops after a fixed number of steps, long before it has learned all
that it could; the n-gram has nothing more to learn from this text.
""",
    then="What the network does with similar pasts: bengio-2003; the packer itself: lm-compressor.",
)


def run(trial: Trial) -> None:
    train, held_out = plain_english(only_topics=trial.scale == "smoke")
    text, other = symbols(" ".join(train)), [symbols(one) for one in held_out]
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
        trial.figure(
            Plot(
                title="A network overtakes the counts, or not yet",
                x="steps",
                y="bits per letter",
                series=series,
                levels=(best,),
            )
        )
    if not trial.is_ablation:
        rows = sorted({**bits, **packed}.items(), key=lambda row: -row[1])
        names, values = zip(*rows, strict=True)
        places = tuple(map(float, range(len(rows))))
        series = (Series("held-out text", places, values),)
        trial.figure(
            Plot(
                title="One corpus, every model", x="model", y="bits per letter", kind="bars", names=names, series=series
            )
        )
        table = tuple((name, round(value, 3), f"{value / np.log2(27):.0%}") for name, value in rows)
        trial.figure(
            Grid(title="The same as a table", head=("model", "bits per letter", "of equal chances"), rows=table)
        )


def counted(text: Ids, order: int) -> NGram:
    """Kneser-Ney counts of a text; order 0 has read nothing and gives all symbols equal chances."""
    model = NGramSpec(vocab_size=27, order=max(order, 1)).build()
    return model.fit([text]) if order else model


def transformer(trial: Trial, text: Ids, other: Ids, count: int = 600) -> tuple[float, list[tuple[float, float]]]:
    """Trains a small decoder; its bits per letter on the held-out text, and some along the way."""
    spec = qwen3_shaped(vocab_size=27, context=CONTEXT, width=128, layers=3, heads=4)
    model = spec.initialize(seed=0)
    rule = MuonAdamWSpec().build(model)
    rng = np.random.default_rng(0)
    data = torch.from_numpy(text)
    curve = []
    for step in range(count):
        starts = torch.from_numpy(rng.integers(0, len(text) - CONTEXT - 1, BATCH))[:, None]
        rows = data[starts + torch.arange(CONTEXT + 1)]
        cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten()).backward()
        rule.step(min(1.0, 3 * (1 - step / count)))  # the last third goes down to zero
        model.zero_grad()
        if step % 100 == 0:
            curve.append((float(step), judged(model, other[: 40 * CONTEXT])))
        trial.progress(step / count, "Transformer")
    found = judged(model, other)
    trial.note(f"The Transformer has {parameter_count(model):,} weights and read {count * BATCH * CONTEXT:,} letters.")
    return found, [*curve, (float(count), found)]


@torch.inference_mode()
def judged(model: torch.nn.Module, other: Ids) -> float:
    """Bits per letter in windows that overlap by half, so that every letter but the first ones has some past."""
    half = CONTEXT // 2
    rows = torch.from_numpy(np.lib.stride_tricks.sliding_window_view(other, CONTEXT + 1)[::half].copy())
    total, letters = 0.0, 0
    for part in rows.split(64):
        logits = model(part[:, :-1])[:, half:]
        total += float(cross_entropy(logits.flatten(0, 1), part[:, 1 + half :].flatten())) * logits[..., 0].numel()
        letters += logits[..., 0].numel()
    return total / letters / np.log(2)
