"""Radford et al. 2019, Karpathy 2024: zero-shot tasks by size, GPT-2's counts, its first weights and first steps."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from underhood.core.figures import Series
from underhood.core.text_files import read_text
from underhood.core.trial import Trial
from underhood.data.batch import Batch
from underhood.models.decoder import Decoder
from underhood.models.gpt2 import gpt2_initialized, gpt2_shaped, padded_vocabulary
from underhood.models.presets import count_parameters, preset
from underhood.path.lib.cued_tasks import ASKED, CUES, SENTENCE, VOCABULARY, corpus_rows, task_sentences, translation
from underhood.path.lib.many_gpts import ManyGPTs, ManyGPTsSpec, train_many
from underhood.path.lib.residual_streams import residual_streams
from underhood.text.bpe import BytePairTokenizer
from underhood.train.loss import next_token_loss_sum
from underhood.train.nanogpt import NanoGPTRecipe
from underhood.train.optim import scale_lr

COUNTED = {"small": "gpt2", "medium": "gpt2-medium", "large": "gpt2-large", "xl": "gpt2-xl"}
SIZES = {"width 8": (8, 1), "width 16": (16, 1), "width 32": (32, 2), "width 64": (64, 2)}
DEPTHS = (4, 32)


def run(trial: Trial) -> None:
    for key, name in COUNTED.items():
        if trial.wants(key):
            trial.measure(key, count_parameters(preset(name))[0])
    if trial.wants("zero_shot", "sizes", "order"):
        ask_without_examples(trial)
    for seed in trial.each_seed():
        if trial.wants("even"):
            scaled = not trial.ablated("scale")
            trial.measure("even", written_size(DEPTHS[1], seed, scaled) / written_size(DEPTHS[0], seed, scaled))
        if trial.wants("uneven"):
            trial.measure("uneven", written_size(DEPTHS[1], seed, False) / written_size(DEPTHS[0], seed, False))
        if trial.wants("accumulated"):
            trial.measure("accumulated", accumulation_gap(seed))
    if trial.wants("first_loss", "falls") and trial.scale == "report":
        first_steps(trial)


def ask_without_examples(trial: Trial) -> None:
    """Exact answers to unseen prompts, for models of several sizes that were trained on plain text with tasks in it."""
    french_W, tasks, rights = translation(0), not trial.ablated("passages"), dict[str, np.ndarray]()
    names = list(SIZES) if trial.scale == "report" else ["width 16", "width 64"]
    shapes = {name: SIZES[name] for name in (names[-1:] if trial.is_ablation else names)}
    draw = torch.Generator().manual_seed(10**9)
    prompts = [task_sentences(200, draw, french_W, held_out=True, cue=cue) for cue in range(len(CUES))]
    by_cue, counts = dict[str, list[float]](), list[int]()
    for name, (width, layers) in trial.each(shapes.items(), "size"):
        spec = ManyGPTsSpec(outputs=VOCABULARY, context=SENTENCE, width=width, layers=layers, heads=4)
        models = ManyGPTs(spec, trial.seeds)

        def loss(step: int, models: ManyGPTs = models) -> Tensor:
            draws = [torch.Generator().manual_seed(seed * 1_000_003 + step) for seed in trial.seeds]
            rows = torch.stack([corpus_rows(32, draw, french_W, tasks=tasks) for draw in draws])
            nats = F.cross_entropy(models(rows[..., :-1]).flatten(0, 2), rows[..., 1:].flatten(), reduction="none")
            return nats.view(models.count, -1).mean(dim=1)

        train_many(models, loss, steps=trial.by_scale(smoke=110, report=250), lr=0.02, tell=trial.progress)
        right_CS = np.stack([exact(models, rows) for rows in prompts])
        rights[name], by_cue[name] = right_CS.mean(axis=0), right_CS.mean(axis=1).tolist()
        counts.append(spec.parameters)
    values = np.stack(list(rights.values()))
    for number in range(len(trial.seeds)):
        trial.measure("zero_shot", values[-1, number])
        if not trial.is_ablation:
            trial.measure("sizes", values[-1, number] - values[0, number])
            trial.measure("order", float(np.corrcoef(np.log(counts), values[:, number])[0, 1]))
    if not trial.is_ablation:
        series = [Series("mean of three tasks", tuple(counts), values.mean(1), values.min(1), values.max(1))]
        series += [
            Series(cue, tuple(counts), tuple(by_cue[name][at] for name in rights)) for at, cue in enumerate(CUES)
        ]
        trial.plot(title="Tasks nobody trained it for", x="parameters", y="exactly right", series=series, log_x=True)


@torch.no_grad()
def exact(models: ManyGPTs, rows_NT: Tensor) -> np.ndarray:
    """Share of prompts whose three answer words are all the likeliest ones, for each model."""
    best_SNT = models(rows_NT.expand(models.count, -1, -1)).argmax(dim=-1)
    right = (best_SNT[..., ASKED : 2 * ASKED] == rows_NT[:, ASKED + 1 : 2 * ASKED + 1]).all(dim=-1)
    return right.float().mean(dim=1).numpy()


def written_size(layers: int, seed: int, scaled: bool) -> float:
    """Standard deviation of what all blocks of a fresh GPT have added to the stream together."""
    spec = gpt2_shaped(vocab_size=512, context_length=32, d_model=128, layers=layers, heads=4)
    model = gpt2_initialized(spec, seed=seed, scale_residual=scaled)
    tokens = torch.randint(512, (4, 32), generator=torch.Generator().manual_seed(seed))
    streams = residual_streams(model, tokens)
    return float((streams[-1] - streams[0]).std())


def accumulation_gap(seed: int) -> float:
    """Largest difference between the gradients of one batch and of its four quarters, by the largest gradient."""
    spec = gpt2_shaped(vocab_size=256, context_length=32, d_model=64, layers=2, heads=4)
    rows = torch.randint(256, (64, 33), generator=torch.Generator().manual_seed(seed))
    gradients = []
    for pieces in (1, 4):
        model = gpt2_initialized(spec, seed=seed)
        for piece in rows.chunk(pieces):
            loss, _ = next_token_loss_sum(model, Batch(piece[:, :-1], piece[:, 1:]))
            (loss / (64 * 32)).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    return float((gradients[0] - gradients[1]).abs().max() / gradients[0].abs().max())


def first_steps(trial: Trial) -> None:
    """The 124-million model on Shakespeare in GPT-2's own tokens: its first loss, and eight updates of the recipe."""
    path = trial.file("text/tinyshakespeare/input.txt")
    files = [trial.file(f"tokenizers/gpt2/{name}") for name in ("encoder.json", "vocab.bpe")]
    if path is None or files[0] is None or files[1] is None:
        for key in ("first_loss", "falls"):
            trial.skip_claim(key, "needs text/tinyshakespeare/input.txt and tokenizers/gpt2 below --data")
        return
    ids_N = torch.tensor(BytePairTokenizer.from_gpt2_files(files[0], files[1]).encode(read_text(path)[:200_000]))
    rows_NT = ids_N[: len(ids_N) // 129 * 129].view(-1, 129)
    steps, vocab_size = 8, padded_vocabulary(50_257)
    spec = gpt2_shaped(vocab_size=vocab_size, context_length=1024, d_model=768, layers=12, heads=12)
    recipe = NanoGPTRecipe(steps=steps, batch_size=2, warmup=3)
    curves: list[list[float]] = []
    for seed in trial.each_seed():
        model = gpt2_initialized(spec, seed=seed)
        optimizer, curve = recipe.optimizer.build(model), [loss_on(model, rows_NT[-4:])]
        for step in range(steps):
            rows = rows_NT[torch.randint(len(rows_NT) - 4, (2,), generator=torch.Generator().manual_seed(step))]
            loss, _ = next_token_loss_sum(model, Batch(rows[:, :-1], rows[:, 1:]))
            (loss / rows[:, 1:].numel()).backward()
            nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
            scale_lr(optimizer, recipe.fit.schedule.lr_factor(step, steps))
            optimizer.step()
            optimizer.zero_grad()
            curve.append(loss_on(model, rows_NT[-4:]))
            trial.progress(step / steps, "124 million parameters")
        trial.measure("first_loss", curve[0])
        trial.measure("falls", curve[0] - curve[-1])
        curves.append(curve)
    table = np.array(curves)
    trial.plot(
        title="The first eight updates of GPT-2",
        x="updates",
        y="nats per token, other text",
        series=[Series("GPT-2 124M", tuple(range(steps + 1)), table.mean(0), table.min(0), table.max(0))],
        levels=((math.log(50_257), "ln 50,257"),),
    )


@torch.no_grad()
def loss_on(model: Decoder, rows_NT: Tensor) -> float:
    total, _ = next_token_loss_sum(model, Batch(rows_NT[:, :-1], rows_NT[:, 1:]))
    return float(total) / rows_NT[:, 1:].numel()
