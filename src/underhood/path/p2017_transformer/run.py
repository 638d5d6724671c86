"""Vaswani et al. 2017: an encoder and a decoder of attention alone, against the recurrent models before it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from underhood.core.figures import Heat, Series
from underhood.core.trial import Trial
from underhood.models.base import parameter_count
from underhood.models.encoder_decoder import EncoderDecoder, original_transformer
from underhood.path.lib.gru_translator import gru_translator_of_size
from underhood.path.lib.torch_transformer import largest_difference
from underhood.train.cross_entropy import LabelSmoothing, cross_entropy
from underhood.train.schedule import NoamSpec

SYMBOLS, OPENING, BATCH, TESTED = 16, 0, 64, 256
SMOOTHING, ENOUGH = LabelSmoothing(epsilon=0.1), 0.95
RATE = 4e-3  # the highest: that of the formula, (width · warm-up)^−½, suits models of 512 numbers and more


@dataclass
class ReversalCourse:
    """A model, and the share of test sequences that it reverses exactly, by steps."""

    model: nn.Module
    steps: list[int] = field(default_factory=list)
    exact: list[float] = field(default_factory=list)

    def reached_at(self) -> float:
        return next((step for step, share in zip(self.steps, self.exact, strict=True) if share >= ENOUGH), math.inf)


def run(trial: Trial) -> None:
    if not trial.is_ablation:
        logits, targets = torch.randn(20, 9, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 9
        theirs = nn.functional.cross_entropy(logits, targets, label_smoothing=0.1)
        gap = abs(float(cross_entropy(logits, targets, smoothing=SMOOTHING) - theirs))
        trial.oracle("torch.nn.CrossEntropyLoss smooths labels in the same way", gap < 1e-6, f"difference {gap:.1e}")
        for key, sizes in (("base", size_of()), ("big", size_of(d_model=1024, heads=16, d_ff=4096))):
            trial.measure(key, sizes[0])
            trial.oracle(f"torch.nn.Transformer has as many parameters ({key})", sizes[0] == sizes[1], f"{sizes[1]:,}")
    length = trial.by_scale(smoke=6, report=10)
    courses: dict[str, list[ReversalCourse]] = {}
    for seed in trial.each_seed():
        model = transformer(trial, length, seed)
        course = train(trial, "Transformer", model, length, seed)
        trial.measure("exact", course.exact[-1])
        courses.setdefault("Transformer", []).append(course)
        if trial.is_ablation or not trial.wants("bottleneck", "attention", "steps"):
            continue
        for name, attention in (("GRU", False), ("GRU with attention", True)):
            peer = gru_translator_of_size(parameter_count(model), SYMBOLS + 1, attention=attention, seed=seed)
            courses.setdefault(name, []).append(train(trial, name, peer, length, seed))
        trial.measure("bottleneck", courses["GRU"][-1].exact[-1])
        trial.measure("attention", courses["GRU with attention"][-1].exact[-1])
        trial.measure("steps", course.reached_at() / courses["GRU with attention"][-1].reached_at())
    if not trial.is_ablation:
        model = courses["Transformer"][0].model
        assert isinstance(model, EncoderDecoder)
        source, read, _ = sequences(64, length, torch.Generator().manual_seed(7))
        gap = largest_difference(model, source, read)
        name = "torch.nn.Transformer with these weights scores alike"
        trial.oracle(name, gap < 1e-3, f"difference {gap:.1e}")
        show(trial, courses)
        show_attention(trial, model, source, read)


def size_of(d_model: int = 512, heads: int = 8, d_ff: int = 2048) -> tuple[int, int]:
    """Parameters with 37,000 shared tokens, ours and torch.nn.Transformer's, counted without memory for them."""
    spec = original_transformer(vocab_size=37_000, context_length=512, d_model=d_model, heads=heads, d_ff=d_ff)
    with torch.device("meta"):
        theirs = nn.Transformer(d_model, heads, 6, 6, d_ff, batch_first=True)
        theirs.encoder.norm = theirs.decoder.norm = None  # the paper has none behind its last block
        return parameter_count(spec.build()), parameter_count(theirs) + 37_000 * d_model


def transformer(trial: Trial, length: int, seed: int) -> EncoderDecoder:
    """The paper's model, small; without positions in the ablation."""
    width = trial.by_scale(smoke=32, report=64)
    return original_transformer(
        vocab_size=SYMBOLS + 1,
        context_length=length + 1,
        d_model=width,
        layers=1,
        heads=4,
        d_ff=4 * width,
        positions=None if trial.ablated("positions") else "sinusoidal",
    ).initialize(seed=seed)


def sequences(count: int, length: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Random sources, what the decoder reads, and its targets: the source from its end to its beginning."""
    source = torch.randint(1, SYMBOLS + 1, (count, length), generator=generator)
    target = source.flip(1)
    return source, torch.cat((torch.full((count, 1), OPENING), target[:, :-1]), dim=1), target


def train(trial: Trial, name: str, model: nn.Module, length: int, seed: int) -> ReversalCourse:
    """Trains with Adam, label smoothing and the schedule of section 5."""
    steps = trial.by_scale(smoke=240, report=500)
    schedule = NoamSpec(warmup=steps // 6)
    optimizer = torch.optim.Adam(model.parameters(), betas=(0.9, 0.98), eps=1e-9)
    course, every = ReversalCourse(model), steps // trial.by_scale(smoke=6, report=25)
    test = sequences(TESTED, length, torch.Generator().manual_seed(10**6 + seed))
    for step in range(steps + 1):
        if step % every == 0:
            course.steps.append(step)
            course.exact.append(exact_share(model, *test))
        source, read, target = sequences(BATCH, length, torch.Generator().manual_seed(seed * 10**5 + step))
        loss = cross_entropy(model(source, read).flatten(0, 1), target.flatten(), smoothing=SMOOTHING)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = RATE * schedule.lr_factor(step, steps)
        optimizer.step()
        trial.progress(step / steps, name)
    return course


@torch.no_grad()
def exact_share(model: nn.Module, source: Tensor, read: Tensor, target: Tensor) -> float:
    """The share that greedy decoding gets right: it errs where, given the right past, the likeliest token is wrong."""
    return float((model(source, read).argmax(-1) == target).all(dim=1).float().mean())


def show(trial: Trial, courses: dict[str, list[ReversalCourse]]) -> None:
    series = list[Series]()
    for name, runs in courses.items():
        table = np.array([course.exact for course in runs])
        series.append(Series(name, tuple(runs[0].steps), table.mean(axis=0), table.min(axis=0), table.max(axis=0)))
    trial.plot(title="Reversed without a mistake", x="steps", y="share of unseen sequences", series=series)


def show_attention(trial: Trial, model: EncoderDecoder, source: Tensor, read: Tensor) -> None:
    weights = list[Tensor]()

    def keep(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        weights.append(output)

    hook = model.decoder.blocks[-1].get_submodule("cross.weights").register_forward_hook(keep)
    with torch.no_grad():
        model(source, read)
    hook.remove()
    mean_TS = weights[0].flatten(1, 2).mean(dim=(0, 1))
    labels = tuple(map(str, range(1, source.shape[1] + 1)))
    trial.figure(
        Heat(
            title="Where the decoder looks in the source, mean of its heads",
            values=tuple(map(tuple, mean_TS.tolist())),
            rows=labels,
            columns=labels,
            note="Rows are places of the target, columns of the source: reversing is the falling diagonal.",
        )
    )
