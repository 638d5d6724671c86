"""Commands that repeat or continue a run, and the machine it ran on."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from underhood.recipes.report.run_reader import RecordedRun
from underhood.recipes.stages.display import trained_stages
from underhood.recipes.stages.registry import all_stages
from underhood.ui import formatting


def commands(run: RecordedRun) -> list[tuple[str, str]]:
    """Commands to copy, each with its purpose."""
    lines = []
    if run.summary.get("command"):
        lines.append((str(run.summary["command"]), "What made this run; on another machine the plan may differ"))
    if (run.path / "run.toml").is_file() and (fixed := _fixed(run)):
        name = shlex.quote(str(_short(run.path)) + "-again")
        config = shlex.quote(str(_short(run.path) / "run.toml"))
        lines.append(
            (
                f"underhood build --config {config} {' '.join(fixed)} --out {name}",
                "The same plan on any machine",
            )
        )
    if any(run.stages[name].status == "done" for name in trained_stages()):
        lines.append((f"underhood chat {place(run)}", "Talk to it"))
    lines.append((f"underhood report {place(run)}", "Write this page again"))
    return lines


def resume(run: RecordedRun) -> str:
    """The command that goes on with a build that was stopped."""
    return f"underhood build --out {place(run)} --resume"


def place(run: RecordedRun) -> str:
    """The run's folder as one would type it: relative if it is below the current folder."""
    return shlex.quote(str(_short(run.path)))


def machine(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The machine in words, as a list of facts."""
    known: Mapping[str, Any] = summary.get("machine") or {}
    facts: list[tuple[str, str]] = []
    if known.get("cpu"):
        cores = f", {known['cores']} cores" if known.get("cores") else ""
        facts.append(("Processor", f"{known['cpu']}{cores}"))
    if known.get("system"):
        facts.append(("System", str(known["system"])))
    if known.get("device"):
        threads = f", {known['threads']} threads" if known.get("threads") else ""
        facts.append(("Computed on", f"{known['device']} in {known.get('dtype', 'float32')}{threads}"))
    if known.get("memory_gb"):
        peak = summary.get("peak_memory_gb")
        used = f", {formatting.decimal(peak, 2)} GB used at most" if peak else ""
        facts.append(("Memory", f"{formatting.decimal(known['memory_gb'], 1)} GB{used}"))
    if known.get("peak_gflops"):
        read = f", reads {formatting.decimal(known['read_gb_per_s'], 1)} GB/s" if known.get("read_gb_per_s") else ""
        facts.append(("Measured limits", f"{formatting.flops(known['peak_gflops'] * 1e9)}/s{read}"))
    return facts


def _fixed(run: RecordedRun) -> list[str]:
    """Options that fix what the planner chose from this machine's speed."""
    plan: Mapping[str, Any] = (run.summary.get("plan") or {}).get("stages") or {}
    spec: Mapping[str, Any] = run.summary.get("spec") or {}
    first = all_stages()[0].name
    if first not in plan or not spec.get("blocks"):
        return []
    mixer = spec["blocks"][0].get("mixer") or {}
    values = {
        "d-model": spec.get("d_model"),
        "layers": spec.get("layers"),
        "heads": mixer.get("heads"),
        "kv-heads": mixer.get("kv_heads"),
        "context-length": plan[first].get("context_length"),
        "batch-size": plan[first].get("batch_size"),
    }
    values |= {f"{name}-steps": plan[name].get("steps") for name in trained_stages() if name in plan}
    options = [f"--{name} {value}" for name, value in values.items() if isinstance(value, int)]
    dtype = (run.summary.get("machine") or {}).get("dtype")
    return [*options, f"--dtype {shlex.quote(str(dtype))}"] if dtype else options


def _short(path: Path) -> Path:
    full, here = path.resolve(), Path.cwd()
    return full.relative_to(here) if full.is_relative_to(here) and full != here else full
