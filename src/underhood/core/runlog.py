"""The run log: one append-only file of events that the progress line, the report and the web page all read.

Every line of ``events.jsonl`` is one JSON object with ``time`` (Unix seconds), ``stage`` (data, tokenizer, plan,
pretrain, sft, dpo, eval, report) and ``kind``; the other keys depend on the kind:

========  ============================================================================================
kind      keys
========  ============================================================================================
start     what the stage is about to do (free-form facts)
step      step, steps, loss (nats per token), tokens, lr, grad_norm, tokens_per_second, and what a loss adds
eval      step, and one key per measured quantity
save      step, path (relative to the run folder)
skip      step, reason (a step without update: the loss was not finite)
note      text
end       seconds, and the stage's results
========  ============================================================================================
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class RunLog:
    """Appends events to ``events.jsonl`` and hands each to the listeners (a progress bar, a test).

    A line is written with one `write` call and flushed, so a killed process leaves at most one half line at the end,
    which `read_events` ignores and the next writer ends with a newline.
    """

    def __init__(self, path: Path | None):
        self.path = path
        self.listeners: list[Any] = []
        self._file = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            torn = path.exists() and path.stat().st_size > 0 and path.read_bytes()[-1:] != b"\n"
            self._file = path.open("a", encoding="utf-8")
            if torn:
                self._file.write("\n")

    def event(self, stage: str, kind: str, **fields: Any) -> dict[str, Any]:
        """Records one event; values must be JSON (NaN and infinities become null)."""
        record = {"time": round(time.time(), 3), "stage": stage, "kind": kind} | {
            key: (None if isinstance(value, float) and not math.isfinite(value) else value)
            for key, value in fields.items()
        }
        if self._file is not None:
            self._file.write(json.dumps(record, ensure_ascii=False) + "\n")
            self._file.flush()
        for listener in self.listeners:
            listener(record)
        return record

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def read_events(path: Path) -> Iterator[dict[str, Any]]:
    """The events of a log in order; a torn line (the process died while writing) is passed over."""
    if not path.exists():
        return
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                continue
            if isinstance(record, dict):
                yield record
