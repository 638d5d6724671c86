"""Time to loss on tinyshakespeare's characters: our recipe against a plain GPT of no fewer parameters.

    python benchmarks/bench_time_to_loss.py --seeds 3
    python benchmarks/bench_time_to_loss.py --quick        # a tenth of every run: does it work at all?

For each seed, in turns on the same machine with the same threads:

1. the plain GPT (`plain_gpt.py`) trains for its 2,000 steps; its full-validation loss at the end is the target;
2. our *sprint*, whose length and schedule are fixed below, trains to its end. Evaluations are at fixed steps; its
   time to loss is the training time at the first one at or below the target (none: the run has failed, and says so);
3. our *equal-time* run gets as many steps as a short probe of its speed fits into the plain GPT's training time.

Time is wall time of training, evaluation excluded, model and optimiser set-up excluded, for both. Full validation is
nanoGPT's: all non-overlapping windows of 64 characters of the last 10 % of the text, mean loss in nats per character.
Both read batches of 12 rows of 64 characters, drawn alike. All figures are fp32 models; our Muon orthogonalises in
bfloat16, as its authors do.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from harness import machine, options_from_command_line, print_json
from plain_gpt import PlainConfig, PlainGPT, make_optimizer, train_step
from underhood.core.config import to_json
from underhood.core.runlog import RunLog
from underhood.data.batch import Batch
from underhood.models.base import parameter_count
from underhood.models.decoder import DecoderSpec
from underhood.nn.attention import AttentionSpec
from underhood.nn.block import BlockSpec
from underhood.nn.convolution import ShortConvolutionSpec
from underhood.nn.feedforward import MLPSpec
from underhood.nn.norm import RMSNormSpec
from underhood.train.loop import FitSpec, fit
from underhood.train.loss import next_token_loss_sum
from underhood.train.optim import MuonAdamWSpec
from underhood.train.schedule import ScheduleSpec

CONTEXT, ROWS = 64, 12
TEXT = Path(__file__).resolve().parents[2] / "shared/data/text/tinyshakespeare/input.txt"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A model and how it is trained."""

    model: DecoderSpec
    optimizer: MuonAdamWSpec
    schedule: ScheduleSpec


def layers(*mixers: ShortConvolutionSpec | AttentionSpec, d_model: int, d_ff: int) -> DecoderSpec:
    """A decoder with one layer per mixer, ReLU² feed-forwards, nothing tied."""
    feedforward = MLPSpec(d_ff=d_ff, activation="relu2", bias=False)
    blocks = tuple(BlockSpec(mixer=mixer, feedforward=feedforward) for mixer in mixers)
    return DecoderSpec(vocab_size=65, context_length=CONTEXT, d_model=d_model, layers=len(blocks), blocks=blocks)


NEAR = ShortConvolutionSpec(taps=4)
FAR = AttentionSpec(heads=2, qk_norm=RMSNormSpec())
MUON = MuonAdamWSpec(matrix_lr=0.03, lr=0.005, momentum=0.9, newton_schulz_dtype="bfloat16")

SPRINT = Recipe(
    model=layers(NEAR, FAR, d_model=128, d_ff=512), optimizer=MUON, schedule=ScheduleSpec(warmup=0.02, decay=0.6)
)
SPRINT_STEPS = 280
SPRINT_EVALUATIONS = (220, 230, 240, 250, 260, 270, 280)

EQUAL_TIME = Recipe(
    model=layers(NEAR, FAR, NEAR, FAR, d_model=128, d_ff=512),
    optimizer=MUON,
    schedule=ScheduleSpec(warmup=0.02, decay=0.7),
)


@dataclass(frozen=True, kw_only=True)
class Options:
    """How often and how long.

    Attributes:
        seeds: independent repeats, from seed 0.
        quick: a tenth of all steps and an eighth of the validation text, for a smoke test; proves nothing.
        sprint_only: leaves out the equal-time run.
        text: the corpus; its last tenth is the validation text.
    """

    seeds: int = 3
    quick: bool = False
    sprint_only: bool = False
    threads: int = 2
    text: Path = TEXT


class Characters:
    """The text as numbers, batches drawn from its first nine tenths, and the loss on all the rest."""

    def __init__(self, path: Path, share: float = 1.0):
        text = path.read_text(encoding="utf-8")
        symbols = {symbol: number for number, symbol in enumerate(sorted(set(text)))}
        ids = torch.tensor([symbols[symbol] for symbol in text])
        cut = int(0.9 * len(ids))
        self.train, held_out = ids[:cut], ids[cut:]
        windows = int(share * ((len(held_out) - 1) // CONTEXT))
        self.inputs = held_out[: windows * CONTEXT].view(windows, CONTEXT)
        self.targets = held_out[1 : windows * CONTEXT + 1].view(windows, CONTEXT)

    def batch(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        start_B1 = torch.randint(len(self.train) - CONTEXT, (ROWS, 1), generator=generator)
        rows = self.train[start_B1 + torch.arange(CONTEXT + 1)]
        return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()

    @torch.no_grad()
    def validation(self, model: Callable[[Tensor], Tensor]) -> float:
        total = 0.0
        for inputs, targets in zip(self.inputs.split(128), self.targets.split(128), strict=True):
            total += F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten(), reduction="sum").item()
        return total / self.targets.numel()


def train_plain(data: Characters, config: PlainConfig, seed: int) -> tuple[float, float, int]:
    """Final validation loss, training seconds and parameters of the yardstick."""
    torch.manual_seed(seed)
    model = PlainGPT(config)
    optimizer = make_optimizer(model, config)
    generator = torch.Generator().manual_seed(1000 + seed)
    started = time.perf_counter()
    for step in range(config.steps):
        train_step(model, optimizer, config, step, *data.batch(generator))
    seconds = time.perf_counter() - started
    return data.validation(model), seconds, parameter_count(model)


def train_ours(
    data: Characters, recipe: Recipe, steps: int, seed: int, evaluations: tuple[int, ...]
) -> list[tuple[int, float, float]]:
    """(step, training seconds so far, validation loss) at each evaluation."""
    model = recipe.model.initialize(seed=seed)
    generator = torch.Generator().manual_seed(1000 + seed)
    seen: list[tuple[int, float, float]] = []
    evaluating = 0.0

    def batches(_: int) -> Batch:
        return Batch(*data.batch(generator))

    def on_step(done: int) -> None:
        nonlocal evaluating
        if done in evaluations:
            now = time.perf_counter()
            seen.append((done, now - started - evaluating, data.validation(model)))
            evaluating += time.perf_counter() - now

    optimizer = recipe.optimizer.build(model)
    spec = FitSpec(steps=steps, schedule=recipe.schedule, log_every=steps)
    started = time.perf_counter()
    fit(model, batches, next_token_loss_sum, optimizer, spec, stage="sprint", log=RunLog(None), on_step=on_step)
    return seen


def seconds_per_step(data: Characters, recipe: Recipe, steps: int) -> float:
    train_ours(data, recipe, 3, 0, (3,))
    return train_ours(data, recipe, steps, 0, (steps,))[0][1] / steps


def mean_spread(values: list[float]) -> dict[str, Any]:
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "sd": deviation, "runs": values}


def run_seed(data: Characters, config: PlainConfig, seed: int, options: Options) -> dict[str, Any]:
    shrink = 10 if options.quick else 1
    target, plain_seconds, plain_parameters = train_plain(data, config, seed)
    evaluations = tuple(step // shrink for step in SPRINT_EVALUATIONS)
    sprint = train_ours(data, SPRINT, SPRINT_STEPS // shrink, seed, evaluations)
    reached = next(((step, seconds) for step, seconds, loss in sprint if loss <= target), None)
    row: dict[str, Any] = {
        "seed": seed,
        "plain_loss": target,
        "plain_seconds": plain_seconds,
        "plain_parameters": plain_parameters,
        "sprint": sprint,
        "reached_step": reached[0] if reached else None,
        "reached_seconds": reached[1] if reached else None,
        "ratio": plain_seconds / reached[1] if reached else None,
    }
    there = f"there after {reached[1]:.1f} s (×{row['ratio']:.1f})" if reached else "never got there"
    line = f"seed {seed}: plain {target:.4f} in {plain_seconds:.1f} s · sprint {there}, {sprint[-1][2]:.4f} at its end"
    if not options.sprint_only:
        steps = max(20, int(plain_seconds / seconds_per_step(data, EQUAL_TIME, 40 // shrink)))
        [(_, seconds, loss)] = train_ours(data, EQUAL_TIME, steps, seed, (steps,))
        row |= {"equal_time_steps": steps, "equal_time_seconds": seconds, "equal_time_loss": loss}
        row["nats_gained"] = target - loss
        line += f" · equal time {loss:.4f} in {seconds:.1f} s (−{target - loss:.3f})"
    print(line, flush=True)
    return row


def main(options: Options) -> None:
    torch.set_num_threads(options.threads)
    data = Characters(options.text, share=1 / 8 if options.quick else 1.0)
    config = PlainConfig(vocab_size=65, steps=200, warmup=10) if options.quick else PlainConfig(vocab_size=65)
    rows = [run_seed(data, config, seed, options) for seed in range(options.seeds)]
    counts = {
        "plain": rows[0]["plain_parameters"],
        "sprint": parameter_count(SPRINT.model.build()),
        "equal_time": parameter_count(EQUAL_TIME.model.build()),
    }
    assert max(counts.values()) == counts["plain"], counts
    results: dict[str, Any] = {"parameters": counts, "seeds": options.seeds, "threads": options.threads, "runs": rows}
    if all(row["ratio"] for row in rows):
        results["time_ratio"] = mean_spread([row["ratio"] for row in rows])
    if not options.sprint_only:
        results["nats_gained"] = mean_spread([row["nats_gained"] for row in rows])
        results["equal_time_share"] = mean_spread([row["equal_time_seconds"] / row["plain_seconds"] for row in rows])
    for name in ("time_ratio", "nats_gained"):
        if name in results:
            actual, goal = results[name], {"time_ratio": 6.0, "nats_gained": 0.25}[name]
            spread = "" if actual["sd"] is None else f" ± {actual['sd']:.3f}"
            print(f"{name}: {actual['mean']:.3f}{spread} (wanted: at least {goal})")
    recipes = {"sprint": SPRINT, "equal_time": EQUAL_TIME}
    settings = {
        name: {"model": to_json(recipe.model), "optimizer": to_json(recipe.optimizer)}
        for name, recipe in recipes.items()
    }
    print_json("time_to_loss", results, quick=options.quick, recipes=settings, **machine("torch"))


if __name__ == "__main__":
    main(options_from_command_line(Options))
