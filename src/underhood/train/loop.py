"""The training loop: `fit` trains any model by gradient descent, on one process or several.

Pretraining, fine-tuning, preference alignment and classification differ only by batches and loss. `fit` adds what they
share: gradient accumulation, clipping, the learning-rate schedule, checkpoints, events, stopping and exact resumption.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from underhood.core.device import Device
from underhood.core.errors import UserError
from underhood.core.runlog import RunLog
from underhood.train import distributed
from underhood.train.held_out import HeldOut
from underhood.train.optim import scale_lr
from underhood.train.schedule import Schedule, ScheduleSpec
from underhood.train.step_budget import StepBudget, recorded_totals
from underhood.train.stopping import Interrupted, stop_requested
from underhood.train.training_state import TrainingState, load_training_state, save_training_state, saved_tensors


class TrainingBatch(Protocol):
    """What a loss reads at once; `data.batch.Batch` is the usual one."""

    @property
    def target_count(self) -> int:
        """How many terms the loss is a sum of: target tokens, preference pairs, or texts to classify."""
        ...

    @property
    def token_count(self) -> int:
        """Tokens read, padding left out."""
        ...

    def to(self, device: Any) -> Any: ...

    def shard(self, rank: int, world_size: int) -> Any:
        """The part of the batch that one of several processes reads."""
        ...


B = TypeVar("B", bound=TrainingBatch)
B_contra = TypeVar("B_contra", contravariant=True)


class LossFn(Protocol[B_contra]):
    """The loss of a batch: its *sum* over the batch's targets, and the sums of further metrics over them, by name.

    `fit` divides by the number of targets in the whole update, over all micro-batches and processes. A mean of means
    would be another loss wherever micro-batches have different numbers of targets.
    """

    def __call__(self, model: Any, batch: B_contra, /) -> tuple[Tensor, dict[str, float]]: ...


UNFINISHED = 1 - 1e-9
"""The largest share of a training that goes on: its last step may be put off when the share is 1 already."""


@dataclass(frozen=True)
class Objective:
    """What training minimises: a loss on micro-batches, which are a pure function of their number.

    Where `batches` has a method ``epoch_of(step)``, `fit` logs the epoch.
    """

    batches: Callable[[int], Any]
    loss_fn: LossFn[Any]


@dataclass(frozen=True, kw_only=True)
class FitSpec:
    """How long and how carefully to train.

    Attributes:
        steps: optimiser updates in all; with `seconds`, those that are planned.
        seconds: time budget. The number of steps then follows the clock: it is decided anew when the machine turns out
            slower or faster, and the schedule with it (see `train.step_budget`). None trains for exactly `steps`.
        max_steps: the most steps that a faster machine may make.
        clip: largest global gradient norm; larger gradients are scaled down to it (Pascanu et al. 2013).
        schedule: the learning rate's course.
        save_every: steps between checkpoints; one is always written at the end. None saves only there.
        log_every: steps between `step` events.
        give_up_after: consecutive steps with a loss or gradient that is not finite before training stops.
        keep: checkpoints kept.
        accumulate: micro-batches per update (gradient accumulation).
        trained_only: checkpoints hold the parameters that learn and not the frozen rest (LoRA).
    """

    steps: int
    seconds: float | None = None
    max_steps: int | None = None
    clip: float = 1.0
    schedule: Schedule = ScheduleSpec()
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
        last_step: updates made in all, earlier processes included.
        stopped: the user asked to stop during the very last update; the training is finished nevertheless.
    """

    steps: int
    tokens: int
    seconds: float
    loss: float
    last_step: int
    stopped: bool = False


def fit(
    model: nn.Module,
    batches: Callable[[int], B],
    loss_fn: LossFn[B],
    optimizer: Optimizer,
    spec: FitSpec,
    *,
    stage: str,
    log: RunLog,
    device: Device | None = None,
    checkpoints: Path | None = None,
    state: dict[str, Any] | None = None,
    on_step: Callable[[int], None] | None = None,
    held_out: HeldOut | None = None,
    watch: Callable[[int, float], None] | None = None,
    flops_per_token: float = 0.0,
    peak_flops: float = 0.0,
    clock: Callable[[], float] = time.perf_counter,
) -> FitResult:
    """Trains until the last step, going on from the newest checkpoint in `checkpoints` if there is one.

    A run that is killed at any moment and started again ends with the same weights, bit for bit, as one that was not
    (on one thread; parallel reductions may differ in the last bit), because batches are a function of the step and
    the checkpoint holds model, optimiser and step.

    Under `torchrun` every process reads its part of each batch; gradients are summed over the processes (or by FSDP,
    see `train.distributed`), and only the first process should be given a log that writes.

    Args:
        batches: micro-batches by number; update s reads numbers ``s · accumulate`` and those that follow.
        optimizer: of the model's parameters; the schedule scales the learning rates that it was built with.
        device: where batches go and in which number format losses are computed; None leaves both alone.
        checkpoints: the folder for this stage's checkpoints; None keeps nothing.
        state: facts to store with every checkpoint (spec, stage, tokenizer digest).
        on_step: called after every update with the number of updates made.
        held_out: measured now and then; with ``keep_best`` the training ends with the best weights.
        watch: called at the start and after every update with the updates made and the share of the training that is
            over, which is 1 after the last update only (samples, snapshots).
        flops_per_token, peak_flops: for the logged share of the measured hardware limit; 0 leaves it out.
        clock: seconds; for the time budget and for what is logged.

    Raises:
        Interrupted: Ctrl-C or SIGTERM; a checkpoint has been written.
        UserError: the loss was not finite `give_up_after` times in a row, a checkpoint can't be read or written, or
            another process of the job has died.
    """
    rank, world_size = distributed.rank_and_size()
    now = load_training_state(model, optimizer, checkpoints, spec.trained_only)
    first, tokens_before, seconds_before = now.step, now.tokens, now.seconds
    budget = StepBudget(spec.schedule, spec.steps, spec.seconds, spec.max_steps, now.totals, (first, seconds_before))
    if first:
        log.event(stage, "note", text=f"resumed at step {first}")
        budget.replay(recorded_totals(log.path, stage, first))
    elif spec.seconds is not None:
        log.event(stage, "schedule", step=0, steps=budget.steps, decay_step=budget.decay_step)
    bad_steps, started = 0, clock()
    parameters = [p for p in model.parameters() if p.requires_grad]
    epoch_of = getattr(batches, "epoch_of", None)

    def save() -> None:
        if checkpoints is not None:
            now.totals = budget.totals
            facts = dict(state or {}) | {"stage": stage, "steps": budget.steps}
            path = save_training_state(model, optimizer, checkpoints, now, facts, spec)
            log.event(stage, "save", step=now.step, path=path.name)

    def tensors() -> dict[str, Tensor]:
        return saved_tensors(model, spec.trained_only)

    keep_best = held_out is not None and held_out.keep_best
    if keep_best and now.best.history and now.best.tensors is None:  # the model has its best weights now
        now.best.tensors = {name: tensor.clone() for name, tensor in tensors().items()}
    over = budget.share(first)
    if watch is not None:
        watch(first, over)
    model.train()
    with stop_requested() as stop, distributed.peers_alive(stage, checkpoints):
        while now.step < budget.steps:
            numbers = range(now.step * spec.accumulate, (now.step + 1) * spec.accumulate)
            micro_batches = [_prepared(batches(number), rank, world_size, device) for number in numbers]
            targets, tokens = distributed.sums(
                [sum(batch.target_count for batch in micro_batches), sum(batch.token_count for batch in micro_batches)]
            )

            # Forward and backward: every micro-batch adds its part of the gradient of the mean over all targets.
            loss_sum, metric_sums = 0.0, dict[str, float]()
            for batch in micro_batches:
                with device.autocast() if device else _NO_AUTOCAST:
                    total, metrics = loss_fn(model, batch)
                (total / max(targets, 1)).backward()
                loss_sum += float(total.detach())
                for name, metric in metrics.items():
                    metric_sums[name] = metric_sums.get(name, 0.0) + metric
            distributed.sum_gradients(parameters)
            sums = distributed.sums([loss_sum, *metric_sums.values()])
            loss, *means = [value / targets if targets else math.nan for value in sums]

            # Update: clip, follow the schedule, step; a loss or gradient that is not finite changes nothing.
            norm = distributed.clip_gradients(parameters, spec.clip)
            lr_factor = budget.lr_factor(now.step)
            now.step, now.tokens = now.step + 1, now.tokens + int(tokens)
            if math.isfinite(loss) and math.isfinite(norm):
                scale_lr(optimizer, lr_factor)
                optimizer.step()
                bad_steps = 0
                now.smoothed = loss if math.isnan(now.smoothed) else 0.9 * now.smoothed + 0.1 * loss
            else:
                bad_steps += 1
                log.event(stage, "skip", step=now.step, reason=f"loss {loss}, gradient norm {norm}")
            model.zero_grad(set_to_none=True)
            if bad_steps >= spec.give_up_after:
                raise UserError(
                    f"{stage}: the loss was not finite {bad_steps} steps in a row (last at step {now.step})",
                    fix="Lower the learning rate, lengthen the warm-up, or look for broken documents in the data",
                )

            # The clock may change the number of steps; all processes go by the first one's clock.
            elapsed, stop_signals = distributed.sums([clock() - started if rank == 0 else 0.0, float(stop.is_set())])
            now.seconds = seconds_before + elapsed
            if budget.update(now.step, now.seconds):
                log.event(stage, "schedule", step=now.step, steps=budget.steps, decay_step=budget.decay_step)
            if now.step % spec.log_every == 0 or now.step >= budget.steps:
                speed = (now.tokens - tokens_before) / max(elapsed, 1e-9)
                share = {"utilisation": speed * flops_per_token / peak_flops} if peak_flops else {}
                log.event(
                    stage,
                    "step",
                    step=now.step,
                    steps=budget.steps,
                    loss=loss,
                    smoothed=now.smoothed,
                    grad_norm=norm,
                    lr_factor=lr_factor,
                    tokens=now.tokens,
                    tokens_per_second=speed,
                    seconds_left=elapsed / (now.step - first) * (budget.steps - now.step),
                    targets=int(targets),
                    **share,
                    **dict(zip(metric_sums, means, strict=True)),
                    **({"epoch": epoch_of(now.step)} if epoch_of else {}),
                )
            over, before = budget.share(now.step), over
            finished = now.step >= budget.steps
            if held_out is not None and (finished or held_out.due(now.step, before, over)):
                before_measuring = clock()
                measured = held_out.measure(model, device)
                log.event(stage, "eval", step=now.step, **measured, seconds=round(clock() - before_measuring, 4))
                if keep_best:
                    now.best.add(now.step, measured["loss"], tensors)
                    if now.best.overdue and not finished and spec.seconds is not None:
                        budget.end(now.step)
                        log.event(stage, "schedule", step=now.step, steps=now.step, decay_step=budget.decay_step)
                        finished = True
            if watch is not None:
                watch(now.step, 1.0 if finished else min(over, UNFINISHED))
            if on_step is not None:
                on_step(now.step)
                stop_signals = distributed.sums([float(stop.is_set())])[0]
            if finished:
                _take_best(model, now, tensors(), stage, log)
            if finished or stop_signals or (spec.save_every and now.step % spec.save_every == 0):
                save()
            if stop_signals and not finished:
                raise Interrupted(stage, now.step)
    model.eval()
    if spec.seconds is not None and first < now.step < 0.5 * spec.steps:
        planned = f"{spec.seconds:.0f} s ({spec.steps:,} were planned)"
        log.event(stage, "note", text=f"only {now.step:,} steps fit into {planned}: the machine is slow or busy")
    return FitResult(
        steps=now.step - first,
        tokens=now.tokens - tokens_before,
        seconds=clock() - started,
        loss=now.smoothed,
        last_step=now.step,
        stopped=stop.is_set(),
    )


def _take_best(model: nn.Module, now: TrainingState, own: dict[str, Tensor], stage: str, log: RunLog) -> None:
    """Puts the weights of the lowest held-out loss into the model, if later ones were worse."""
    best = now.best
    if best.tensors is None or best.step >= now.step:
        return
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(best.tensors[name])
    log.event(stage, "best", step=best.step, last_step=now.step, loss=best.loss, last_loss=best.history[-1][1])
    best.tensors = None


_NO_AUTOCAST = Device().autocast()


def _prepared(batch: B, rank: int, world_size: int, device: Device | None) -> B:
    if world_size > 1:
        batch = batch.shard(rank, world_size)
    return batch if device is None else batch.to(device.torch)
