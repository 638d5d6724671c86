"""Gold reward against KL: six ways of alignment where the true reward of every answer is known.

Each seed has its own start; each method trains a copy of it, and is measured by the gold reward, which
in the world of reviews no method sees. Points of a curve are taken along a training. Intervals are over seeds and
questions (bootstrap, 95 %); differences are paired by question.

    python benchmarks/bench_gold_frontier.py --world arithmetic [--seeds 3] [--first-seed 100] [--picture FILE.svg]
    python benchmarks/bench_gold_frontier.py --world documentation --run runs/pydocs

`arithmetic`: sums of two-digit numbers, exact match; beside the six methods GRPO's other normalisers, RLOO, random
rewards, and supervised fine-tuning with GRPO's compute. `reviews`: a made-up language, a noisy judge, a reward model.
`documentation`: questions about functions that a finished run was not trained on; all seeds begin with its model.
"""

from __future__ import annotations

import math
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch

from harness import machine, options_from_command_line, print_json
from underhood.core.figures import Plot
from underhood.path.lib.documentation_world import DocumentationLab
from underhood.path.lib.gold_frontier import ArmResult, mean_curves
from underhood.path.lib.review_frontier import ReviewLab
from underhood.path.lib.sums_world import SumsLab
from underhood.path.lib.win_rates import bootstrap
from underhood.ui.plot_file import plot_svg

WORLDS = {"arithmetic": SumsLab, "reviews": ReviewLab, "documentation": DocumentationLab}
TITLES = {
    "arithmetic": "Sums: right answers against distance from the start",
    "reviews": "Reviews: gold reward against distance from the start",
    "documentation": "Answers about functions: gold reward against distance from the start",
}


@dataclass(frozen=True)
class Options:
    """Gold reward against KL."""

    world: Literal["arithmetic", "reviews", "documentation"] = "arithmetic"
    """What is asked."""

    run: Path = Path("runs/pydocs")
    """A finished run, for the documentation."""

    seeds: int = 3
    """Starts, each with data of its own."""

    first_seed: int = 100
    """Settings were chosen on seeds below 100."""

    workers: int = 2
    """Processes, each with one thread."""

    picture: Path | None = None
    """Writes the plot as an SVG file."""


def lab_of(world: str, seed: int, run: Path) -> Any:
    return DocumentationLab(run, seed) if world == "documentation" else WORLDS[world](seed)


@cache
def start_of(world: str, seed: int, run: Path) -> tuple[Any, tuple[list[float], list[float]]]:
    """A seed's start and its gold rewards; every process makes its own, which is the same."""
    torch.set_num_threads(1)
    lab = lab_of(world, seed, run)
    start = lab.start()
    return start, lab.measured(start)


def arm_of(world: str, seed: int, run: Path, arm: str) -> tuple[ArmResult, float]:
    start, _ = start_of(world, seed, run)
    began = time.process_time()
    return lab_of(world, seed, run).aligned(start, arm), time.process_time() - began


def change(after: list[list[float]], before: list[list[float]]) -> dict[str, Any]:
    """Mean after, and the mean paired difference with its interval."""
    after_SN, before_SN = ([torch.tensor(values) for values in table] for table in (after, before))
    difference_SN = [a - b for a, b in zip(after_SN, before_SN, strict=True)]
    low, high = bootstrap(difference_SN)
    seeds = [float(d.mean()) for d in difference_SN]
    return {"mean": float(torch.cat(after_SN).mean()), "change": sum(seeds) / len(seeds),
            "low": low, "high": high, "seeds": seeds}  # fmt: skip


def main() -> None:
    options = options_from_command_line(Options)
    lab, seeds = WORLDS[options.world], range(options.first_seed, options.first_seed + options.seeds)
    results: dict[str, list[ArmResult]] = {}
    seconds: dict[str, float] = {}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.workers, mp_context=context) as pool:
        starts = [
            future.result()[1] for future in [pool.submit(start_of, options.world, seed, options.run) for seed in seeds]
        ]
        jobs = {(s, arm): pool.submit(arm_of, options.world, s, options.run, arm) for s in seeds for arm in lab.arms}
        for arm in lab.arms:
            done = [jobs[seed, arm].result() for seed in seeds]
            results[arm] = [result for result, _ in done]
            seconds[arm] = sum(used for _, used in done) / len(done)
            print(f"{arm}: {seconds[arm]:.1f} s of a core each", file=sys.stderr, flush=True)

    table: dict[str, Any] = {}
    start_gold, start_greedy = ([list(each[n]) for each in starts] for n in (0, 1))
    print(f"\n{'method':<34} {'KL':>6} {'gold':>6}  change (95 % interval)     greedy")
    print(f"{'start':<34} {0:6.2f} {torch.tensor(start_gold).mean():6.3f}  {'':<24} "
          + (f"{torch.tensor(start_greedy).mean():6.3f}" if start_greedy[0] else ""))  # fmt: skip
    for arm, runs in results.items():
        kl = sum(run.curve[-1].kl for run in runs) / len(runs) if runs[0].curve else None
        entry: dict[str, Any] = {"kl": kl, "cpu_seconds": round(seconds[arm], 1)}
        if runs[0].gold_N:
            entry["gold"] = change([run.gold_N for run in runs], start_gold)
        else:
            entry["gold"] = {"mean": sum(run.curve[-1].gold for run in runs) / len(runs)}
        if runs[0].greedy_N:
            entry["greedy"] = change([run.greedy_N for run in runs], start_greedy)
        entry["curves"] = [[known(asdict(point)) for point in run.curve] for run in runs]
        table[arm] = entry
        print(row(arm, entry))
    drawn = [{arm: runs[s].curve for arm, runs in results.items() if runs[s].curve} for s in range(len(seeds))]
    plot = Plot(
        title=TITLES[options.world],
        x="KL from the start, nats per answer",
        y="gold reward",
        series=tuple(series for series in mean_curves(drawn) if series.name in ReviewLab.arms),
    )
    if options.picture is not None:
        options.picture.write_text(plot_svg(plot), encoding="utf-8")
    start = {"gold": float(torch.tensor(start_gold).mean())}
    start |= {"greedy": float(torch.tensor(start_greedy).mean())} if start_greedy[0] else {}
    facts = {"machine": machine("torch"), "world": options.world, "seeds": [*seeds]}
    print_json("bench_gold_frontier", {"start": start, "methods": table}, **facts)


def known(point: dict[str, float]) -> dict[str, float]:
    """The numbers of a point that were measured; JSON has no NaN."""
    return {name: value for name, value in point.items() if not math.isnan(value)}


def row(arm: str, entry: dict[str, Any]) -> str:
    """A line of the table."""
    gold, greedy = entry["gold"], entry.get("greedy")
    words = f"{arm:<34} {'' if entry['kl'] is None else format(entry['kl'], '.2f'):>6} {gold['mean']:6.3f}  "
    words += f"{gold['change']:+.3f} ({gold['low']:+.3f} to {gold['high']:+.3f})" if "low" in gold else f"{'':<25}"
    return words + (f" {greedy['mean']:6.3f} {greedy['change']:+.3f}" if greedy else "")


if __name__ == "__main__":
    main()
