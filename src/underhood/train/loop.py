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

LOSS_WEIGHT = "targets"
"""The figure by which micro-batches are weighted: without it, all count alike."""


class Interrupted(Exception):
    """The user asked to stop; everything up to `step` is in a checkpoint."""

    def __init__(self, stage: str, step: int):
        self.stage, self.step = stage, step
        super().__init__(f"stopped in {stage} after step {step}")


class LossFn(Protocol):
    """One micro-batch's loss: computes it for step number `step`, and says what else to log.

    Returns the scalar loss to differentiate, the tokens that were read, and further figures by name. Where steps are
    made of several micro-batches (`FitSpec.accumulate`), whole numbers among the figures are counts and add up, others
    are averaged; the figure `LOSS_WEIGHT`, if there, says over how many targets the loss is the mean.
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
        accumulate: micro-batches per update. Their gradients add up to that of one batch of them all: each counts by
            its number of targets, not alike, for a mean of means is not the mean.
        trained_only: checkpoints hold the parameters that learn and not the frozen rest (LoRA).
    """

    steps: int
    clip: float = 1.0
    schedule: ScheduleSpec = ScheduleSpec()
    save_every: int | None = None
    log_every: int = 1
    give_up_after: int = 10
    keep: int = 2
    accumulate: int = 1
    trained_only: bool = False

    def __post_init__(self):
        for name in ("steps", "log_every", "give_up_after", "keep", "accumulate"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


@dataclass
class FitResult:
    """What a training run did: updates made, tokens read, seconds of this process, the last smoothed loss.

    Attributes:
        stopped: the user asked to stop during the very last update; the training is finished nevertheless.
    """

    steps: int
    tokens: int
    seconds: float
    loss: float
    stopped: bool = False


def fit(
    model: nn.Module,
    step_loss: LossFn,
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
        step_loss: gives the loss of a micro-batch; see `LossFn`. Numbers run on: update s reads ``s · accumulate`` and
            those that follow.
        checkpoints: the folder for this stage's checkpoints; None keeps nothing.
        state: facts to store with every checkpoint (spec, stage, tokenizer digest).
        on_step: called after every update with the number of updates made (evaluation, samples).
        flops_per_token, peak_flops: for the logged share of the measured hardware limit; 0 leaves it out.

    Raises:
        Interrupted: Ctrl-C or SIGTERM; a checkpoint has been written.
        UserError: the loss was not finite `give_up_after` times in a row, or a checkpoint can't be read or written.
    """
    first, tokens_before, smoothed = _resume(model, optimizer, checkpoints, spec.trained_only)
    tokens, bad = tokens_before, 0
    started = time.perf_counter()
    if first:
        log.event(stage, "note", text=f"resumed at step {first}")

    def save(done: int) -> None:
        if checkpoints is not None:
            facts = dict(state or {}) | {"stage": stage, "step": done, "steps": spec.steps, "tokens": tokens}
            facts["smoothed"] = None if math.isnan(smoothed) else smoothed
            groups = {"model": _kept(model, spec.trained_only), "optimizer": optimizer.state()}
            path = write_checkpoint(checkpoints, done, groups, facts, keep=spec.keep)
            log.event(stage, "save", step=done, path=path.name)

    model.train()
    with _stop_requested() as stop:
        for step in range(first, spec.steps):
            lr_factor = spec.schedule.lr_factor(step, spec.steps)
            value, count, extra = _gradients(model, step_loss, step, spec.accumulate)
            norm = float(nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], spec.clip))
            tokens += count
            if math.isfinite(value) and math.isfinite(norm):
                optimizer.step(lr_factor)
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
                    lr_factor=lr_factor,
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
        steps=spec.steps - first,
        tokens=tokens - tokens_before,
        seconds=time.perf_counter() - started,
        loss=smoothed,
        stopped=stop.is_set(),
    )


def _gradients(model: nn.Module, step_loss: LossFn, step: int, parts: int) -> tuple[float, int, dict[str, float]]:
    """Leaves the gradient of update `step` in the parameters; returns its loss, tokens and figures."""
    if parts == 1:
        loss, tokens, extra = step_loss(step)
        loss.backward()
        return float(loss.detach()), tokens, extra
    total = value = 0.0
    tokens, figures = 0, dict[str, float]()
    for part in range(parts):
        loss, count, extra = step_loss(step * parts + part)
        weight = float(extra.get(LOSS_WEIGHT, 1))
        if weight:  # nothing to learn in it: its mean is no number
            (loss * weight).backward()
            value += weight * float(loss.detach())
        total, tokens = total + weight, tokens + count
        for name, figure in extra.items():
            figures[name] = figures.get(name, 0) + (figure if isinstance(figure, int) else figure * weight)
    if total == 0:
        return math.nan, tokens, figures
    for parameter in model.parameters():
        if parameter.grad is not None:
            parameter.grad.mul_(1 / total)
    shown = {name: figure if isinstance(figure, int) else figure / total for name, figure in figures.items()}
    return value / total, tokens, shown


def _resume(
    model: nn.Module, optimizer: Optimizer, checkpoints: Path | None, trained_only: bool
) -> tuple[int, int, float]:
    """Loads the newest checkpoint, if any; returns the updates made, the tokens read and the smoothed loss so far."""
    path = newest(checkpoints) if checkpoints is not None else None
    if path is None:
        return 0, 0, math.nan
    saved = read_checkpoint(path)
    tensors = saved.tensors("model")
    with torch.no_grad():
        if trained_only:  # the frozen rest is whatever the model holds
            tensors = module_tensors(model) | _fitting(tensors, _kept(model, True), path)
        load_module(model, tensors, path)
    optimizer.load_state(saved.tensors("optimizer"))
    smoothed = saved.state.get("smoothed")
    return saved.step, int(saved.state.get("tokens", 0)), math.nan if smoothed is None else float(smoothed)


def _kept(model: nn.Module, trained_only: bool) -> dict[str, Tensor]:
    """What a checkpoint holds of the model."""
    tensors = module_tensors(model)
    if not trained_only:
        return tensors
    return {name: tensors[name] for name, parameter in model.named_parameters() if parameter.requires_grad}


def _fitting(tensors: dict[str, Tensor], own: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    if odd := tensors.keys() ^ own.keys():
        raise UserError(f"{path} does not belong to what is trained here", got=f"a difference at {min(odd)!r}")
    return tensors


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
