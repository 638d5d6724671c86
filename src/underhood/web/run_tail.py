"""A run's log followed while it grows: each look reads only what was written since the last one."""

from __future__ import annotations

import bisect
import json
import math
import threading
import time
from array import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from underhood.recipes.report.curves import stage_curve
from underhood.recipes.stages.registry import find_stage
from underhood.ui.curves import Curve

Status = Literal["running", "stopped", "finished"]
SILENCE = 300.0
"""Seconds without an event after which an unfinished run counts as stopped. Evaluating is the longest silence."""
BETWEEN = 30.0
"""Seconds that a build may take from the end of one stage to the beginning of the next."""

NOT_DRAWN = {"step", "steps", "time", "tokens", "smoothed", "epoch", "seconds_left"}


@dataclass
class Training:
    """The steps of one stage as columns, each step once and rising; the log of an earlier attempt is dropped.

    Attributes:
        times: Unix seconds of the steps; NaN where the log has none.
        columns: quantity to its values, NaN where a step did not log it; all as long as `steps`.
        planned: updates planned, as the last step says.
    """

    steps: array[int] = field(default_factory=lambda: array("q"))
    times: array[float] = field(default_factory=lambda: array("d"))
    columns: dict[str, array[float]] = field(default_factory=dict)
    marks: list[dict[str, Any]] = field(default_factory=list)
    planned: int | None = None
    seconds_left: float | None = None

    def add(self, event: dict[str, Any]) -> None:
        step = event.get("step")
        if not isinstance(step, int):
            return
        keep = len(self.steps)
        while keep and self.steps[keep - 1] >= step:
            keep -= 1
        if keep < len(self.steps):
            for column in (self.steps, self.times, *self.columns.values()):
                del column[keep:]
        for key, value in event.items():
            if isinstance(value, (int, float)) and key not in self.columns and key not in ("step", "time"):
                self.columns[key] = array("d", [math.nan]) * keep
        self.steps.append(step)
        logged = event.get("time")
        self.times.append(float(logged) if isinstance(logged, (int, float)) else math.nan)
        for key, column in self.columns.items():
            value = event.get(key)
            column.append(float(value) if isinstance(value, (int, float)) else math.nan)
        planned, left = event.get("steps"), event.get("seconds_left")
        self.planned = planned if isinstance(planned, int) else self.planned
        self.seconds_left = float(left) if isinstance(left, (int, float)) else None

    def last(self, key: str) -> float | None:
        """The last logged value of a quantity."""
        value = self.columns[key][-1] if self.columns.get(key) else math.nan
        return None if math.isnan(value) else value

    def curves(self, stage: str) -> dict[str, Curve]:
        """Everything drawable, by quantity: first what the report draws too, then the rest in the order logged."""
        record = find_stage(stage)
        first = record.curves if record else ("loss",)
        keys = [*(key for key in first if key in self.columns), *self.columns]
        drawn = {key: self._curve(stage, key) for key in dict.fromkeys(keys) if key not in NOT_DRAWN}
        return {key: curve for key, curve in drawn.items() if curve is not None}

    def _curve(self, stage: str, key: str) -> Curve | None:
        there = [index for index, value in enumerate(self.columns[key]) if not math.isnan(value)]
        if len(there) < 2:
            return None
        x = [self.steps[index] for index in there]
        tokens, rates = self.columns.get("tokens"), self.columns.get("lr_factor")
        return stage_curve(
            stage,
            key,
            x,
            [self.columns[key][index] for index in there],
            evals=self.marks,
            rates=(self.steps, rates) if rates else None,
            tokens=[int(tokens[index]) for index in there] if tokens and not any(map(math.isnan, tokens)) else None,
            planned=self.planned,
        )


class RunTail:
    """``events.jsonl`` of one run as far as it has been written; safe to share between threads.

    Attributes:
        seen: bytes read so far, always up to the end of a line.
        events: all events but steps, in order.
        training: the stages that made steps, in order.
        begun: Unix seconds at which each stage first began.
        open: the stage that has begun and not ended, or None.
        time: Unix seconds of the last event, 0 without one.
    """

    def __init__(self, run: Path):
        self.run, self.file = run, run / "events.jsonl"
        self._lock = threading.Lock()
        self._forget()

    def _forget(self) -> None:
        self.seen, self._inode = 0, 0
        self.events: list[dict[str, Any]] = []
        self.training: dict[str, Training] = {}
        self.begun: dict[str, float] = {}
        self.open: str | None = None
        self.time = 0.0

    def refresh(self) -> RunTail:
        """Reads what is new. A log that was replaced or cut is read from its beginning."""
        with self._lock:
            try:
                with self.file.open("rb") as log:
                    inode, size = (status := self.file.stat()).st_ino, status.st_size
                    if inode != self._inode or size < self.seen:
                        self._forget()
                        self._inode = inode
                    log.seek(self.seen)
                    new = log.read(size - self.seen)
            except FileNotFoundError:
                self._forget()
                return self
            whole = new.rfind(b"\n") + 1  # the line after it is still being written
            for line in new[:whole].splitlines():
                self._take(line)
            self.seen += whole
        return self

    def _take(self, line: bytes) -> None:
        try:
            event = json.loads(line)
        except ValueError:  # torn by a kill
            return
        if not isinstance(event, dict) or not isinstance(stage := event.get("stage"), str):
            return
        kind = event.get("kind")
        if isinstance(event.get("time"), (int, float)):
            self.time = float(event["time"])
        if kind == "step":
            self.training.setdefault(stage, Training()).add(event)
            return
        self.events.append(event)
        if kind == "start":
            self.open = stage
            self.begun.setdefault(stage, self.time)
        elif kind == "end" and self.open == stage:
            self.open = None
        elif kind == "eval" and stage in self.training and isinstance(event.get("step"), int):
            self.training[stage].marks.append(event)

    def seconds_into(self, stage: str, step: int) -> float | None:
        """Seconds from a stage's beginning to one of its steps, or None if the log does not tell."""
        training = self.training.get(stage)
        if training is None or stage not in self.begun:
            return None
        if step == 0:
            return 0.0
        index = bisect.bisect_left(training.steps, step)
        if index == len(training.steps) or math.isnan(training.times[index]):
            return None
        return max(0.0, training.times[index] - self.begun[stage])

    def films(self) -> dict[str, dict[str, Any]]:
        """The samples that stages took of their model while they trained it, by stage: the prompt, and frames in order.

        A step that was made again after an interruption drops what the first attempt sampled from it on.
        """
        films: dict[str, dict[str, Any]] = {}
        for event in self.events:
            step, text, stage = event.get("step"), event.get("text"), event["stage"]
            if event.get("kind") != "sample" or not isinstance(step, int) or not isinstance(text, str):
                continue
            film = films.setdefault(stage, {"prompt": "", "frames": []})
            film["prompt"] = str(event.get("prompt") or "")
            film["frames"] = [frame for frame in film["frames"] if frame["step"] < step]
            logged, begun = event.get("time"), self.begun.get(stage)
            seconds = max(0.0, logged - begun) if isinstance(logged, (int, float)) and begun is not None else None
            film["frames"].append({"step": step, "text": text, "seconds": seconds})
        return films

    def status(self) -> Status:
        """Whether it goes on, was stopped, or has all it was meant to have."""
        last = self.events[-1] if self.events else {}
        silent = time.time() - self.time
        if self.open is not None:
            return "running" if silent < SILENCE else "stopped"
        build = (self.run / "run.toml").exists()
        if build and last.get("stage") != "report" and silent < BETWEEN:
            return "running"
        done = (self.run / "summary.json").exists() or (not build and last.get("kind") == "end")
        return "finished" if done else "stopped"
