"""Runs a milestone: measures its claims, then takes each of its ideas away, and writes down all that was found."""

from __future__ import annotations

import datetime
import hashlib
import os
import platform
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import underhood
from underhood.core.figures import figure_to_json
from underhood.core.milestone import Milestone, Scale
from underhood.core.provenance import commit, cpu_name
from underhood.core.trial import Listener, Trial
from underhood.curriculum import index
from underhood.curriculum.results import Result, verdict_of

PACKAGES = ("numpy", "torch")
HELD = ("exact", "holds", "holds in shape")


def reproduce(
    milestone: Milestone,
    scale: Scale,
    *,
    seeds: int | None = None,
    data: Path | None = None,
    command: str = "",
    listener: Listener | None = None,
    run: Callable[[Trial], None] | None = None,
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
    share = 1.0 if not milestone.ablations else 0.7 if scale == "smoke" else 0.9
    trial = Trial(milestone, scale, seeds=range(count), data=data, listener=_within(listener, 0.0, share))
    run(trial)
    claims = trial.as_json()
    minutes = (time.perf_counter() - begun) / 60
    ablations = []
    for number, one in enumerate(milestone.ablations):
        start = share + (1 - share) * number / len(milestone.ablations)
        told = _within(listener, start, start + (1 - share) / len(milestone.ablations), f"without {one.key}")
        ablations.append(ablate(milestone, one.key, data=data, listener=told, run=run))
    return {
        "milestone": milestone.stem,
        "topics": list(milestone.topics),
        "scale": scale,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": command,
        "commit": commit(),
        "source": digest(milestone.stem),
        "underhood": underhood_version(),
        "machine": machine(),
        "seeds": list(trial.seeds),
        "minutes": round(minutes, 3),
        "minutes_with_ablations": round((time.perf_counter() - begun) / 60, 3),
        "data": trial.digests,
        "verdict": verdict_of({"claims": claims}),
        "claims": claims,
        "oracles": [{"name": name, "agrees": agrees, "detail": detail} for name, agrees, detail in trial.oracles],
        "ablations": ablations,
        "figures": [figure_to_json(figure) for figure in trial.figures],
        "notes": trial.notes,
    }


def ablate(
    milestone: Milestone,
    key: str,
    *,
    data: Path | None = None,
    listener: Listener | None = None,
    run: Callable[[Trial], None] | None = None,
) -> dict[str, Any]:
    """Takes one idea away at smoke scale; ``broke`` says whether all the claims that rest on it then failed."""
    one = next(one for one in milestone.ablations if one.key == key)
    trial = Trial(milestone, "smoke", seeds=range(milestone.seeds.smoke), removed={key}, data=data, listener=listener)
    (run or index.runner(milestone.stem))(trial)
    claims = [claim for claim in trial.as_json() if claim["key"] in one.breaks]
    unmeasured = [claim["key"] for claim in claims if "why" in claim]
    return {
        "key": one.key,
        "removes": one.removes,
        "broke": all(claim["verdict"] not in HELD for claim in claims if "why" not in claim),
        "unmeasured": unmeasured,
        "claims": [{name: claim.get(name) for name in ("key", "middle", "low", "high", "verdict")} for claim in claims],
    }


def machine() -> dict[str, Any]:
    """What the numbers were measured on; ``name`` is short enough for a file's name: ``cpu2``."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {
        "name": f"cpu{cores}",
        "cpu": cpu_name(),
        "cores": cores,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name)) is not None},
    }


def digest(stem: str) -> str:
    """A digest of the milestone's file: a result of the same file need not be measured again."""
    return hashlib.sha256(index.source(stem).read_bytes()).hexdigest()[:16]


def underhood_version() -> str:
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


def failures(result: Result) -> Sequence[str]:
    """What a sound result would not have: an oracle that disagrees, an ablation that broke nothing."""
    found = [f"{one['name']} disagrees: {one['detail']}" for one in result["oracles"] if not one["agrees"]]
    for one in result["ablations"]:
        if not one["broke"]:
            still = [claim["key"] for claim in one["claims"] if claim["verdict"] in HELD]
            found.append(f"without {one['key']} {', '.join(still)} held all the same")
    return found
