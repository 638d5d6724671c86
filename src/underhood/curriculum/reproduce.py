"""Runner of milestones: measures the claims, takes each idea away, and writes down all that was found."""

from __future__ import annotations

import datetime
import hashlib
import os
import platform
import shlex
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import underhood
from underhood.core.figures import figure_to_json
from underhood.core.milestone import Milestone, Scale
from underhood.core.provenance import commit, cpu_name
from underhood.core.trial import Listener, Trial, claim_json
from underhood.core.verdicts import HELD, estimate, verdict_of
from underhood.curriculum import index
from underhood.curriculum.results import Result

PACKAGES = ("numpy", "torch")
Run = Callable[[Trial], None]


def reproduce(
    milestone: Milestone,
    scale: Scale,
    *,
    seeds: int | None = None,
    data: Path | None = None,
    listener: Listener | None = None,
    run: Run | None = None,
) -> Result:
    """Everything that a milestone finds at one scale, as the JSON of a result file.

    Args:
        seeds: how many, if not what the milestone says.
        data: folder of the data that no package brings.
        listener: hears of progress, ablations included.
        run: instead of the milestone's own ``run``.
    """
    run = run or index.runner(milestone.stem)
    count = seeds or getattr(milestone.seeds, scale)
    begun = time.perf_counter()
    share = 1.0 if not milestone.ablations else 0.5 if scale == "smoke" else 0.9
    trial = Trial(milestone, scale, seeds=range(count), data=data, listener=_within(listener, 0.0, share))
    run(trial)
    claims = trial.as_json()
    minutes = (time.perf_counter() - begun) / 60
    same = scale == "smoke" and count == milestone.seeds.smoke
    ablations = run_ablations(
        milestone, data=data, intact=claims if same else None, listener=_within(listener, share, 1.0), run=run
    )
    return {
        "milestone": milestone.stem,
        "topics": list(milestone.topics),
        "scale": scale,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": command_line(milestone.stem, scale, seeds, data),
        "commit": commit(),
        "source": digest(milestone.stem),
        "underhood": underhood_version(),
        "machine": machine(),
        "seeds": list(trial.seeds),
        "minutes": round(minutes, 3),
        "minutes_with_ablations": round((time.perf_counter() - begun) / 60, 3),
        "data": trial.digests,
        "verdict": verdict_of(claims),
        "claims": claims,
        "oracles": [{"name": name, "agrees": agrees, "detail": detail} for name, agrees, detail in trial.oracles],
        "ablations": ablations,
        "figures": [figure_to_json(figure) for figure in trial.figures],
        "notes": trial.notes,
    }


def run_ablations(
    milestone: Milestone,
    *,
    data: Path | None = None,
    intact: Sequence[dict[str, Any]] | None = None,
    listener: Listener | None = None,
    run: Run | None = None,
) -> list[dict[str, Any]]:
    """Measures the claims at smoke scale with each idea and without it, with the same seeds.

    Args:
        intact: the claims with the idea, if they were measured already at smoke scale.
    """
    run = run or index.runner(milestone.stem)
    seeds = range(milestone.seeds.smoke)
    parts = len(milestone.ablations) + (intact is None)
    if intact is None:
        trial = Trial(milestone, "smoke", seeds=seeds, data=data, listener=_within(listener, 0.0, 1 / parts))
        run(trial)
        intact = trial.as_json()
    known = {claim["key"]: claim for claim in intact}
    measured = []
    for number, ablation in enumerate(milestone.ablations, start=parts - len(milestone.ablations)):
        told = _within(listener, number / parts, (number + 1) / parts, f"without {ablation.key}")
        trial = Trial(milestone, "smoke", seeds=seeds, removed={ablation.key}, data=data, listener=told)
        run(trial)
        claims = [
            {"key": claim["key"], "with": _outcome(known[claim["key"]]), "without": _outcome(claim)}
            for claim in trial.as_json()
            if claim["key"] in ablation.breaks
        ]
        measured.append({"key": ablation.key, "removes": ablation.removes, "sound": is_sound(claims), "claims": claims})
    return measured


def is_sound(claims: Sequence[dict[str, Any]]) -> bool | None:
    """Whether an ablation counts: every claim holds with the idea and fails without it; None if none was measured."""
    measured = [
        claim
        for claim in claims
        if "not measurable here" not in (claim["with"]["verdict"], claim["without"]["verdict"])
    ]
    if not measured:
        return None
    return all(
        claim["with"]["verdict"] in HELD and claim["without"]["verdict"] == "does not hold here" for claim in measured
    )


def _outcome(claim: dict[str, Any]) -> dict[str, Any]:
    return {name: claim.get(name) for name in ("middle", "low", "high", "verdict")}


def recompute(milestone: Milestone, result: Result, *, data: Path | None = None) -> Result:
    """A result with its verdicts judged anew from the values that it holds, by the milestone's present rules.

    Claims that the result does not hold stay unmeasured. Ablations without the values of the intact run are measured
    again, at smoke scale.
    """
    stored = {claim["key"]: claim for claim in result["claims"]}
    claims = []
    for claim in milestone.claims:
        old = stored.get(claim.key, {"why": "not measured in this result", "verdict": "not measurable here"})
        if "values" not in old:
            claims.append(claim_json(claim, None, old["verdict"], old.get("why", "")))
            continue
        values = [float("nan") if value is None else value for value in old["values"]]
        estimated = estimate(values, claim.summary, fixed=claim.deterministic)
        claims.append(claim_json(claim, estimated, claim.judge(estimated)))
    ablations = result["ablations"]
    stored_breaks = {
        ablation["key"]: {claim["key"] for claim in ablation["claims"] if "with" in claim} for ablation in ablations
    }
    if stored_breaks != {ablation.key: set(ablation.breaks) for ablation in milestone.ablations}:
        ablations = run_ablations(milestone, data=data)
    return result | {"verdict": verdict_of(claims), "claims": claims, "ablations": ablations}


def command_line(stem: str, scale: Scale, seeds: int | None, data: Path | None) -> str:
    """The command that repeats a result; the data folder's own path is left out."""
    words = ["underhood", "reproduce", stem, "--scale", scale]
    words += ["--seeds", str(seeds)] if seeds is not None else []
    words += ["--data", "DATA"] if data is not None else []
    return shlex.join(words)


def machine() -> dict[str, Any]:
    """What the numbers were measured on; ``name`` is short enough for a file's name: ``cpu2``."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {
        "name": f"cpu{cores}",
        "cpu": cpu_name(),
        "cores": cores,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: number for name in PACKAGES if (number := _version(name)) is not None},
    }


def digest(stem: str) -> str:
    """A digest of the milestone's rules and code: a result of the same need not be measured again."""
    content = b"\0".join(file.read_bytes() for file in index.sources(stem))
    return hashlib.sha256(content).hexdigest()[:16]


def underhood_version() -> str:
    """The version of the installed package, or of the sources."""
    return _version("underhood") or getattr(underhood, "__version__", "unknown")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _within(listener: Listener | None, start: float, end: float, prefix: str = "") -> Listener | None:
    if listener is None:
        return None

    def told(share: float, what: str) -> None:
        listener(start + (end - start) * share, ", ".join(filter(None, [prefix, what])))

    return told


def failures(result: Result) -> list[str]:
    """What a sound result would not have: an oracle that disagrees, an ablation that does not count."""
    problems = [
        f"not confirmed: {oracle['name']} ({oracle['detail']})" for oracle in result["oracles"] if not oracle["agrees"]
    ]
    for ablation in result["ablations"]:
        for claim in ablation["claims"]:
            intact, ablated = claim["with"]["verdict"], claim["without"]["verdict"]
            if "not measurable here" in (intact, ablated):
                continue
            if ablated != "does not hold here":
                problems.append(f"without {ablation['key']}, {claim['key']} is not refuted ({ablated})")
            elif intact not in HELD:
                problems.append(
                    f"the ablation {ablation['key']} shows nothing: with the idea, {claim['key']} is {intact}"
                )
    return problems
