"""Bengio et al. 2003: word vectors and the next word learnt together, against counts and mixed with them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import dropout, normalize

from underhood.core.figures import Series
from underhood.core.trial import Trial
from underhood.data.batch import Batch
from underhood.data.letters import plain_english
from underhood.evals.scoring import evaluating, target_log_probs
from underhood.models.base import parameter_count
from underhood.models.mixture import likeliest_share
from underhood.models.ngram import NGramSpec
from underhood.models.nplm import NPLM, NPLMSpec
from underhood.train.cross_entropy import cross_entropy
from underhood.train.optim import AdamWSpec, scale_lr

Ids = NDArray[np.int64]
Floats = NDArray[np.float64]
ORDER, WIDTH = 5, 30
ROWS, LENGTH, DROPOUT = 8, 64, 0.2
AP_NEWS = NPLMSpec(vocab_size=17_964, order=6, d_model=100, hidden=60, direct=True)
SHOWN = ("string", "returns", "file", "is", "three", "class")


def run(trial: Trial) -> None:
    trial.measure("parameters", parameter_count(AP_NEWS.build()))
    bars: list[dict[str, float]] = []
    for seed in trial.each_seed():
        words, train, tune, test = corpus(trial, seed)
        hidden = trial.by_scale(smoke=50, report=100)
        spec = NPLMSpec(vocab_size=len(words), order=ORDER, d_model=WIDTH, hidden=hidden, direct=False)
        epochs = trial.by_scale(smoke=3, report=5)
        net = trained(trial, spec, train, epochs, seed)
        counts = {n: NGramSpec(vocab_size=len(words), order=n).build().fit([train]) for n in (3, ORDER)}
        logs = {n: model.log_probs([test])[0][ORDER:] for n, model in counts.items()}
        net_N = scored(net, test)[ORDER - 1 :]
        mixed_N = np.logaddexp(net_N, logs[3]) - np.log(2)
        share = likeliest_share(scored(net, tune), counts[3].log_probs([tune])[0][1:])
        fitted_N = np.logaddexp(net_N + np.log(share), logs[3] + np.log1p(-share))
        best = perplexity(logs[ORDER])
        trial.measure("mixture", perplexity(mixed_N) / best)
        trial.measure("alone", perplexity(net_N) / best)
        trial.measure("helps", perplexity(mixed_N) / perplexity(net_N))
        trial.measure("weight", perplexity(fitted_N) / perplexity(mixed_N))
        pairs, seen = (ids[:-1] * len(words) + ids[1:] for ids in (test, train))
        new_N = ~np.isin(pairs, seen)[ORDER - 2 : -1]
        trial.measure("unseen", perplexity(mixed_N[new_N]) / perplexity(logs[ORDER][new_N]))
        if trial.wants("direct"):
            direct = NPLMSpec(vocab_size=len(words), order=ORDER, d_model=WIDTH, hidden=hidden, direct=True)
            direct_N = scored(trained(trial, direct, train, epochs, seed), test)[ORDER - 1 :]
            trial.measure("direct", perplexity(direct_N) / perplexity(net_N))
        values = (perplexity(logs[3]), best, perplexity(net_N), perplexity(mixed_N), perplexity(fitted_N))
        bars.append(dict(zip(KINDS, values, strict=True)))
        if seed == trial.seeds[0] and not trial.is_ablation:
            equation(trial, net, test)
            neighbours(trial, net, words)
            trial.note(
                f"{len(train):,} words to learn from, {len(words):,} different ones; {share:.0%} network fits best."
            )
    show(trial, bars)


KINDS = ("trigram", "5-gram", "network", "network and trigram", "the same, weight fitted")


def corpus(trial: Trial, seed: int) -> tuple[list[str], Ids, Ids, Ids]:
    """Words of the documentation: the vocabulary, and ids to learn from, to fit a weight to, and to judge by.

    Words that are too rare are one word.
    """
    halves = plain_english(only_topics=trial.scale == "smoke", seed=seed)
    train, other = (" ".join(half[:: trial.by_scale(smoke=1, report=4)]).split() for half in halves)
    least = trial.by_scale(smoke=12, report=6)
    words = ["<rare>", *sorted(word for word, count in Counter(train).items() if count >= least)]
    number = {word: rank for rank, word in enumerate(words)}
    train_N, other_N = (np.array([number.get(word, 0) for word in half]) for half in (train, other))
    tune_N, test_N = np.split(other_N, [len(other_N) // 3])
    return words, train_N, tune_N, test_N


def trained(trial: Trial, spec: NPLMSpec, text_N: Ids, epochs: int, seed: int) -> NPLM:
    """The network after some passes over the text, rows in random order."""
    rng = np.random.default_rng(seed)
    if trial.ablated("history"):
        text_N = rng.permutation(text_N)
    model = spec.initialize(seed=seed)
    model.embed.weight.data *= 0.1  # what begins short is soon outweighed by what is learnt
    for layer in (model.embed, model.hidden):
        assert layer is not None
        layer.register_forward_hook(without_some)
    optimizer = AdamWSpec(lr=0.01, weight_decay=0.0).build(model)
    rows_NT = torch.from_numpy(text_N[: (len(text_N) - 1) // LENGTH * LENGTH + 1]).unfold(0, LENGTH + 1, LENGTH)
    batches = [batch for _ in range(epochs) for batch in torch.from_numpy(rng.permutation(len(rows_NT))).split(ROWS)]
    for step, batch in enumerate(batches):
        row_BT = rows_NT[batch]
        cross_entropy(model(row_BT[:, :-1]).flatten(0, 1), row_BT[:, 1:].flatten()).backward()
        scale_lr(optimizer, 1 - step / len(batches))
        optimizer.step()
        optimizer.zero_grad()
        trial.progress(step / len(batches), "network")
    return model.eval()


def without_some(module: nn.Module, _: Any, output: Tensor) -> Tensor:
    return dropout(output, DROPOUT, module.training)


def scored(model: NPLM, text_N: Ids) -> Floats:
    """log p of every word but the first."""
    tokens_1N = torch.from_numpy(text_N)[None]
    with evaluating(model):
        return target_log_probs(model, Batch(tokens_1N[:, :-1], tokens_1N[:, 1:]))[0].double().numpy()


def perplexity(logs_N: Floats) -> float:
    return float(np.exp(-logs_N.mean()))


def equation(trial: Trial, model: NPLM, test: Ids) -> None:
    """The library's scores against the paper's equation 1, written out."""
    window = torch.from_numpy(test[: ORDER - 1])
    assert model.hidden is not None
    with torch.no_grad():
        x = model.embed.weight[window].flatten()
        y = model.unembed.bias + model.unembed.weight @ torch.tanh(model.hidden.bias + model.hidden.weight @ x)
        worst = float((model(window[None])[0, -1] - y).abs().max())
    trial.oracle("b + U tanh(d + H x) written out", worst < 1e-4, f"largest difference {worst:.0e}")


def neighbours(trial: Trial, model: NPLM, words: list[str]) -> None:
    unit_VD = normalize(model.embed.weight.detach(), dim=-1)
    rows = []
    for word in SHOWN:
        if word in words:
            nearest = (unit_VD @ unit_VD[words.index(word)]).topk(5).indices[1:].tolist()
            rows.append((word, ", ".join(words[n] for n in nearest)))
    trial.table(title="Words whose vectors are near", head=("word", "nearest"), rows=rows)


def show(trial: Trial, bars: list[dict[str, float]]) -> None:
    mean = [float(np.mean([row[kind] for row in bars])) for kind in KINDS]
    places = tuple(map(float, range(len(KINDS))))
    trial.plot(
        title="Network and counts err in different places",
        x="model",
        y="perplexity of new text",
        kind="bars",
        names=KINDS,
        series=(Series(f"mean of {len(bars)} seeds", places, tuple(mean)),),
    )
