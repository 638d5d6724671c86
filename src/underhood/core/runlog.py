"""The run log: one append-only file of events that the progress line, the report and the web page all read.

Every line of ``events.jsonl`` is one JSON object with ``time`` (Unix seconds), ``stage`` (data, tokenizer, plan,
the training stages, eval, report) and ``kind``; the other keys depend on the kind:

========  ============================================================================================
kind      keys
========  ============================================================================================
start     what the stage is about to do (free-form facts)
step      step, steps, loss (nats per token), tokens, lr, grad_norm, tokens_per_second, and what a loss adds
eval      step, and one key per measured quantity; in a training stage they are of held-out data
sample    step, share (of the stage, 0 to 1), prompt, text: what the model wrote then
best      step, loss (held out) of the weights that were kept; last_step, last_loss of those that were not
save      step, path (relative to the run folder)
schedule  step, steps (how many there will be, as decided after `step`), decay_step (where the learning rate falls)
skip      step, reason (a step without update: the loss was not finite)
note      text
end       seconds, and the stage's results
========  ============================================================================================

Listeners, and only they, are also told of work within a stage that goes by counts: kind ``count`` with text, done,
total and unit (see `RunLog.counter`).
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path
from typing import Any

from underhood.core.files import storage_errors
from underhood.core.text_files import encode

_FIX = "Free some space or choose another folder, then resume"


class RunLog:
    """Appends events to ``events.jsonl`` and hands each to the listeners (a progress bar, a test).

    A line is written at once and past all buffers, so a killed process leaves at most one half line at the end, which
    `read_events` ignores and the next writer ends with a newline.

    Raises:
        UserError: the place can't be written, or the disk is full (from `event` too).
    """

    def __init__(self, path: Path | None):
        self.path = path
        self.listeners: list[Any] = []
        self._file: FileIO | None = None
        if path is not None:
            with storage_errors(path, _FIX):
                path.parent.mkdir(parents=True, exist_ok=True)
                self._file = path.open("ab+", buffering=0)
            if _torn(self._file):
                self._write(b"\n")

    def event(self, stage: str, kind: str, **fields: Any) -> dict[str, Any]:
        """Records one event; values must be JSON (NaN and infinities become null)."""
        record = {"time": round(time.time(), 3), "stage": stage, "kind": kind} | {
            key: (None if isinstance(value, float) and not math.isfinite(value) else value)
            for key, value in fields.items()
        }
        if self._file is not None:
            self._write(encode(json.dumps(record, ensure_ascii=False) + "\n"))
        for listener in self.listeners:
            listener(record)
        return record

    def counter(self, stage: str, text: str, unit: str = "bytes") -> Callable[[int, int], None]:
        """A progress callback for a stage: called with the work done and the total; shown live, not written to the log.

        Args:
            text: what is being done, e.g. "reading the model".
            unit: what is counted: bytes, or a word for many of them.
        """

        def tell(done: int, total: int) -> None:
            record = {"stage": stage, "kind": "count", "text": text, "done": done, "total": total, "unit": unit}
            for listener in self.listeners:
                listener(record)

        return tell

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, line: bytes) -> None:
        assert self._file is not None
        assert self.path is not None
        with storage_errors(self.path, _FIX):
            while line:  # a disk that fills up takes a part first and refuses the rest
                line = line[self._file.write(line) :]


def _torn(file: FileIO) -> bool:
    """Whether the file ends within a line."""
    if file.seek(0, os.SEEK_END) == 0:
        return False
    file.seek(-1, os.SEEK_END)
    return file.read(1) != b"\n"


def read_events(path: Path) -> Iterator[dict[str, Any]]:
    """The events of a log in order; a torn line (the process died while writing) is passed over."""
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as lines:  # a torn line may end within a character
        for line in lines:
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                continue
            if isinstance(record, dict):
                yield record
