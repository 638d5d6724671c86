"""Alammar 2020: neurons of the feed-forward layers, sorted into a few groups by what they are on for."""

from __future__ import annotations

import inspect as python_inspect
import textwrap
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from underhood.core.figures import Series, Texts
from underhood.core.trial import Trial
from underhood.data.pydocs import pydocs_corpus
from underhood.infer.load import LoadedModel
from underhood.inspect.factors import FactorInformation, NeuronFactors, factor_information, neuron_factors
from underhood.inspect.trace import Trace, trace
from underhood.models.decoder import qwen3_shaped
from underhood.path.lib.in_memory import as_loaded, with_random_layers
from underhood.text.bpe import BytePairTokenizer, train_bpe
from underhood.train.small_lm import train_small

WINDOW, LAYERS, FACTORS = 64, 2, 8
CODE = ("ast", "calendar", "csv", "difflib", "heapq", "inspect", "json.decoder", "pprint", "statistics", "tokenize")
CODE_NEW = ("bisect", "textwrap", "shlex", "fractions")
"""Modules whose source is read in training, and others for the test."""


def run(trial: Trial) -> None:
    prose, prose_new, code, code_new = texts()
    tokenizer = train_bpe(prose + code, vocab_size=1024)
    counted: dict[str, list[float]] = {"trained": [], "untrained": []}
    for seed in trial.each_seed():
        windows, kinds = mixed_windows(trial, tokenizer, prose_new, code_new, seed)
        if trial.ablated("kinds"):
            order = np.random.default_rng(seed).permutation(len(kinds))
            kinds = [kinds[index] for index in order]
        loaded = trained(trial, tokenizer, prose + code, seed)
        factors = neuron_factors(units(loaded, windows), FACTORS, seeds=(0, 1, 2))
        best = most_informative(factors, kinds, seed)
        trial.measure("information", best.bits)
        counted["trained"].append(best.bits)
        trial.measure("chance", best.chance)
        if trial.is_ablation:
            continue
        trial.measure("agreement", float(factors.agreement.mean()))
        trial.measure("explained", factors.explained)
        fresh = as_loaded(with_random_layers(loaded.decoder.spec.initialize(seed=seed), seed), tokenizer)
        untrained = most_informative(neuron_factors(units(fresh, windows), FACTORS, seeds=(0,)), kinds, seed)
        trial.measure("training", best.bits / untrained.bits)
        counted["untrained"].append(untrained.bits)
        if seed == trial.seeds[-1]:
            show(trial, factors, kinds, counted)


def texts() -> tuple[list[str], list[str], list[str], list[str]]:
    """Prose and code of this Python installation: to train on, and new of each."""
    topics = [document.text for document in pydocs_corpus().documents if document.kind == "topic"]
    code, code_new = ([source(name) for name in names] for names in (CODE, CODE_NEW))
    return topics[: len(topics) * 9 // 10], topics[len(topics) * 9 // 10 :], code, code_new


def source(name: str) -> str:
    """The source of a module without its docstring's prose."""
    module = __import__(name, fromlist=["__name__"])
    return python_inspect.getsource(module).replace(module.__doc__ or "\0", "", 1)


def trained(trial: Trial, tokenizer: BytePairTokenizer, passages: Sequence[str], seed: int) -> LoadedModel:
    spec = qwen3_shaped(vocab_size=1024, context_length=WINDOW, d_model=96, layers=LAYERS, heads=3)
    steps = trial.by_scale(smoke=80, report=250)
    tell = lambda share: trial.progress(share, "training")  # noqa: E731
    return as_loaded(train_small(passages, tokenizer, spec, steps=steps, seed=seed, progress=tell), tokenizer)


def mixed_windows(
    trial: Trial, tokenizer: BytePairTokenizer, prose: list[str], code: list[str], seed: int
) -> tuple[list[list[int]], list[str]]:
    """Windows of new prose and new code, equally many, and the kind of every token in them."""
    rng, count = np.random.default_rng(seed), trial.by_scale(smoke=8, report=20)
    windows, kinds = [], []
    for kind, passages in (("prose", prose), ("code", code)):
        ids = tokenizer.encode("\n".join(passages))
        for start in rng.integers(0, len(ids) - WINDOW, count):
            windows.append(ids[start : start + WINDOW])
            kinds += [kind] * WINDOW
    return windows, kinds


def units(loaded: LoadedModel, windows: list[list[int]]) -> Trace:
    """The hidden units of all windows as one trace, one window after the other."""
    traces = [trace(loaded, window, ("units",)) for window in windows]
    values = {site: torch.cat([each[site] for each in traces]) for site in traces[0].values}
    ids, pieces = (tuple(item for each in traces for item in getattr(each, name)) for name in ("ids", "pieces"))
    return Trace(traces[0].name, ids, pieces, values)


def most_informative(factors: NeuronFactors, kinds: list[str], seed: int) -> FactorInformation:
    """Of the factor whose strength says most about the kind of a token."""
    return max(factor_information(factors.strengths, kinds, seed=seed), key=lambda each: each.bits)


def show(trial: Trial, factors: NeuronFactors, kinds: list[str], counted: dict[str, list[float]]) -> None:
    is_code_T = torch.tensor([kind == "code" for kind in kinds])
    means: list[Tensor] = [factors.strengths[mask].mean(dim=0) for mask in (is_code_T, ~is_code_T)]
    places = tuple(range(FACTORS))
    trial.plot(
        title="Some groups of neurons are on for code, some for prose",
        x="factor",
        y="mean strength",
        kind="bars",
        names=tuple(str(factor + 1) for factor in places),
        series=[
            Series(name, places, tuple(mean.tolist())) for name, mean in zip(("code", "prose"), means, strict=True)
        ],
    )
    trial.plot(
        title="What the best group says about the kind of a token",
        x="model",
        y="bits of 1",
        kind="bars",
        names=tuple(counted),
        series=(Series("mean over seeds", (0, 1), tuple(float(np.mean(bits)) for bits in counted.values())),),
    )
    chosen = []
    for factor in places:
        tokens = [factors.pieces[token] for token, _ in factors.top_tokens(factor, 12)]
        chosen.append((f"factor {factor + 1}", textwrap.shorten("  ".join(tokens).replace("\n", "⏎"), 200)))
    trial.figure(Texts(title="The tokens at which each group is strongest", texts=tuple(chosen)))
