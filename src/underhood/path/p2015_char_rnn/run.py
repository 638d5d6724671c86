"""Karpathy 2015: an LSTM over characters, on markup with a known answer and on Python's own source."""

from __future__ import annotations

from collections import Counter

import numpy as np
import torch
from numpy.typing import NDArray

from underhood.core.figures import Series, Texts
from underhood.core.trial import Trial
from underhood.infer.generate import generate
from underhood.infer.sample import SamplingSpec
from underhood.models.ngram import NGram, NGramSpec
from underhood.models.rnn import RNN, RNNSpec
from underhood.nn.recurrence import RecurrenceSpec
from underhood.path.lib.ranking import ranked_above
from underhood.path.lib.source_characters import (
    CHARACTERS,
    MARKUP,
    character_ids,
    closed_rightly,
    inside_strings,
    is_statement,
    library_source,
    random_markup,
)
from underhood.train.cross_entropy import cross_entropy
from underhood.train.optim import AdamWSpec, scale_lr

Ids = NDArray[np.int64]
Floats = NDArray[np.float64]
RATES = {"markup": 0.03, "Python": 0.01}  # the larger network wants the smaller one
RESET = 4
"""Characters after which the ablated network begins anew: as many as a 5-gram looks back."""


def run(trial: Trial) -> None:
    for seed in trial.each(trial.seeds, "markup, seed"):
        rng = np.random.default_rng(seed)
        text_N, test_N = random_markup(rng, 60_000), random_markup(rng, 6_000)
        model = trained(
            trial, text_N, len(MARKUP), width=64, length=32, rows=8, steps=600, rate=RATES["markup"], seed=seed
        )
        logs_NV, h_NH = read(model, test_N, reset=trial.ablated("state"))
        closing = np.flatnonzero((test_N == 2) | (test_N == 3))
        trial.measure("closes", knows(logs_NV, test_N, closing))
        ngram = NGramSpec(vocab_size=len(MARKUP), order=5).build().fit([text_N])
        counted_NV = ngram(torch.from_numpy(test_N[:-1])[None])[0].double().numpy()
        trial.measure("counts", knows(counted_NV, test_N, closing))
        trial.measure("unit", best_unit(h_NH[closing - 1], test_N[closing] == 2))
    if trial.wants("bits", "brackets", "statements", "quote_cell", "loops"):
        python(trial)


def trained(
    trial: Trial, text_N: Ids, size: int, *, width: int, length: int, rows: int, steps: int, rate: float, seed: int
) -> RNN:
    """An LSTM that predicts the next character, trained on rows from anywhere in the text."""
    recurrence = RecurrenceSpec(cell="lstm", projected=False)
    spec = RNNSpec(vocab_size=size, context_length=length, d_model=width, recurrence=recurrence)
    model, data_N = spec.initialize(seed=seed), torch.from_numpy(text_N)
    optimizer = AdamWSpec(lr=rate, weight_decay=0.0).build(model)
    draw = torch.Generator().manual_seed(seed)
    positions = torch.arange(length)[None] % RESET if trial.ablated("state") else None
    for step in range(steps):
        starts_B1 = torch.randint(len(text_N) - length - 1, (rows, 1), generator=draw)
        row_BT = data_N[starts_B1 + torch.arange(length + 1)]
        scores_BTV = model(row_BT[:, :-1], positions=positions)
        cross_entropy(scores_BTV.flatten(0, 1), row_BT[:, 1:].flatten()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scale_lr(optimizer, min(1.0, 2 * (1 - step / steps)))
        optimizer.step()
        optimizer.zero_grad()
        trial.progress(step / steps, "LSTM")
    return model.eval()


@torch.no_grad()
def read(model: RNN, text_N: Ids, *, reset: bool = False) -> tuple[Floats, Floats]:
    """Scores after every character but the last, and the hidden states (N, H)."""
    tokens_1N = torch.from_numpy(text_N[:-1])[None]
    h_NH = model.hidden_states(tokens_1N, positions=torch.arange(len(text_N) - 1)[None] % RESET if reset else None)[0]
    return model.unembed(h_NH).log_softmax(-1).double().numpy(), h_NH.double().numpy()


def knows(logs_NV: Floats, text_N: Ids, closing: Ids) -> float:
    """How often the bracket that closes is likelier than the one of the other kind."""
    before = logs_NV[closing - 1]
    return float(
        (before[np.arange(len(closing)), text_N[closing]] > before[np.arange(len(closing)), 5 - text_N[closing]]).mean()
    )


def best_unit(h_NH: Floats, is_first_N: NDArray[np.bool_]) -> float:
    """The best area under the ROC curve of a single unit, whichever way round."""
    areas = [ranked_above(unit_N[is_first_N], unit_N[~is_first_N]) for unit_N in h_NH.T]
    return max(max(area, 1 - area) for area in areas)


def python(trial: Trial) -> None:
    """An LSTM and a 5-gram on the standard library's source."""
    text_N, test = character_ids(library_source(0, 1_000_000)), library_source(1_200_000, 60_000)
    test_N, size = character_ids(test), len(CHARACTERS)
    wrote: dict[str, list[str]] = {}
    h_NH = np.empty((0, 0))
    ngram = NGramSpec(vocab_size=size, order=5).build().fit([text_N])
    counted = -float(ngram.log_probs([test_N])[0].mean() / np.log(2))
    inside_N = inside_strings(test)
    for seed in trial.each(trial.seeds, "Python, seed"):
        model = trained(
            trial, text_N, size, width=256, length=96, rows=32, steps=1_200, rate=RATES["Python"], seed=seed
        )
        logs_NV, h_NH = read(model, test_N)
        bits = -float(logs_NV[np.arange(len(logs_NV)), test_N[1:]].mean() / np.log(2))
        trial.measure("bits", bits / counted)
        trial.measure("quote_cell", best_unit(h_NH, inside_N[1:]))
        wrote = {
            "LSTM": written(model, 1.0, seed),
            "5-gram": written(ngram, 1.0, seed),
            "0.2": written(model, 0.2, seed),
        }
        rights = {name: np.sum([closed_rightly(text) for text in texts], axis=0) for name, texts in wrote.items()}
        trial.measure("brackets", rights["LSTM"][0] / rights["LSTM"][1] - rights["5-gram"][0] / rights["5-gram"][1])
        lines = {
            name: [line for text in texts for line in text.splitlines()[1:-1] if line.strip()]
            for name, texts in wrote.items()
        }
        python_lines = {name: float(np.mean([is_statement(line) for line in each])) for name, each in lines.items()}
        trial.measure("statements", python_lines["LSTM"] - python_lines["5-gram"])
        trial.measure("loops", repeated(wrote["0.2"]) / repeated(wrote["LSTM"]))
        trial.note(f"Seed {seed}: {bits:.2f} bits per character, the 5-gram {counted:.2f}.")
    shown = (("LSTM", wrote["LSTM"][0]), ("LSTM, temperature 0.2", wrote["0.2"][0]), ("5-gram", wrote["5-gram"][0]))
    trial.figure(Texts(title="Python as they write it", texts=shown))
    unit = int(np.argmax([abs(ranked_above(u[inside_N[1:]], u[~inside_N[1:]]) - 0.5) for u in h_NH.T]))
    window = slice(2_000, 2_160)
    trial.plot(
        title="A unit that knows whether it is inside a string",
        x="character",
        y="activity",
        series=(
            Series("the unit", tuple(range(160)), tuple(h_NH[window, unit])),
            Series("inside a string", tuple(range(160)), tuple(inside_N[1:][window].astype(float))),
        ),
    )


def written(model: RNN | NGram, temperature: float, seed: int) -> list[str]:
    """16 texts of 400 characters that go on after the beginning of a function."""
    prompts = [character_ids("\n\ndef ").tolist()] * 16
    sampling = SamplingSpec(temperature=temperature, seed=seed)
    done = generate(model, prompts, max_new_tokens=400, sampling=sampling, batch_size=16)
    return ["def " + "".join(CHARACTERS[number] for number in each.ids) for each in done]


def repeated(texts: list[str], length: int = 12) -> float:
    """The share of stretches of characters that occur more than once within their text."""
    counts = [Counter(text[n : n + length] for n in range(len(text) - length)) for text in texts]
    return sum(n for each in counts for n in each.values() if n > 1) / sum(each.total() for each in counts)
