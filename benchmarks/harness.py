"""What every benchmark shares: repeated timing, what machine this is, and the one JSON line at the end.

A benchmark measures us and our peer in the same run, in turns, and reports median and spread: a single number from a
shared machine says little.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

from underhood.cli.options import HelpRequested, UsageError, parse

T = TypeVar("T")
REPOSITORY = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Timing:
    """Seconds of each run, in the order measured."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def spread(self) -> tuple[float, float]:
        """Fastest and slowest run."""
        return min(self.seconds), max(self.seconds)

    def as_json(self) -> dict[str, Any]:
        return {"median_s": round(self.median, 4), "runs_s": [round(second, 4) for second in self.seconds]}

    def __str__(self) -> str:
        low, high = self.spread
        return f"{self.median:.3f} s ({low:.3f}–{high:.3f}, n={len(self.seconds)})"


def repeat(function: Callable[[], Any], times: int = 5, *, warm_up: int = 1) -> Timing:
    """Wall-clock times of `times` calls, after `warm_up` calls that are not counted."""
    return compare({"": function}, times, warm_up=warm_up)[""]


def compare(functions: Mapping[str, Callable[[], Any]], times: int = 5, *, warm_up: int = 1) -> dict[str, Timing]:
    """`repeat` for several functions in turns, so that a slow minute of the machine hits them all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(warm_up + times):
        # Back and forth, for what runs right after something heavy pays for its garbage.
        for name, function in list(functions.items())[:: -1 if turn % 2 else 1]:
            start = time.perf_counter()
            function()
            if turn >= warm_up:
                seconds[name].append(time.perf_counter() - start)
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


def machine(*packages: str) -> dict[str, Any]:
    """Hardware, versions of Python and the named packages, and the commit that was measured."""
    return {
        "commit": commit(),
        "command": " ".join(["python", *[Path(sys.argv[0]).name, *sys.argv[1:]]]),
        "cpu": _cpu_name(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": platform.system(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in packages},
    }


def commit() -> str:
    """The checked-out commit, with a plus sign if tracked files differ from it; "unknown" outside a checkout."""
    try:
        git = ["git", "-C", str(REPOSITORY)]
        head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


def print_json(benchmark: str, results: Mapping[str, Any], **facts: Any) -> None:
    """The last line of a benchmark: everything it found, for machines to read."""
    print(json.dumps({"benchmark": benchmark, **facts, "results": dict(results)}, ensure_ascii=False))


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def options_from_command_line(cls: type[T]) -> T:
    """A benchmark's options, read as the product reads a verb's; ``--help`` and mistakes end the program."""
    try:
        return parse(cls, sys.argv[1:], prog=Path(sys.argv[0]).name)
    except HelpRequested as page:
        print(page)
        raise SystemExit(0) from None
    except UsageError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None
