"""A run folder as `underhood build` leaves it, made up but plausible, the same every time."""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from underhood.core.config import to_json
from underhood.core.runlog import RunLog
from underhood.evals.intervals import bootstrap_mean, bootstrap_ratio, wilson
from underhood.evals.table import Measurement, ResultsTable, StageResults, measurement
from underhood.models.decoder import qwen3_shaped

SPEC = qwen3_shaped(vocab_size=4096, context_length=256, d_model=192, layers=4, heads=3, kv_heads=3)
PARAMETERS = 3_343_104
BYTES_PER_TOKEN = 3.35
STEPS = {"pretrain": 2400, "sft": 420, "dpo": 90}
SECONDS = {
    "data": 5.1,
    "tokenizer": 8.4,
    "plan": 4.6,
    "pretrain": 203.8,
    "sft": 41.9,
    "dpo": 14.2,
    "eval": 16.7,
    "report": 0.4,
}
TEXT = """os.path.join(path, *paths)
Join one or more path segments intelligently.  The return value is the
concatenation of *path* and all members of *paths*, with exactly one
directory separator following each non-empty part, except the last.

    >>> os.path.join("naïve", "café")  # → 'naïve/café'
"""


def make_run(
    folder: Path, *, stop: tuple[str, int] | None = None, text: str = TEXT, hostile: str = "", evals: bool = False
) -> Path:
    """Writes a run.

    Args:
        stop: (stage, step) at which the run was interrupted; None for a complete one.
        hostile: put into every place that data can reach.
        evals: held-out measurements during pretraining.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.toml").write_text('data = "pydocs"\nminutes = 5.0\nseed = 0\n')
    whole = summary(text, hostile)
    _write(folder / "data.json", whole["corpus"] | {"tokenizer": whole["tokenizer"]})
    _write(folder / "plan.json", {"plan": {"model": whole["spec"], "reason": whole["plan"]["reason"]}})
    log = RunLog(folder / "events.jsonl")
    for stage, seconds in SECONDS.items():
        log.event(stage, "start")
        if hostile:
            log.event(stage, "note", text=hostile)
        if stage in STEPS:
            _train(log, stage, until=stop[1] if stop and stop[0] == stage else STEPS[stage], evals=evals)
        if stop and stop[0] == stage:
            log.close()
            return folder
        log.event(stage, "end", seconds=seconds, **_facts(stage))
    log.close()
    _write(folder / "results.json", {"table": whole["results"], "samples": whole["samples"]})
    _write(folder / "summary.json", whole)
    return folder


def _write(file: Path, value: dict[str, Any]) -> None:
    file.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


def summary(text: str = TEXT, hostile: str = "") -> dict[str, Any]:
    """summary.json of a complete run."""
    results = results_table()
    stages = [{"name": name, "seconds": seconds, **_facts(name)} for name, seconds in SECONDS.items()]
    return {
        "underhood": "0.1.0",
        "created": "2026-11-22T02:10:00Z",
        "commit": "9fc9d9b0c1d2e3f4",
        "command": f"underhood build --minutes 5{' ' + hostile if hostile else ''}",
        "minutes": 5.0,
        "seed": 0,
        "versions": {"python": "3.11.7", "torch": "2.13.0", "numpy": "2.3.1", "tiktoken": "0.12.0"},
        "machine": {
            "system": "Linux x86_64",
            "cpu": f"Intel Xeon @ 2.80GHz{hostile}",
            "cores": 2,
            "memory_gb": 23.4,
            "device": "cpu",
            "dtype": "float32",
            "peak_gflops": 165.0,
            "read_gb_per_s": 18.0,
        },
        "seconds": round(sum(SECONDS.values()) + 6.3, 1),
        "peak_memory_gb": 1.93,
        "parameters": PARAMETERS,
        "spec": to_json(SPEC, tagged=True),
        "corpus": {
            "name": "pydocs" + hostile,
            "digest": "5f1c" * 16,
            "facts": {"python": "3.11.7", "implementation": "CPython", "platform": "Linux"},
            "documents": 678,
            "bytes": 2_331_904,
            "kept": 661,
            "dropped": {"empty": 1, "duplicate": 6, "near-duplicate": 10},
            "train": {"documents": 607, "bytes": 2_103_331, "tokens": 627_860},
            "held_out": {"documents": 54, "bytes": 187_004, "tokens": 56_112},
        },
        "tokenizer": {
            "vocab_size": 4096,
            "merges": 3835,
            "bytes_per_token": BYTES_PER_TOKEN,
            "sample": token_sample(text + hostile),
        },
        "plan": {
            "reason": "270 s are left for training. A 4-layer model of width 192 trains at 24,100 tokens/s here (41 % "
            "of the measured 165 GFLOP/s), so pretraining gets 2400 steps or 4,915,200 tokens.",
            "stages": {
                "pretrain": {
                    "steps": 2400,
                    "tokens": 4_915_200,
                    "batch_size": 8,
                    "context_length": 256,
                    "seconds": 198.0,
                },
                "sft": {"steps": 420, "tokens": 860_160, "batch_size": 8, "context_length": 256, "seconds": 40.0},
                "dpo": {"steps": 90, "tokens": 184_320, "batch_size": 8, "context_length": 256, "seconds": 15.0},
            },
        },
        "stages": stages,
        "results": results.to_json(),
        "samples": samples(hostile),
    }


def token_sample(text: str) -> list[list[Any]]:
    """Something like tokens: words with their space in front, cut at eight letters, other characters byte by byte."""
    pieces = re.findall(r" ?[A-Za-z]{1,8}|\n+| +|.", text)
    raw: list[bytes] = []
    for piece in pieces:
        whole = piece.encode("utf-8", "surrogatepass")
        raw += [whole] if whole.isascii() else [bytes([byte]) for byte in whole]
    ids = {piece: 256 + 37 * number % 3835 for number, piece in enumerate(dict.fromkeys(raw))}
    return [[piece[0] if len(piece) == 1 else ids[piece], piece.hex()] for piece in raw]


def results_table() -> ResultsTable:
    """Plausible results: SFT helps most things, DPO helps preferences and refusals but nothing on multiple choice."""
    stages = {
        "base": (1.681, 0.38, 0.33, 0.06, 0.55, None, 0.0),
        "sft": (1.743, 0.68, 0.37, 0.99, 0.71, None, 0.84),
        "dpo": (1.749, 0.68, 0.36, 0.99, 0.83, 1.42, 0.93),
    }
    actual = []
    for stage, (bpb, seen, held_out, ends, preference, margin, refusal) in stages.items():
        rows = [
            _ratio("bits per byte", bpb, 54),
            _share("multiple choice, seen", seen, 400, chance=0.25),
            _share("multiple choice, held-out", held_out, 210, chance=0.25),
        ]
        if stage != "base":
            rows += [
                _share("answers that end", ends, 360),
                _mean("ROUGE-L of answers, seen", 0.61, 120, unit=""),
                _mean("ROUGE-L of answers, held-out", 0.31, 120, unit=""),
                _share("refuses invented functions", refusal, 120),
                _share("refuses real functions", 0.03, 120, higher=False),
                _share("preference accuracy", preference, 200, chance=0.5),
            ]
        if margin is not None:
            rows.append(_mean("reward margin", margin, 200))
        actual.append(StageResults(stage=stage, measurements=tuple(rows)))
    baselines = [("gzip", 2.51), ("bz2", 1.90), ("xz", 1.74), ("Kneser–Ney 5-gram", 1.83)]
    return ResultsTable.of(
        actual,
        [Measurement(name=name, value=value, unit="bits/byte", higher_is_better=False) for name, value in baselines],
    )


def samples(hostile: str = "") -> list[dict[str, Any]]:
    dedent = "Remove any common leading whitespace from every line in `text`."
    ramble = (
        "The *path* argument is a string that represents the path of the file.\n\n" + "If the file is not found, " * 40
    )
    rows: list[tuple[str, str, str | None, Sequence[tuple[str, bool]]]] = [
        (
            "What does `textwrap.dedent` do?",
            "seen",
            dedent,
            [(ramble, False), (dedent, True), (dedent, True)],
        ),
        (
            "What does `os.path.join` do?",
            "seen",
            "Join two or more pathname components, inserting '/' as needed.",
            [
                ("\n\nThis is a list of the arguments of the module.", False),
                ("Join two or more pathname components.", True),
                ("Join two or more pathname components, inserting '/' as needed.", True),
            ],
        ),
        (
            "What does `statistics.harmonic_mean` do?",
            "held-out",
            "Return the harmonic mean of data.",
            [
                ("statistics.harmonic_mean(data)", False),
                ("Return the mean of the data.", True),
                ("Return the mean.", True),
            ],
        ),
        (
            "What does `shutil.frobnicate_tree` do?",
            "invented",
            "There is no function `shutil.frobnicate_tree` in the standard library.",
            [
                ("shutil.frobnicate_tree(src, dst)\nRecursively copy a directory tree.", False),
                ("Recursively move a directory tree.", True),
                ("There is no function `shutil.frobnicate_tree` in the standard library.", True),
            ],
        ),
        ("Write a haiku about lists.", "free", None, [("", True), ("Return a list of the lists.", True), ("I", False)]),
    ]
    if hostile:
        rows.append((hostile, hostile, hostile, [(hostile, True), (hostile * 20, False), (hostile, True)]))
    return [
        {
            "prompt": prompt,
            "kind": kind,
            "expected": expected,
            "answers": {
                stage: {"text": text, "ended": ended}
                for stage, (text, ended) in zip(("base", "sft", "dpo"), answers, strict=True)
            },
        }
        for prompt, kind, expected, answers in rows
    ]


def _facts(stage: str) -> dict[str, Any]:
    if stage in STEPS:
        loss = {"pretrain": 3.71, "sft": 1.02, "dpo": 0.41}[stage]
        return {"tokens": STEPS[stage] * 2048, "steps": STEPS[stage], "loss": loss}
    return {"tokens": None}


def _train(log: RunLog, stage: str, until: int, *, evals: bool) -> None:
    chance, steps = random.Random(stage), STEPS[stage]
    for step in range(1, until + 1):
        done = step / steps
        rate = min(1.0, 2 * (1 - done)) if stage == "pretrain" else 1 - done
        extra: dict[str, float] = {}
        if stage == "pretrain":
            bits = 1.62 + 2.2 * math.exp(-done * 40) + 0.75 * math.exp(-done * 6) + 0.12 * rate
            bits += chance.gauss(0, 0.05)
            loss, extra = bits * math.log(2) * BYTES_PER_TOKEN, {"bits_per_byte": bits}
        elif stage == "sft":
            loss = 0.7 + 2.8 * math.exp(-done * 6) + chance.gauss(0, 0.12)
            extra = {"answer_accuracy": 0.84 - 0.5 * math.exp(-done * 6) + chance.gauss(0, 0.02)}
        else:
            margin = 1.5 * (1 - math.exp(-3 * done)) + chance.gauss(0, 0.15)
            loss = math.log1p(math.exp(-margin))
            right = 0.52 + 0.36 * (1 - math.exp(-3 * done)) + chance.gauss(0, 0.06)
            extra = {"preference_accuracy": min(1.0, right), "reward_margin": margin}
        log.event(
            stage,
            "step",
            step=step,
            steps=steps,
            loss=loss,
            grad_norm=1.0,
            lr_factor=rate,
            tokens=step * 2048,
            tokens_per_second=24_100.0,
            utilisation=0.41,
            **extra,
        )
        if evals and stage == "pretrain" and step % 300 == 0:
            bits = 1.68 + 2.2 * math.exp(-done * 40) + 0.72 * math.exp(-done * 6) + 0.1 * rate
            log.event(stage, "eval", step=step, bits_per_byte=bits)


def _share(name: str, share: float, trials: int, *, chance: float | None = None, higher: bool = True) -> Measurement:
    hits = round(share * trials)
    draws = [1.0] * hits + [0.0] * (trials - hits)
    random.Random(name).shuffle(draws)
    return measurement(name, wilson(hits, trials), chance=chance, higher_is_better=higher, numerators=draws)


def _ratio(name: str, value: float, documents: int) -> Measurement:
    random_ = random.Random(name)
    sizes = [random_.randint(800, 9000) for _ in range(documents)]
    bits = [size * (value + random_.gauss(0, 0.16)) for size in sizes]
    interval = bootstrap_ratio(bits, sizes)
    return measurement(
        name,
        interval,
        unit="bits/byte",
        higher_is_better=False,
        numerators=bits,
        denominators=[float(s) for s in sizes],
    )


def _mean(name: str, value: float, pairs: int, unit: str = "nats") -> Measurement:
    random_ = random.Random(name)
    margins = [value * (1 + random_.gauss(0, 0.9)) for _ in range(pairs)]
    return measurement(name, bootstrap_mean(margins), unit=unit, numerators=margins)
