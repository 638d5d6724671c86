"""DPO on a model of 124 million parameters: seconds per step and peak memory, beside trl's DPOTrainer.

Both sides open the same folder of random weights and train in fp32 on the same pairs with AdamW, clipping and no
dropout, with the reference's log-probabilities worked out beforehand. trl has its best setting for a CPU
(``bf16=False, gradient_checkpointing=False, use_cpu=True, precompute_ref_log_probs=True``). Each run is a process of
its own (so its peak memory is its own), and the sides take turns. The losses of all steps must agree, and the gradients
with and without shared prompts. Afterwards a step of GRPO is measured beside trl's (see `align_grpo`).

    python benchmarks/bench_align.py [--rounds 3] [--steps 6] [--family gpt2] [--quick]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from align_dpo_sides import (
    OURS,
    PEER,
    SHAPES,
    alternating,
    gradient_difference,
    make_model,
    train_ours,
    train_peer,
)
from align_grpo import grpo_step
from harness import machine, print_json

CASES = {"128:128": 1.3, "192:64": 1.7, "1:255": 0.98}
"""Tokens of prompt and of answer, and how many times as fast as trl a step must be; the last shares nothing."""

GRADIENT_LIMIT, LOSS_LIMIT = 1e-5, 2e-3
"""Largest difference of gradients, and of the two sides' losses (trl's are logged with four digits)."""

SIDES = {OURS: train_ours, PEER: train_peer, "gradients": gradient_difference}
NUMBERS = ("prompt", "answer", "pairs", "steps", "threads")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="processes per side and case")
    parser.add_argument("--steps", type=int, default=6, help="timed steps per process")
    parser.add_argument("--pairs", type=int, default=4, help="pairs per step")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--family", choices=("llama", "gpt2"), default="llama")
    parser.add_argument("--cases", nargs="+", default=list(CASES), metavar="PROMPT:ANSWER")
    parser.add_argument("--grpo", action=argparse.BooleanOptionalAction, default=True, help="a step of GRPO as well")
    parser.add_argument("--quick", action="store_true", help="a small model, one round: does it run at all")
    for name in ("prompt", "answer"):
        parser.add_argument(f"--{name}", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--side", choices=list(SIDES), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        torch.set_num_threads(options.threads)
        print(json.dumps(SIDES[options.side](options)))
        return
    if options.quick:
        options.rounds, options.steps = 1, min(options.steps, 4)
    results = {}
    with tempfile.TemporaryDirectory() as made:
        options.folder = Path(made)
        lengths = {case: tuple(map(int, case.split(":"))) for case in options.cases}
        context = max(sum(pair) for pair in lengths.values())
        make_model(options.folder, SHAPES["quick" if options.quick else "full"], options.family, context)
        for case, (options.prompt, options.answer) in lengths.items():
            results[case] = measure(options, case)
    print(
        f"\n{'prompt:answer':<16}{'ours s/step':>12}{'trl':>9}{'times as fast':>15}{'goal':>6}{'ours MB':>10}{'trl':>9}"
    )
    for case, row in results.items():
        goal = CASES.get(case)
        print(
            f"{case:<16}{row[OURS]['s_per_step']:>12.3f}{row[PEER]['s_per_step']:>9.3f}{row['speed_ratio']:>15.2f}"
            f"{'–' if goal is None else goal:>6}{row[OURS]['peak_mb']:>10,.0f}{row[PEER]['peak_mb']:>9,.0f}"
        )
    if options.grpo:
        results["grpo"] = grpo_step(options.rounds, options.threads, options.quick)
    facts = {name: getattr(options, name) for name in ("family", "pairs", "steps", "rounds", "threads", "quick")}
    print_json("align_dpo", results, **machine("torch", "transformers", "trl"), **facts, limits=CASES)


def measure(options: argparse.Namespace, case: str) -> dict[str, Any]:
    """Both sides on one case, in turns; ends the program where they don't compute the same."""
    gradients = in_its_own_process(options, "gradients")
    print(f"{case}: gradients with shared prompts differ by {gradients['largest_absolute']:.1e} at most", flush=True)
    if gradients["largest_absolute"] > GRADIENT_LIMIT:
        sys.exit(f"the gradients differ by more than {GRADIENT_LIMIT}")
    runs: dict[str, list[dict[str, Any]]] = {OURS: [], PEER: []}
    for turn, side in alternating(options.rounds):
        last = in_its_own_process(options, side)
        runs[side].append(last)
        print(f"round {turn + 1}  {side:<10} {last['median_s']:.3f} s/step, {last['peak_mb']:,.0f} MB", flush=True)
    losses = [runs[side][0]["losses"] for side in (OURS, PEER)]
    apart = max(abs(a - b) for a, b in zip(*losses, strict=True))
    if apart > LOSS_LIMIT:
        sys.exit(f"the losses differ by {apart}: not the same task\n{losses[0]}\n{losses[1]}")
    row: dict[str, Any] = {
        side: {
            "s_per_step": round(statistics.median(run["median_s"] for run in actual), 4),
            "runs_s": [round(run["median_s"], 4) for run in actual],
            "peak_mb": round(max(run["peak_mb"] for run in actual), 1),
            "last_loss": actual[0]["losses"][-1],
        }
        for side, actual in runs.items()
    }
    ratios = {
        "speed_ratio": round(row[PEER]["s_per_step"] / row[OURS]["s_per_step"], 3),
        "speed_limit": CASES.get(case),
        "memory_ratio": round(row[OURS]["peak_mb"] / row[PEER]["peak_mb"], 3),
    }
    return row | ratios | {"gradients": gradients, "losses_apart": apart}


def in_its_own_process(options: argparse.Namespace, side: str) -> dict[str, Any]:
    """What one side measured."""
    words = [sys.executable, __file__, "--side", side, "--folder", str(options.folder)]
    for name in NUMBERS:
        words += [f"--{name}", str(getattr(options, name))]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{side} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
