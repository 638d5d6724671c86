"""What it costs to watch a training: the share of each stage's time that samples and held-out loss take.

Run it with ``python benchmarks/bench_watching.py RUN`` on a run of ``underhood build``. The build times both and
keeps them in its log; nothing is trained here. It prints a table and one JSON line.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from harness import print_json
from underhood.core.runlog import read_events


def cost(events: list[dict[str, Any]], stage: str) -> dict[str, float] | None:
    """Seconds of a stage, and of its samples and its held-out loss; None if it was not trained."""
    own = [event for event in events if event["stage"] == stage]
    seconds = next((event["seconds"] for event in own if event["kind"] == "end"), None)
    if seconds is None or not any(event["kind"] == "step" for event in own):
        return None
    timed = {kind: [event for event in own if event["kind"] == kind] for kind in ("sample", "eval")}
    if not all("seconds" in event for each in timed.values() for event in each):
        raise SystemExit("this run was built before samples were timed: build one anew")
    return {
        "seconds": seconds,
        "samples": len(timed["sample"]),
        "sample_seconds": sum(event["seconds"] for event in timed["sample"]),
        "held_out": len(timed["eval"]),
        "held_out_seconds": sum(event["seconds"] for event in timed["eval"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    events = list(read_events(parser.parse_args().run / "events.jsonl"))
    stages = {stage: cost(events, stage) for stage in ("pretrain", "sft", "dpo")}
    trained = {stage: each for stage, each in stages.items() if each is not None}
    if not trained:
        raise SystemExit("no stage of this folder was trained: give the folder of a run")
    for stage, each in trained.items():
        shares = [each[kind] / each["seconds"] for kind in ("sample_seconds", "held_out_seconds")]
        print(f"{stage:9} {each['seconds']:6.1f} s   {each['samples']:2.0f} samples {shares[0]:6.2%}", end="")
        print(f"   held-out loss {each['held_out']:2.0f} times {shares[1]:6.2%}")
    total = sum(each["seconds"] for each in trained.values())
    share = sum(each["sample_seconds"] + each["held_out_seconds"] for each in trained.values()) / total
    print(f"all       {total:6.1f} s   watching {share:.2%}")
    print_json("watching", {"stages": trained, "share": share})


if __name__ == "__main__":
    main()
