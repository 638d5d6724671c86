"""The training of a given model on judged answers, whether it ends as an aligned model or as a reward model."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from underhood.core.device import Device, choose_device
from underhood.core.files import write_text
from underhood.core.provenance import commit
from underhood.core.runlog import RunLog
from underhood.infer.load import LoadedModel, load
from underhood.models.decoder import Decoder
from underhood.recipes.finetune import adapt_model
from underhood.recipes.finetune_spec import FinetuneSpec
from underhood.recipes.training import Trainer
from underhood.recipes.tuned_run import rank_of
from underhood.train.hardware import faster_dtype
from underhood.train.loop import FitResult, FitSpec, LossFn, Objective
from underhood.train.optim import OptimizerSpec
from underhood.train.schedule import ScheduleSpec


class EpochBatches(Protocol):
    """Batches by step number that can also be gone through once."""

    @property
    def batches_per_epoch(self) -> int: ...

    def __call__(self, step: int, /) -> Any: ...

    def once(self) -> Iterator[Any]: ...


@dataclass(frozen=True)
class JudgedObjective:
    """Batches of judged answers and their loss."""

    batches: EpochBatches
    loss_fn: LossFn[Any]

    @torch.no_grad()
    def measure(self, model: nn.Module, device: Device) -> dict[str, float]:
        """The loss and the loss function's metrics, each the mean over all examples, of the model as it is."""
        training, sums, count = model.training, dict[str, float](), 0
        model.eval()
        for batch in self.batches.once():
            moved = batch.to(device.torch)
            with device.autocast():
                loss, metrics = self.loss_fn(model, moved)
            for name, value in {"loss": float(loss), **metrics}.items():
                sums[name] = sums.get(name, 0.0) + value
            count += moved.target_count
        model.train(training)
        return {name: value / count for name, value in sums.items()}


@dataclass(frozen=True)
class TunedOnJudgements:
    """What came out of a training on judged answers.

    Attributes:
        form: of the file: pairs, rankings or labels.
        before, after: mean loss and metrics on the held-out prompts, by ``validation`` and ``test``.
    """

    path: Path
    steps: int
    trained_parameters: int
    parameters: int
    form: str
    before: dict[str, dict[str, float]]
    after: dict[str, dict[str, float]]


@dataclass(frozen=True)
class Workplace:
    """The device and the model of a training."""

    device: Device
    loaded: LoadedModel

    @classmethod
    def open(cls, spec: FinetuneSpec, stage: str, log: RunLog) -> "Workplace":
        log.event(stage, "note", text=f"model {spec.model}, data {spec.data}")
        name = choose_device(spec.device)
        device = Device(name=name, dtype=spec.dtype or faster_dtype(name))
        loaded = load(spec.model, spec.stage, device=device.torch, progress=log.counter(stage, "reading the model"))
        return cls(device, loaded)


def adapted(spec: FinetuneSpec, decoder: Decoder) -> int:
    """Gives the decoder its adapters, or frees all its weights; returns the adapters' rank, 0 for none."""
    rank = rank_of(spec, decoder)
    adapt_model(decoder, spec, rank)
    return rank


def train_on_judgements(
    spec: FinetuneSpec,
    model: nn.Module,
    decoder: Decoder,
    objective: JudgedObjective,
    *,
    stage: str,
    optimizer: OptimizerSpec,
    rank: int,
    device: Device,
    log: RunLog,
    checkpoints: Path,
) -> FitResult:
    """Trains `model`, which is or holds the decoder; an interrupted training goes on."""
    epoch = objective.batches.batches_per_epoch
    steps = spec.steps or max(1, round(spec.epochs * epoch / spec.accumulate))
    trainer = Trainer(
        name=stage,
        optimizer=optimizer,
        fit=FitSpec(
            steps=steps,
            seconds=60 * spec.minutes if spec.minutes is not None and spec.steps is None else None,
            max_steps=steps,
            schedule=ScheduleSpec(warmup=0.1, decay=0.9),
            save_every=spec.save_every,
            keep=1,
            accumulate=spec.accumulate,
            trained_only=rank > 0,
        ),
        device=device,
        log=log,
        checkpoints=checkpoints,
        announced={
            "trained_parameters": trained_parameters(model),
            "lora_rank": rank,
            "batches_per_epoch": epoch,
        },
    )
    decoder.checkpointing = spec.checkpointing
    result = trainer.train(model, Objective(objective.batches, objective.loss_fn))
    decoder.checkpointing = False
    return result


def trained_parameters(model: nn.Module) -> int:
    """How many numbers learn."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def measure_all(
    objectives: Mapping[str, JudgedObjective], model: nn.Module, device: Device
) -> dict[str, dict[str, float]]:
    """`JudgedObjective.measure` of each."""
    return {name: objective.measure(model, device) for name, objective in objectives.items()}


def run_facts(out: Path, rate: float, rank: int) -> dict[str, Any]:
    """Facts of a training for its ``results.json``."""
    versions = {name: importlib.metadata.version(name) for name in ("underhood", "torch")}
    return {"path": str(out), "lr": rate, "lora_rank": rank, "commit": commit(), "versions": versions}


def leave_results(
    done: TunedOnJudgements, result: FitResult, facts: Mapping[str, Any], stage: str, log: RunLog
) -> TunedOnJudgements:
    """Writes ``results.json`` once the model is written, removes the checkpoints of its training and logs the end."""
    write_text(done.path / "results.json", json.dumps(asdict(done) | dict(facts), indent=1))
    shutil.rmtree(done.path / "training", ignore_errors=True)
    figures = {f"{name}_accuracy": row["preference_accuracy"] for name, row in done.after.items()}
    log.event(stage, "end", seconds=result.seconds, tokens=result.tokens, loss=result.loss, **figures)
    return done


def noting(log: RunLog, stage: str) -> Callable[[str], Any]:
    """Writes notes into the log."""
    return lambda text: log.event(stage, "note", text=text)
