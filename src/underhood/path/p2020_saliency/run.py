"""Alammar 2020: gradient × input, asked where the right answer is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from underhood.core.figures import Heat, Series
from underhood.core.trial import Trial
from underhood.infer.load import LoadedModel
from underhood.inspect.attribution import Attribution, gradient_times_input, integrated_gradients, occlusion
from underhood.inspect.target import Target
from underhood.inspect.trace import trace
from underhood.models.decoder import Decoder, qwen3_shaped
from underhood.path.lib.in_memory import as_loaded, with_random_layers
from underhood.path.lib.marked_recall import LENGTH, LETTERS, VOCABULARY, Recall, marked_recall
from underhood.path.lib.short_training import train_by_step
from underhood.train.cross_entropy import cross_entropy

LAYERS, BLANK = 2, LETTERS
Method = Callable[[LoadedModel, list[int], Target], Tensor]


def values(attribution: Attribution) -> Tensor:
    return attribution.values.abs()


def attention(loaded: LoadedModel, ids: list[int], target: Target) -> Tensor:
    """Attention of the last token, the mean over all heads and layers: what one sees without a method."""
    seen = trace(loaded, ids, ("query", "key"))
    return torch.stack([seen.pattern(layer)[:, -1].mean(dim=0) for layer in range(LAYERS)]).mean(dim=0)


METHODS: dict[str, Method] = {
    "hits": lambda loaded, ids, target: values(gradient_times_input(loaded, ids, target)),
    "signed": lambda loaded, ids, target: values(gradient_times_input(loaded, ids, target, norm=False)),
    "integrated": lambda loaded, ids, target: values(
        integrated_gradients(loaded, ids, target, baseline=BLANK, steps=32, held=())
    ),
    "occlusion": lambda loaded, ids, target: values(occlusion(loaded, ids, target, replacement=BLANK)),
    "attention": attention,
}
NAMES = ("gradient × input", "gradient × input, signed", "integrated gradients", "occlusion", "attention")


def run(trial: Trial) -> None:
    shares: dict[str, list[float]] = {key: [] for key in METHODS}
    for seed in trial.each_seed():
        model = train(trial, seed)
        test = marked_recall(trial.by_scale(smoke=50, report=100), torch.Generator().manual_seed(10**6 + seed))
        with torch.no_grad():
            right_N = model(test.tokens)[:, -1].argmax(dim=-1) == test.answers
        if not trial.is_ablation:
            trial.measure("learnt", float(right_N.float().mean()))
        loaded = as_loaded(model)
        for key, method in METHODS.items():
            if trial.wants(key):
                hits, share = judged(trial, loaded, test, method)
                trial.measure(key, hits)
                shares[key].append(share)
                if key == "hits" and trial.wants("share"):
                    trial.measure("share", share)
        if trial.wants("complete"):
            trial.measure("complete", incompleteness(loaded, test))
        if seed == trial.seeds[-1] and not trial.is_ablation:
            show(trial, shares, loaded, test)


def train(trial: Trial, seed: int) -> Decoder:
    """A small GPT that answers questions about marked letters, or an untrained one."""
    spec = qwen3_shaped(vocab_size=VOCABULARY, context_length=LENGTH, d_model=64, layers=LAYERS, heads=4)
    if trial.ablated("training"):
        return with_random_layers(spec.initialize(seed=seed), seed).eval()
    model = spec.initialize(seed=seed)

    def loss(step: int) -> Tensor:
        batch = marked_recall(64, torch.Generator().manual_seed(seed * 10**6 + step))
        return cross_entropy(model(batch.tokens)[:, -1], batch.answers)

    steps = trial.by_scale(smoke=300, report=400)
    return train_by_step(model, loss, steps, fall=3, tell=lambda share: trial.progress(share, "training"))


def judged(trial: Trial, loaded: LoadedModel, test: Recall, method: Method) -> tuple[float, float]:
    """How often the largest value is on the mark or the marked letter, and their share of all values."""
    hits, shares = [], []
    for number, (ids, answer, cause) in enumerate(examples(test)):
        values_T = method(loaded, ids, Target(token=answer, logprob=True))
        hits.append(int(values_T.argmax()) in (cause - 1, cause))
        shares.append(float(values_T[cause - 1 : cause + 1].sum() / values_T.sum()))
        trial.progress(number / len(test.answers), "attribution")
    return float(np.mean(hits)), float(np.mean(shares))


def examples(test: Recall) -> list[tuple[list[int], int, int]]:
    return list(zip(test.tokens.tolist(), test.answers.tolist(), test.cause.tolist(), strict=True))


def incompleteness(loaded: LoadedModel, test: Recall) -> float:
    """The largest completeness error of integrated gradients, as a share of the change that is explained."""
    errors = []
    for ids, answer, _ in examples(test)[:20]:
        actual = integrated_gradients(
            loaded, ids, Target(token=answer, logprob=True), baseline=BLANK, steps=200, held=()
        )
        assert actual.error is not None
        assert actual.baseline_score is not None
        errors.append(abs(actual.error) / abs(actual.score - actual.baseline_score))
    return max(errors)


def show(trial: Trial, shares: dict[str, list[float]], loaded: LoadedModel, test: Recall) -> None:
    measured = {name: float(np.mean(each)) for name, each in zip(NAMES, shares.values(), strict=True) if each}
    trial.plot(
        title="How much of the attribution is on the mark and the marked letter",
        x="method",
        y="share",
        kind="bars",
        names=tuple(measured),
        series=(Series("mean over prompts", tuple(range(len(measured))), tuple(measured.values())),),
        levels=((2 / LENGTH, "if all tokens counted alike"),),
    )
    (ids, answer, _), *_ = examples(test)
    rows = [method(loaded, ids, Target(token=answer, logprob=True)) for method in METHODS.values()]
    signs = "abcdefghijklmnop" + "·" * 16 + "!?"
    trial.figure(
        Heat(
            title="One prompt, attributed by five methods",
            values=tuple(tuple((row / row.sum()).tolist()) for row in rows),
            rows=NAMES,
            columns=tuple(f"{at + 1} {signs[id]}" for at, id in enumerate(ids)),
            note="The letter after the mark is the answer. Shares of each row's sum.",
        )
    )
