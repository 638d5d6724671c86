"""Does an alignment stage make a five-minute model of the documentation better? The default of --align follows.

For each seed one build without alignment; then each method is added to a copy of it (`underhood dpo RUN`, …), with the
share of the minutes that the stage has by default. Before and after, the model answers the same held-out questions from
passages, decoded freely and greedily, and the documentation itself says which answers are right. Differences are paired
by question; their 95 % intervals are of the mean over all questions of all seeds (bootstrap).

A method passes if right answers about held-out functions get better with an interval above zero, bits per byte rise by
at most 1 %, and refusals of invented names do not get worse with an interval below zero.

    python benchmarks/bench_build_alignment.py [--minutes 5] [--seeds 3] [--out runs/alignment]
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness import machine, options_from_command_line, print_json
from underhood.data.instruct import is_refusal
from underhood.evals.intervals import bootstrap_mean
from underhood.evals.perplexity import held_out_loss
from underhood.recipes.evaluation import sampled_windows
from underhood.recipes.grounded_evaluation import answer_grounded, is_right
from underhood.recipes.preparation import Clock, Prepared, prepare, run_retriever
from underhood.recipes.run import Run
from underhood.recipes.stage_jobs import load_model
from underhood.recipes.training_data import chosen

BITS_LIMIT = 0.01
"""Bits per byte may rise by this share."""

KINDS = {"describe": "right answers", "parameters": "right parameters", "invented": "refuses invented names"}
REFUSED = "refuses real functions"
BITS_TOKENS = 20_000


@dataclass(frozen=True)
class Options:
    """Alignment in a build."""

    minutes: float = 5.0
    """Length of each build."""

    seeds: int = 3
    """Builds, with seeds 0, 1, …"""

    methods: tuple[str, ...] = ("dpo", "grpo", "ppo")
    """Alignment stages to compare."""

    questions: int = 200
    """Held-out questions of each kind."""

    out: Path = Path("runs/alignment")
    """Folder of the runs; finished ones in it are not built again."""


def underhood(*words: str) -> None:
    done = subprocess.run([sys.executable, "-m", "underhood", *words], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"underhood {' '.join(words)} failed:\n{done.stderr}")


def measure(run: Run, prepared: Prepared, model_name: str, count: int) -> dict[str, NDArray[np.float64]]:
    """Right (1) or not (0) for every question, by what is counted; and bits per byte."""
    model, tokenizer = load_model(run, model_name), prepared.tokenizer
    retriever = run_retriever(run.spec, prepared)
    assert retriever is not None
    scores: dict[str, list[float]] = {name: [] for name in (*KINDS.values(), REFUSED)}
    for kind, name in KINDS.items():
        questions = chosen([each for each in prepared.data.grounded if each.kind == kind], count, 0)
        answers = answer_grounded(model, tokenizer, retriever, [each.prompt for each in questions], quote=False)
        for question, answer in zip(questions, answers, strict=True):
            refused = is_refusal(answer.text)
            right = refused if kind == "invented" else is_right(answer.text, question.expected or "")
            scores[name].append(float(right))
            if kind != "invented":
                scores[REFUSED].append(float(refused))
    windows = sampled_windows(prepared.held_out, tokenizer, BITS_TOKENS, model.context_length or 1024)
    report = held_out_loss(model, windows, device="cpu")
    measured = {name: np.array(values) for name, values in scores.items()}
    return measured | {"bits per byte": np.array([report.bits_N.sum() / report.bytes_N.sum()])}


def aligned(base: Path, method: str) -> Path:
    """A copy of a run with one alignment stage more."""
    path = base.with_name(f"{base.name}-{method}")
    if not (path / "checkpoints" / method).exists():
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(base, path)
        underhood(method, str(path))
    return path


def verdict(differences: dict[str, Any]) -> str:
    """Whether a method passes the bar, in words."""
    answers, refusals = differences["right answers"], differences["refuses invented names"]
    bits = differences["bits per byte"]
    if answers["low"] <= 0:
        return "does not pass: right answers are not surely better"
    if bits > BITS_LIMIT:
        return f"does not pass: bits per byte rise by {bits:.1%}"
    return "does not pass: fewer refusals of invented names" if refusals["high"] < 0 else "passes"


def main() -> None:
    options = options_from_command_line(Options)
    before: list[dict[str, NDArray[np.float64]]] = []
    after: dict[str, list[dict[str, NDArray[np.float64]]]] = {method: [] for method in options.methods}
    for seed in range(options.seeds):
        base = options.out / f"seed-{seed}"
        if not (base / "summary.json").exists():
            underhood("build", "--minutes", str(options.minutes), "--seed", str(seed), "--out", str(base))
        run = Run.open(base, write=False)
        prepared = prepare(run, Clock(run))
        before.append(measure(run, prepared, "sft", options.questions))
        for method in options.methods:
            path = aligned(base, method)
            after[method].append(measure(Run.open(path, write=False), prepared, method, options.questions))
            print(f"seed {seed}, {method}: measured", file=sys.stderr, flush=True)

    def pooled(runs: list[dict[str, NDArray[np.float64]]], name: str) -> NDArray[np.float64]:
        return np.concatenate([each[name] for each in runs])

    names = (*KINDS.values(), REFUSED)
    print("fine-tuned: " + " · ".join(f"{name} {pooled(before, name).mean():.3f}" for name in names))
    results: dict[str, Any] = {"before": {name: float(pooled(before, name).mean()) for name in names}}
    for method in options.methods:
        differences: dict[str, Any] = {}
        print(f"\n{method}")
        for name in names:
            interval = bootstrap_mean(pooled(after[method], name) - pooled(before, name), seed=0)
            differences[name] = {"mean": interval.value, "low": interval.low, "high": interval.high}
            seeds = [float(a[name].mean() - b[name].mean()) for a, b in zip(after[method], before, strict=True)]
            differences[name]["seeds"] = seeds
            print(f"  {name:<24} {interval.value:+.3f}  ({interval.low:+.3f} to {interval.high:+.3f})")
        bits = pooled(after[method], "bits per byte").mean() / pooled(before, "bits per byte").mean() - 1
        differences["bits per byte"] = float(bits)
        print(f"  {'bits per byte':<24} {bits:+.2%}")
        differences["verdict"] = verdict(differences)
        print(f"  {differences['verdict']}")
        results[method] = differences
    print_json("bench_build_alignment", results, machine=machine("torch"), options=vars(options) | {"out": ""})


if __name__ == "__main__":
    main()
