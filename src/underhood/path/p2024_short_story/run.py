"""Raschka 2024, chapter 5: the loss before training in closed form, and a story that is learnt by heart."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from underhood.core.figures import Series
from underhood.core.text_files import read_text
from underhood.core.trial import Trial
from underhood.data.letters import plain_english
from underhood.infer.generate import generate
from underhood.models.decoder import Decoder
from underhood.path.lib.default_start import default_start, raschka_shaped, smaller
from underhood.path.lib.verbatim import copied_share, longest_copy
from underhood.text.bpe import BytePairTokenizer, train_bpe
from underhood.train.optim import MuonAdamWSpec, scale_lr

STORY, VOCABULARY = "text/books/the-verdict.txt", "tokenizers/gpt2"
LEARNT = ("closed_form", "gap", "turn", "copied", "best")
PRINTED = (10.987583054436577, 10.98110580444336)
EXAMPLES = ([16833, 3626, 6100], [40, 1107, 588])
ANSWERS = ([3626, 6100, 345], [1107, 588, 11311])
TOKENS, CONTEXT, RUN = 384, 64, 30


@dataclass
class StoryCourse:
    """How training went: steps and losses, and what it wrote at the lowest held-out loss and at the end."""

    steps: list[int] = field(default_factory=list)
    learnt: list[float] = field(default_factory=list)
    held_out: list[float] = field(default_factory=list)
    best_text: str = ""
    end_text: str = ""


def run(trial: Trial) -> None:
    story = trial.file(STORY)
    if story is None:
        for key in ("first_losses", "six_tokens", *LEARNT):
            trial.skip_claim(key, f"needs {STORY} below --data")
        return
    text = read_text(story)
    if trial.wants("first_losses"):
        first_losses(trial, text)
    kept, held = text[: trial.by_scale(smoke=2000, report=10_000)], text[int(0.9 * len(text)) :]
    courses = []
    for seed in trial.each_seed():
        courses.append(course := learn(trial, kept, held, seed))
        if trial.wants("closed_form"):
            trial.measure("closed_form", untrained_excess(text, seed))
        trial.measure("gap", course.held_out[-1] - course.learnt[-1])
        if trial.wants("turn"):
            trial.measure("turn", course.held_out[-1] - min(course.held_out))
        if trial.wants("copied"):
            trial.measure("copied", copied_share(course.end_text, kept, run=RUN))
            trial.measure("best", copied_share(course.best_text, kept, run=RUN))
    if not trial.is_ablation:
        show(trial, courses, kept)


def first_losses(trial: Trial, text: str) -> None:
    """The chapter's own model on the chapter's own windows, before any training."""
    encoder, merges = trial.file(f"{VOCABULARY}/encoder.json"), trial.file(f"{VOCABULARY}/vocab.bpe")
    if encoder is None or merges is None:
        for key in ("first_losses", "six_tokens"):
            trial.skip_claim(key, f"needs {VOCABULARY} below --data")
        return
    gpt2 = BytePairTokenizer.from_gpt2_files(encoder, merges)
    model = default_start(raschka_shaped(context_length=256))
    cut = int(0.9 * len(text))
    means = []
    for piece in (text[:cut], text[cut:]):
        windows_NT = torch.tensor(gpt2.encode(piece)).unfold(0, 257, 256)
        means.append(
            sum(nats(model, windows_NT[n : n + 2]) for n in range(0, len(windows_NT), 2)) / len(windows_NT) * 2
        )
    trial.measure("first_losses", max(abs(a - b) for a, b in zip(means, PRINTED, strict=True)))
    with torch.no_grad():
        logits = model(torch.tensor(EXAMPLES)).flatten(0, 1)
    trial.measure("six_tokens", abs(float(F.cross_entropy(logits, torch.tensor(ANSWERS).flatten())) - 10.7940))
    trial.note(f"Before training: {means[0]:.5f} on the story and {means[1]:.5f} on the held-out tenth.")


def untrained_excess(text: str, seed: int) -> float:
    """What a wider model loses on the whole story before training, less ln V + 1/6; narrow ones vary with the seed."""
    tokenizer = train_bpe([text], vocab_size=512)
    spec = smaller(raschka_shaped(context_length=CONTEXT), vocab_size=512, d_model=192, layers=1, heads=4)
    windows_NT = torch.tensor(tokenizer.encode(text)).unfold(0, CONTEXT + 1, CONTEXT)
    return nats(default_start(spec, seed=seed), windows_NT) - math.log(512) - 1 / 6


def learn(trial: Trial, text: str, held_text: str, seed: int) -> StoryCourse:
    """Trains a small GPT on the text; watches its loss there and on what was held out, and what it writes."""
    tokenizer = train_bpe([text], vocab_size=TOKENS)
    kept, held = (torch.tensor(tokenizer.encode(piece)) for piece in (text, held_text))
    source = kept
    if trial.ablated("once"):
        source = torch.tensor(tokenizer.encode(" ".join(plain_english(only_topics=True)[0])))
    width, layers, heads = trial.by_scale(smoke=(64, 2, 4), report=(96, 3, 4))
    spec = smaller(raschka_shaped(context_length=CONTEXT), vocab_size=TOKENS, d_model=width, layers=layers, heads=heads)
    model = default_start(spec, seed=seed)
    held_NT, kept_NT = held.unfold(0, CONTEXT + 1, CONTEXT), kept.unfold(0, CONTEXT + 1, CONTEXT)
    course, steps, batch = StoryCourse(), trial.by_scale(smoke=60, report=400), trial.by_scale(smoke=8, report=16)
    every, optimizer = steps // 10, MuonAdamWSpec(matrix_lr=0.03, lr=0.01).build(model)
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps + 1):
        if step == steps or (step % every == 0 and not trial.is_ablation):
            trial.progress(step / steps, "steps")
            course.steps.append(step)
            course.learnt.append(nats(model, kept_NT))
            course.held_out.append(nats(model, held_NT))
            if trial.wants("copied") and course.held_out[-1] == min(course.held_out) and step:
                course.best_text = written(model, tokenizer, held_NT)
        if step < steps:
            starts_B1 = torch.randint(len(source) - CONTEXT, (batch, 1), generator=generator)
            rows_BT = source[starts_B1 + torch.arange(CONTEXT + 1)]
            train(model, optimizer, rows_BT, min(1.0, 2 * (1 - step / steps)))
    if trial.wants("copied"):
        course.end_text = written(model, tokenizer, held_NT)
    return course


def train(model: Decoder, optimizer: torch.optim.Optimizer, rows_BT: Tensor, factor: float) -> None:
    """One step on windows from anywhere in the text."""
    loss = F.cross_entropy(model(rows_BT[:, :-1]).flatten(0, 1), rows_BT[:, 1:].flatten())
    optimizer.zero_grad()
    loss.backward()
    scale_lr(optimizer, factor)
    optimizer.step()


@torch.no_grad()
def nats(model: Decoder, rows_NT: Tensor) -> float:
    """Mean cross-entropy of each row's next tokens."""
    return float(F.cross_entropy(model(rows_NT[:, :-1]).flatten(0, 1), rows_NT[:, 1:].flatten()))


def written(model: Decoder, tokenizer: BytePairTokenizer, held_NT: Tensor) -> str:
    """What the model writes greedily after four beginnings that it never read."""
    prompts = [row[:4].tolist() for row in held_NT[:4]]
    room = CONTEXT - 4
    return "\n".join(tokenizer.decode(done.ids) for done in generate(model, prompts, max_new_tokens=room))


def show(trial: Trial, courses: list[StoryCourse], text: str) -> None:
    series = []
    for name in ("learnt", "held_out"):
        table = torch.tensor([getattr(course, name) for course in courses])
        middle, low, high = (tuple(x.tolist()) for x in (table.mean(0), table.amin(0), table.amax(0)))
        label = {"learnt": "the story", "held_out": "its last tenth, held out"}[name]
        series.append(Series(label, tuple(map(float, courses[0].steps)), middle, low, high))
    trial.plot(title="One story, read again and again", x="step", y="loss, nats per token", series=series)
    if trial.wants("copied"):
        trial.note(f"Longest copy at the end: “{' '.join(longest_copy(courses[0].end_text, text).split())}”")
