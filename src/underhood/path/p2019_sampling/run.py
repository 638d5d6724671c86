"""Holtzman et al. 2019: samplers against the distributions they should have, and text at many temperatures."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pydoc_data.topics import topics

import numpy as np
import torch
from scipy.stats import chisquare, rankdata
from torch import Tensor

from underhood.core.figures import Series
from underhood.core.trial import Trial
from underhood.infer.beam import BeamSpec, beam_search
from underhood.infer.generate import Completion, generate
from underhood.infer.sample import PURE_SAMPLING, SamplingSpec, choose, distribution
from underhood.models.decoder import Decoder
from underhood.models.gpt2 import gpt2_shaped
from underhood.text.bpe import BytePairTokenizer, train_bpe
from underhood.train.small_lm import train_small

WINDOW, GRAM, DRAWS = 96, 4, 4000
SAMPLERS = {
    "as it is": PURE_SAMPLING,
    "temperature 0.7": SamplingSpec(temperature=0.7),
    "temperature 1.3": SamplingSpec(temperature=1.3),
    "top-k 10": SamplingSpec(top_k=10),
    "top-p 0.9": SamplingSpec(top_p=0.9),
    "all together": SamplingSpec(temperature=0.8, top_k=40, top_p=0.9, min_p=0.02),
}
TEMPERATURES = (0.0, 0.3, 0.6, 0.8, 1.0, 1.3)


def run(trial: Trial) -> None:
    model, tokenizer, held_N = trained(trial.by_scale(smoke=40, report=500))
    tables: list[dict[float, tuple[float, float]]] = []
    for seed in trial.each_seed():
        starts = np.random.default_rng(seed).integers(len(held_N) - WINDOW, size=trial.by_scale(smoke=6, report=12))
        rows_NT = held_N[torch.from_numpy(starts)[:, None] + torch.arange(WINDOW)]
        prompts = rows_NT[:, :16].tolist()
        if trial.wants("draws"):
            with torch.no_grad():
                logits_V = model(rows_NT[:1, :16])[0, -1]
            cut = not trial.ablated("truncation")
            trial.measure("draws", min(p_value(logits_V, sampler, seed, cut=cut) for sampler in SAMPLERS.values()))
        if not trial.wants("loops"):
            continue
        at = {
            heat: written(model, prompts, heat, seed) for heat in trial.by_scale(smoke=(0.0, 1.0), report=TEMPERATURES)
        }
        cold = at[1.0] if trial.ablated("greedy") else at[0.0]
        trial.measure("loops", repeated(cold) - repeated(at[1.0]))
        if trial.is_ablation:
            continue
        more_about(trial, model, prompts, rows_NT, at, seed)
        tables.append({heat: (repeated(texts), nats(texts)) for heat, texts in at.items()})
    if tables:
        show(trial, tables, model, tokenizer, held_N)


@functools.cache
def trained(steps: int) -> tuple[Decoder, BytePairTokenizer, Tensor]:
    """A small GPT of Python's documentation, its tokenizer, and text that it has not read."""
    texts = [topics[name] for name in sorted(topics)]
    kept = len(texts) * 9 // 10
    tokenizer = train_bpe(texts[:kept], vocab_size=512)
    spec = gpt2_shaped(vocab_size=512, context_length=WINDOW, d_model=64, layers=2, heads=4)
    model = train_small(texts[:kept], tokenizer, spec, steps=steps, seed=0)
    return model, tokenizer, torch.tensor([id for text in texts[kept:] for id in tokenizer.encode(text)])


def p_value(logits_V: Tensor, sampler: SamplingSpec, seed: int, *, cut: bool = True) -> float:
    """Of a chi-square test that draws come as often as `distribution` says; tokens expected below 5 times are one."""
    uniform_N = torch.from_numpy(np.random.default_rng([seed, 7]).random(DRAWS))
    drawn_N = choose(logits_V.expand(DRAWS, -1), sampler if cut else PURE_SAMPLING, uniform_N)
    expected_V = DRAWS * distribution(logits_V, sampler).numpy()
    counts_V = np.bincount(drawn_N.numpy(), minlength=len(expected_V))
    if counts_V[expected_V == 0].any():
        return 0.0
    often_V = expected_V >= 5
    counts = [*counts_V[often_V], counts_V[~often_V].sum()]
    expected = [*expected_V[often_V], expected_V[~often_V].sum()]
    if expected[-1] < 5:  # too few even together: they join the most frequent token
        counts[0], expected[0] = counts[0] + counts.pop(), expected[0] + expected.pop()
    return float(chisquare(counts, np.array(expected) * sum(counts) / sum(expected)).pvalue)


def written(model: Decoder, prompts: list[list[int]], temperature: float, seed: int) -> list[Completion]:
    """Each prompt continued to the end of the context."""
    sampling = SamplingSpec(temperature=temperature, seed=seed)
    return generate(model, prompts, max_new_tokens=WINDOW, sampling=sampling)


def repeated(texts: Sequence[Completion]) -> float:
    """The share of 4-grams that have occurred before in the same text."""
    return float(np.mean([repeated_in(text.ids) for text in texts]))


def repeated_in(ids: Sequence[int]) -> float:
    grams = [tuple(ids[start : start + GRAM]) for start in range(len(ids) - GRAM + 1)]
    return 1 - len(set(grams)) / len(grams)


def nats(texts: Sequence[Completion]) -> float:
    """Mean cost of a token under the model itself."""
    return -float(np.mean([np.mean(text.logprobs) for text in texts]))


def more_about(
    trial: Trial,
    model: Decoder,
    prompts: list[list[int]],
    rows_NT: Tensor,
    at: dict[float, list[Completion]],
    seed: int,
) -> None:
    """Nearly greedy text, beams, real text, and the nucleus."""
    almost = written(model, prompts, 1e-4, seed)
    pairs = [(a, b) for x, y in zip(almost, at[0.0], strict=True) for a, b in zip(x.ids, y.ids, strict=True)]
    trial.measure("cold", float(np.mean([a == b for a, b in pairs])))
    if trial.scale == "smoke":
        return
    beams = [beam_search(model, prompt, BeamSpec(beams=4), max_new_tokens=WINDOW)[0] for prompt in prompts[:6]]
    better = [sum(b.logprobs) >= sum(g.logprobs) - 1e-4 for b, g in zip(beams, at[0.0], strict=False)]
    trial.measure("beam", float(np.mean(better)))
    real = real_nats(model, rows_NT)
    trial.measure("people", real / nats(beams))
    values = [repeated(at[heat]) for heat in TEMPERATURES]
    trial.measure("steady", float(np.corrcoef(rankdata(TEMPERATURES), rankdata(values))[0, 1]))
    nucleus = generate(model, prompts, max_new_tokens=WINDOW, sampling=SamplingSpec(top_p=0.9, seed=seed))
    trial.measure("nucleus", abs(nats(at[0.0]) - real) - abs(nats(nucleus) - real))


@torch.no_grad()
def real_nats(model: Decoder, rows_NT: Tensor) -> float:
    """Mean cost of a token of held-out text, in the place of the continuation."""
    scores_NTV = model(rows_NT)[:, 15:-1].log_softmax(dim=-1)
    return -float(scores_NTV.gather(2, rows_NT[:, 16:, None]).mean())


def show(
    trial: Trial,
    tables: list[dict[float, tuple[float, float]]],
    model: Decoder,
    tokenizer: BytePairTokenizer,
    held_N: Tensor,
) -> None:
    heats = tuple(tables[0])
    values = np.array([[table[heat] for heat in heats] for table in tables])
    names = (("repeated 4-grams", 0), ("nats per token", 1))
    for name, column in names:
        table = values[..., column]
        series = [Series(name, heats, table.mean(axis=0), table.min(axis=0), table.max(axis=0))]
        trial.plot(title=f"Text by temperature: {name}", x="temperature", y=name, series=series)
    prompt = held_N[:16].tolist()
    rows = [(f"{heat:g}", tokenizer.decode(written(model, [prompt], heat, 0)[0].ids[:40])) for heat in heats]
    trial.table(title=f"After “{tokenizer.decode(prompt)}”", head=("temperature", "continued"), rows=rows)
