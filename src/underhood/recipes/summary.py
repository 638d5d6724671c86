"""``summary.json``: every figure of a run in one file, for people's scripts, the report and the web page."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
import resource
import sys
from typing import Any

import psutil
import torch

from underhood.core.config import to_json
from underhood.core.provenance import commit, cpu_name
from underhood.core.runlog import read_events
from underhood.evals.generation import GeneratedAnswer
from underhood.evals.table import ResultsTable
from underhood.models.base import parameter_count
from underhood.recipes.run import Run
from underhood.recipes.stage_jobs import few_steps_warning, planned_stages
from underhood.recipes.stages.display import job_stages
from underhood.recipes.training_data import GROUNDED, StageData
from underhood.train.hardware import Hardware
from underhood.train.plan import Plan

LIBRARIES = ("torch", "numpy", "safetensors", "tiktoken", "tokenizers", "pyarrow")
SHOWN_PER_KIND = 4


def write_summary(run: Run, plan: Plan, hardware: Hardware, *, command: str, seconds: float) -> dict[str, Any]:
    """Gathers what the stages noted and logged; replaces ``summary.json``."""
    data = run.note("data") or {}
    results = run.note("results") or {}
    tokenizer = data.pop("tokenizer", {})
    data.pop("held_out_names", None)
    table = ResultsTable.from_json(results["table"], where="results.json") if results else ResultsTable(stages=())
    with torch.device("meta"):
        parameters = parameter_count(plan.model.build())
    warnings = [few_steps_warning(run, stage) for stage in planned_stages(plan)]
    summary = {
        "underhood": importlib.metadata.version("underhood"),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "command": command,
        "minutes": run.spec.minutes,
        "seed": run.spec.seed,
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in LIBRARIES},
        "machine": machine(hardware),
        "seconds": seconds,
        "peak_memory_gb": peak_memory() / 1e9,
        "parameters": parameters,
        "spec": to_json(plan.model, tagged=True),
        "corpus": data,
        "tokenizer": tokenizer,
        "plan": {
            "reason": plan.reason,
            "tokens_per_second": plan.tokens_per_second,
            "stages": {stage.stage: to_json(stage) | {"tokens": stage.tokens} for stage in plan.stages},
        },
        "stages": stage_facts(run),
        "results": table.to_json(),
        "warnings": [warning for warning in warnings if warning],
        "samples": results.get("samples", []),
        "examples": results.get("examples", []),
        "refused": results.get("refused"),
    }
    run.write_note("summary", summary)
    return summary


def stage_facts(run: Run) -> list[dict[str, Any]]:
    """What each stage reported at its end, in order; a stage resumed after a stop adds up."""
    ends: dict[str, dict[str, Any]] = {}
    begun: dict[str, float] = {}
    spent: dict[str, float] = {}  # in sittings that were stopped
    last: dict[str, dict[str, Any]] = {}
    for event in read_events(run.path / "events.jsonl"):
        stage, kind = event["stage"], event["kind"]
        if kind == "start":
            if stage in begun:
                spent[stage] = spent.get(stage, 0.0) + last[stage]["time"] - begun[stage]
            begun[stage] = event["time"]
        if kind == "step" and event["step"] == event["steps"]:  # killed between the last step and the end
            seconds = event["time"] - begun.get(stage, event["time"]) + spent.get(stage, 0.0)
            ends[stage] = {"name": stage, "seconds": seconds, "tokens": event["tokens"], "loss": event.get("smoothed")}
        if kind == "end":
            facts = {key: value for key, value in event.items() if key not in {"time", "kind", "stage"}}
            facts["seconds"] += spent.pop(stage, 0.0)
            if "tokens" in facts and "tokens" in last.get(stage, {}):
                facts["tokens"] = last[stage]["tokens"]
            ends[stage] = facts | {"name": stage}
            begun.pop(stage, None)
        last[stage] = event if kind == "step" else last.get(stage, {}) | {"time": event["time"]}
    return [ends[name] for name in job_stages() if name in ends]


def samples_side_by_side(data: StageData, samples: dict[str, dict[str, GeneratedAnswer]]) -> list[dict[str, Any]]:
    """Prompts with the answers of the stages: the first few of each kind; those with passages only where asked so."""
    shown: list[dict[str, Any]] = []
    count: dict[str, int] = {}
    for question in (*data.grounded, *data.answers):
        grounded = question in data.grounded
        kind = f"{GROUNDED}{question.kind}" if grounded else question.kind
        answers = {stage: done[question.prompt] for stage, done in samples.items() if question.prompt in done}
        complete = grounded or len(answers) == len(samples)
        if complete and answers and count.get(kind, 0) < SHOWN_PER_KIND:
            count[kind] = count.get(kind, 0) + 1
            texts = {stage: {"text": answer.text, "ended": answer.ended} for stage, answer in answers.items()}
            facts = {"prompt": question.prompt, "kind": kind, "expected": question.expected}
            shown.append(facts | {"answers": texts})
    return shown


def machine(hardware: Hardware) -> dict[str, Any]:
    """The machine in the words and numbers that a reader needs to compare figures."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": cpu_name(),
        "cores": len(psutil.Process().cpu_affinity())
        if hasattr(psutil.Process, "cpu_affinity")
        else psutil.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gb": psutil.virtual_memory().total / 1e9,
        "device": hardware.device.name,
        "dtype": hardware.device.dtype,
        "peak_gflops": hardware.flops / 1e9,
        "read_gb_per_s": hardware.read_bytes / 1e9,
    }


def peak_memory() -> float:
    """The most memory this process has held, in bytes."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(most if sys.platform == "darwin" else most * 1024)
