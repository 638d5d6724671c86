"""The one training loop: pretraining, fine-tuning and preference training differ only by batches and loss."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from underhood.core.checkpoint import load_module, module_tensors, newest, read_checkpoint, write_checkpoint
from underhood.core.errors import UserError
from underhood.core.runlog import RunLog
from underhood.train.optim import Optimizer
from underhood.train.schedule import ScheduleSpec


class Interrupted(Exception):
    """The user asked to stop; everything up to `step` is in a checkpoint."""

    def __init__(self, stage: str, step: int):
        self.stage, self.step = stage, step
        super().__init__(f"stopped in {stage} after step {step}")


class Step(Protocol):
    """One micro-batch's loss: computes it for step number `step`, and says what else to log.

    Returns the scalar loss to differentiate, the tokens that were read, and further figures by name.
    """

    def __call__(self, step: int, /) -> tuple[Tensor, int, dict[str, float]]: ...


@dataclass(frozen=True, kw_only=True)
class FitSpec:
    """How long and how carefully to train.

    Attributes:
        steps: optimiser updates in all.
        clip: largest global gradient norm; larger gradients are scaled down to it (Pascanu et al. 2013).
        schedule: the learning rate's course.
        save_every: steps between checkpoints; one is always written at the end. None saves only there.
        log_every: steps between `step` events.
        give_up_after: consecutive steps with a loss or gradient that is not finite before training stops.
        keep: checkpoints kept.
    """

    steps: int
    clip: float = 1.0
    schedule: ScheduleSpec = ScheduleSpec()
    save_every: int | None = None
    log_every: int = 1
    give_up_after: int = 10
    keep: int = 2

    def __post_init__(self):
        for name in ("steps", "log_every", "give_up_after", "keep"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


@dataclass
class FitResult:
    """What a training run did: updates made, tokens read, seconds of this process, the last smoothed loss."""

    steps: int
    tokens: int
    seconds: float
    loss: float


def fit(
    model: nn.Module,
    step_loss: Step,
    optimizer: Optimizer,
    spec: FitSpec,
    *,
    stage: str,
    log: RunLog,
    checkpoints: Path | None = None,
    state: dict[str, Any] | None = None,
    on_step: Callable[[int], None] | None = None,
    flops_per_token: float = 0.0,
    peak_flops: float = 0.0,
) -> FitResult:
    """Trains until `spec.steps`, going on from the newest checkpoint in `checkpoints` if there is one.

    A run that is killed at any moment and started again ends with the same weights, bit for bit, as one that was not
    (on one thread; parallel reductions may differ in the last bit), because batches are a function of the step and
    the checkpoint holds model, optimiser and step.

    Args:
        step_loss: gives the loss of a step; see `Step`.
        checkpoints: the folder for this stage's checkpoints; None keeps nothing.
        state: facts to store with every checkpoint (spec, stage, tokenizer digest).
        on_step: called after every update with the number of updates made (evaluation, samples).
        flops_per_token, peak_flops: for the logged share of the measured hardware limit; 0 leaves it out.

    Raises:
        Interrupted: Ctrl-C or SIGTERM; a checkpoint has been written.
        UserError: the loss was not finite `give_up_after` times in a row, or a checkpoint can't be read or written.
    """
    first, tokens_before, smoothed = _resume(model, optimizer, checkpoints)
    tokens, bad = tokens_before, 0
    started = time.perf_counter()
    if first:
        log.event(stage, "note", text=f"resumed at step {first}")

    def save(done: int) -> None:
        if checkpoints is not None:
            facts = dict(state or {}) | {"stage": stage, "step": done, "steps": spec.steps, "tokens": tokens}
            facts["smoothed"] = None if math.isnan(smoothed) else smoothed
            groups = {"model": module_tensors(model), "optimizer": optimizer.state()}
            path = write_checkpoint(checkpoints, done, groups, facts, keep=spec.keep)
            log.event(stage, "save", step=done, path=path.name)

    model.train()
    with _stop_requested() as stop:
        for step in range(first, spec.steps):
            rate = spec.schedule.factor(step, spec.steps)
            loss, count, extra = step_loss(step)
            loss.backward()
            norm = float(nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], spec.clip))
            value = float(loss.detach())
            tokens += count
            if math.isfinite(value) and math.isfinite(norm):
                optimizer.step(rate)
                bad = 0
                smoothed = value if math.isnan(smoothed) else 0.9 * smoothed + 0.1 * value
            else:
                bad += 1
                log.event(stage, "skip", step=step + 1, reason=f"loss {value}, gradient norm {norm}")
            model.zero_grad(set_to_none=True)
            done = step + 1
            if bad >= spec.give_up_after:
                raise UserError(
                    f"{stage}: the loss was not finite {bad} steps in a row (last at step {done})",
                    fix="Lower the learning rate, lengthen the warm-up, or look for broken documents in the data",
                )
            if done % spec.log_every == 0 or done == spec.steps:
                elapsed = time.perf_counter() - started
                speed = (tokens - tokens_before) / max(elapsed, 1e-9)
                share = {"utilisation": speed * flops_per_token / peak_flops} if peak_flops else {}
                log.event(
                    stage,
                    "step",
                    step=done,
                    steps=spec.steps,
                    loss=value,
                    smoothed=smoothed,
                    grad_norm=norm,
                    rate=rate,
                    tokens=tokens,
                    tokens_per_second=speed,
                    seconds_left=elapsed / (done - first) * (spec.steps - done),
                    **share,
                    **extra,
                )
            if on_step is not None:
                on_step(done)
            stopping = stop.is_set() and done < spec.steps
            if done == spec.steps or stopping or (spec.save_every and done % spec.save_every == 0):
                save(done)
            if stopping:
                raise Interrupted(stage, done)
    model.eval()
    return FitResult(
        steps=spec.steps - first, tokens=tokens - tokens_before, seconds=time.perf_counter() - started, loss=smoothed
    )


def _resume(model: nn.Module, optimizer: Optimizer, checkpoints: Path | None) -> tuple[int, int, float]:
    """Loads the newest checkpoint, if any; returns the updates made, the tokens read and the smoothed loss so far."""
    path = newest(checkpoints) if checkpoints is not None else None
    if path is None:
        return 0, 0, math.nan
    saved = read_checkpoint(path)
    with torch.no_grad():
        load_module(model, saved.tensors("model"), path)
    optimizer.load_state(saved.tensors("optimizer"))
    smoothed = saved.state.get("smoothed")
    return saved.step, int(saved.state.get("tokens", 0)), math.nan if smoothed is None else float(smoothed)


@contextmanager
def _stop_requested() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C or SIGTERM sets; a second Ctrl-C acts as usual. Main thread only."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def request(number: int, frame: Any) -> None:
        if event.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        event.set()

    try:
        for number in previous:
            signal.signal(number, request)
        yield event
    finally:
        for number, handler in previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: not set from Python
