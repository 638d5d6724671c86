"""Karpathy 2022, 2023: nanoGPT's training for a laptop, and the ladder of parts that leads to a GPT."""

from __future__ import annotations

from pydoc_data.topics import topics

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from underhood.core.figures import Series
from underhood.core.runlog import RunLog
from underhood.core.text_files import read_text
from underhood.core.trial import Trial
from underhood.data.batch import Batch
from underhood.models.base import parameter_count
from underhood.models.decoder import Decoder
from underhood.models.gpt2 import gpt2_initialized, gpt2_shaped
from underhood.path.lib.many_gpts import ManyGPTs, ManyGPTsSpec, as_decoder, train_many
from underhood.text.characters import CharacterTokenizer
from underhood.train.loop import fit
from underhood.train.loss import next_token_loss_sum
from underhood.train.nanogpt import CPU_CHARACTERS

WINDOW = 64
SMALL_WINDOW, SMALL_WIDTH, SMALL_BATCH = 8, 32, 32  # the lecture's, before it turns to a GPU
LADDER = {
    "pairs": {"layers": 0, "heads": 0},
    "one head": {"layers": 1, "heads": 1, "feedforward": False, "residual": False, "norm": False},
    "four heads": {"layers": 1, "heads": 4, "feedforward": False, "residual": False, "norm": False},
    "feed-forward": {"layers": 1, "heads": 4, "residual": False, "norm": False},
    "three blocks": {"layers": 3, "heads": 4, "residual": False, "norm": False},
    "residual": {"layers": 3, "heads": 4, "norm": False},
    "layer norm": {"layers": 3, "heads": 4},
}


def run(trial: Trial) -> None:
    path = trial.file("text/tinyshakespeare/input.txt")
    shakespeare = path is not None
    text = read_text(path) if path is not None else "\n".join(topics[name] for name in sorted(topics))
    tokenizer = CharacterTokenizer.from_texts(text)
    ids_N = torch.tensor(tokenizer.encode(text))
    cut = int(0.9 * len(ids_N))
    spec = gpt2_shaped(
        vocab_size=65, context_length=WINDOW, d_model=128, layers=4, heads=4, bias=False, activation="gelu"
    )
    trial.measure("parameters", parameter_count(spec.build()))
    if trial.wants("ladder", "attention", "heads", "residual"):
        ladder(trial, ids_N[:cut], ids_N[cut:], tokenizer.vocab_size)
    if not shakespeare:
        trial.note("Without tiny Shakespeare the ladder reads Python's documentation.")
        trial.skip_claim("cpu", "needs tiny Shakespeare: text/tinyshakespeare/input.txt below --data")
    elif trial.wants("cpu"):
        for seed in trial.each_seed():
            model = train(trial, gpt2_initialized(spec, seed=seed), ids_N[:cut], seed)
            trial.measure("cpu", validation_loss(model, ids_N[cut:]))
            if seed == trial.seeds[0]:
                trial.note(f"A sample: {sample(model, tokenizer)}")


def train(trial: Trial, model: Decoder, ids_N: Tensor, seed: int) -> Decoder:
    """nanoGPT's recipe for a laptop on windows drawn anywhere from the training text."""
    recipe = CPU_CHARACTERS

    def batches(step: int) -> Batch:
        trial.progress(step / recipe.steps, "nanoGPT's training")
        draw = torch.Generator().manual_seed(seed * 1_000_003 + step)
        rows = windows(ids_N, recipe.batch_size, WINDOW, draw)
        return Batch(rows[:, :-1], rows[:, 1:])

    optimizer = recipe.optimizer.build(model)
    fit(model, batches, next_token_loss_sum, optimizer, recipe.fit, stage="pretrain", log=RunLog(None))
    return model.eval()


def windows(ids_N: Tensor, count: int, length: int, draw: torch.Generator) -> Tensor:
    starts_B1 = torch.randint(len(ids_N) - length, (count, 1), generator=draw)
    return ids_N[starts_B1 + torch.arange(length + 1)]


@torch.no_grad()
def validation_loss(model: Decoder, ids_N: Tensor) -> float:
    """Mean loss over all of the validation text, in windows side by side; nanoGPT draws 240 such windows from it."""
    count = (len(ids_N) - 1) // WINDOW
    inputs = ids_N[: count * WINDOW].view(count, WINDOW).split(128)
    targets = ids_N[1 : count * WINDOW + 1].view(count, WINDOW).split(128)
    total = sum(next_token_loss_sum(model, Batch(x, y))[0].item() for x, y in zip(inputs, targets, strict=True))
    return total / (count * WINDOW)


@torch.no_grad()
def sample(model: Decoder, tokenizer: CharacterTokenizer, length: int = 160) -> str:
    """Drawn letter by letter from the model's own distribution."""
    draw, ids = torch.Generator().manual_seed(0), tokenizer.encode("\n")
    while len(ids) < length:
        probabilities = model(torch.tensor([ids[-WINDOW:]]))[0, -1].softmax(dim=-1)
        ids.append(int(torch.multinomial(probabilities, 1, generator=draw)))
    return " / ".join(" ".join(tokenizer.decode(ids).split("\n")).split("  ")).strip()


def ladder(trial: Trial, train_N: Tensor, held_N: Tensor, kinds: int) -> None:
    """The lecture's ladder: each rung adds a part; all seeds of a rung are trained at once."""
    needed = {"pairs", "one head", "layer norm"} if trial.scale == "smoke" else set(LADDER)
    needed = {"pairs", "layer norm"} if trial.is_ablation else needed
    losses: dict[str, np.ndarray] = {}
    for name, parts in trial.each([(name, parts) for name, parts in LADDER.items() if name in needed], "rung"):
        heads = 0 if trial.ablated("attention") else parts["heads"]
        spec = ManyGPTsSpec(outputs=kinds, context=SMALL_WINDOW, width=SMALL_WIDTH, **parts | {"heads": heads})
        models = ManyGPTs(spec, trial.seeds)
        losses[name] = climb(trial, models, train_N, held_N)
        if name == "layer norm" and not trial.is_ablation:
            tokens_SBT = torch.stack([windows(held_N, 4, SMALL_WINDOW - 1, torch.Generator())] * models.count)
            with torch.no_grad():
                gap = float((models(tokens_SBT)[1] - as_decoder(models, 1)(tokens_SBT[1])).abs().max())
            trial.oracle("The library's decoder with the same weights gives the same scores", gap < 1e-4, f"{gap:.1e}")
    for key, worse, better in (
        ("ladder", "pairs", "layer norm"),
        ("attention", "pairs", "one head"),
        ("heads", "one head", "four heads"),
        ("residual", "three blocks", "residual"),
    ):
        if trial.wants(key) and better in losses and worse in losses:
            for gain in losses[worse] - losses[better]:
                trial.measure(key, gain)
    if not trial.is_ablation:
        table = np.array(list(losses.values()))
        series = [Series("loss", tuple(range(len(losses))), table.mean(1), table.min(1), table.max(1))]
        trial.plot(
            title="What each part adds",
            x="",
            y="validation loss, nats per character",
            series=series,
            kind="bars",
            names=tuple(losses),
        )


def climb(trial: Trial, models: ManyGPTs, train_N: Tensor, held_N: Tensor) -> np.ndarray:
    """Trains a rung; the validation loss of each seed."""
    steps = trial.by_scale(smoke=250, report=1500)

    def nats(rows_SBT: Tensor) -> Tensor:
        logits = models(rows_SBT[..., :-1])
        return F.cross_entropy(logits.flatten(0, 2), rows_SBT[..., 1:].flatten(), reduction="none").view(
            models.count, -1
        )

    def loss(step: int) -> Tensor:
        draws = [torch.Generator().manual_seed(seed * 1_000_003 + step) for seed in trial.seeds]
        return nats(torch.stack([windows(train_N, SMALL_BATCH, SMALL_WINDOW, draw) for draw in draws])).mean(1)

    train_many(models, loss, steps=steps, lr=trial.by_scale(smoke=1e-2, report=3e-3), tell=trial.progress)
    rows = windows(held_N, trial.by_scale(smoke=1000, report=4000), SMALL_WINDOW, torch.Generator().manual_seed(1))
    with torch.no_grad():
        return nats(rows.expand(models.count, -1, -1)).mean(1).numpy()
