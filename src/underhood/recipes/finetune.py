"""Fine-tuning any model on a file of conversations: by LoRA or whole, into a folder of its own.

The folder is a run in small: ``finetune.toml`` (the settings), ``events.jsonl``, the tokenizer, ``checkpoints/sft`` (a
model like any other: LoRA is folded in), ``adapter`` (LoRA alone, in peft's form), ``split.json`` (which conversations
were held out) and ``results.json``. What is interrupted goes on.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from underhood.align.adapter import names_of, save_adapter
from underhood.align.sft import SFTLoss
from underhood.core.device import Device, choose_device
from underhood.core.errors import UserError
from underhood.core.files import write_text
from underhood.core.provenance import commit
from underhood.core.runlog import RunLog
from underhood.data.conversations import Conversation, read_conversations, split_conversations
from underhood.data.render import ChatBatches, padded
from underhood.data.render_conversations import render_conversations
from underhood.infer.load import LoadedModel, load
from underhood.models.base import parameter_count
from underhood.models.decoder import Decoder
from underhood.models.hub_weights import Progress
from underhood.nn.lora import LoRASpec, fold
from underhood.nn.qlora_linear import quantize_linears
from underhood.recipes.finetune_spec import FINETUNE_FILE, FinetuneSpec
from underhood.recipes.published_run import no_template_fix
from underhood.recipes.stages.sft import STAGE as SFT
from underhood.recipes.training import Trainer
from underhood.recipes.training_data import chosen
from underhood.recipes.tuned_run import rank_of, training_in_folder, write_model
from underhood.text.chat import CHATML, Rendered, Template
from underhood.train.hardware import faster_dtype
from underhood.train.loop import FitSpec, Objective
from underhood.train.optim import AdamWSpec
from underhood.train.schedule import ScheduleSpec

SCORED = 200
"""Held-out conversations of each kind that are scored, before and after: more say little and take minutes."""

STAGE = SFT.name


@dataclass(frozen=True)
class Score:
    """How well a model predicts held-out answers.

    Attributes:
        loss: nats per answer token.
        accuracy: share of answer tokens that it would have chosen itself.
        tokens: answer tokens.
    """

    loss: float
    accuracy: float
    tokens: int


@dataclass(frozen=True)
class Finetuned:
    """What came out.

    Attributes:
        before, after: scores on the held-out conversations, by ``validation`` and ``test``.
    """

    path: Path
    steps: int
    trained_parameters: int
    parameters: int
    form: str
    before: dict[str, Score]
    after: dict[str, Score]


@dataclass(frozen=True)
class Student:
    """The model that is trained, and what it is trained with.

    Attributes:
        loaded: the model with its tokenizer.
        template: how its conversations are written.
        conversations: those to train on.
        batches: the same as tokens, answers as targets.
    """

    loaded: LoadedModel
    template: Template
    device: Device
    conversations: Sequence[Conversation]
    batches: ChatBatches


class TuningMethod(Protocol):
    """What differs between ways of training on conversations."""

    @property
    def stage(self) -> str:
        """The name of the training in the log, and of the model that it leaves."""
        ...

    def training_data(self, conversations: Sequence[Conversation], loaded: LoadedModel) -> Sequence[Conversation]:
        """The conversations to train on, from those of the file."""
        ...

    def measure(self, held_out: Mapping[str, Sequence[Rendered]], device: Device) -> dict[str, Any]:
        """Further results of the run, measured on the held-out conversations before the training."""
        ...

    def objective(self, student: Student) -> Objective:
        """The batches and the loss; the batches have `rows_per_epoch`."""
        ...


class SupervisedMethod:
    """Supervised fine-tuning: the answers of the file are what is learnt."""

    stage = STAGE

    def training_data(self, conversations: Sequence[Conversation], loaded: LoadedModel) -> Sequence[Conversation]:
        return conversations

    def measure(self, held_out: Mapping[str, Sequence[Rendered]], device: Device) -> dict[str, Any]:
        return {}

    def objective(self, student: Student) -> Objective:
        return Objective(student.batches, SFTLoss())


def finetune_model(spec: FinetuneSpec, out: Path) -> tuple[RunLog, Callable[[], Finetuned]]:
    """Makes the folder and returns the log and the work to call (see `recipes.tuned_run.training_in_folder`)."""

    def tune(spec: FinetuneSpec, out: Path, log: RunLog) -> Finetuned:
        return tune_on_conversations(spec, out, log, SupervisedMethod())

    return training_in_folder(spec, out, FINETUNE_FILE, tune)


def default_rate(d_model: int, lora: bool) -> float:
    """Learning rates that serve at widths from 128 to 8192: 2e-5 (all weights) and 2e-4 (LoRA) at 4096, where they are
    customary; all weights scale with 1/width (Yang et al. 2022), adapters with its root."""
    return 2e-4 * math.sqrt(4096 / d_model) if lora else 2e-5 * 4096 / d_model


def tune_on_conversations(spec: FinetuneSpec, out: Path, log: RunLog, method: TuningMethod) -> Finetuned:
    """The work of a training on conversations, whatever it learns from them, in a claimed folder."""
    stage = method.stage
    log.event(stage, "note", text=f"model {spec.model}, data {spec.data}")
    name = choose_device(spec.device)
    device = Device(name=name, dtype=spec.dtype or faster_dtype(name))
    reading = log.counter(stage, "reading the model")
    loaded = load(spec.model, spec.stage, device=device.torch, progress=reading)
    model = loaded.decoder
    conversations = read_conversations(Path(spec.data))
    log.event(stage, "note", text=f"{len(conversations):,} conversations in the form {conversations.form}")
    if conversations.unused:
        names = ", ".join(f"{name} ({count:,}×)" for name, count in conversations.unused.items())
        log.event(stage, "note", text=f"fields that are not used: {names}")
    parts = _split(spec, conversations.examples)
    sources = {name: [example.source for example in rows] for name, rows in parts.items()}
    write_text(out / "split.json", json.dumps(sources))
    template = template_of(loaded)
    parts["train"] = method.training_data(parts["train"], loaded)
    rendered = {name: render_conversations(rows, template, loaded.tokenizer) for name, rows in parts.items()}
    context = _context(spec, rendered["train"], model.context_length)
    batches = ChatBatches(rendered["train"], batch_size=spec.batch_size, context_length=context, seed=spec.seed)
    if batches.dropped:
        text = f"{batches.dropped:,} conversations are longer than {context:,} tokens and are left out"
        log.event(stage, "note", text=text)

    held_out = {name: chosen(rendered[name], SCORED, spec.seed) for name in ("validation", "test") if rendered[name]}

    def scores(when: str) -> dict[str, Score]:
        counters = {name: log.counter(stage, f"{name} {when}", "conversations") for name in held_out}
        return {
            name: score(model, rows, device, model.context_length, progress=counters[name])
            for name, rows in held_out.items()
        }

    measured = method.measure(held_out, device)
    before = scores("before")
    rank = rank_of(spec, model)
    lora = adapt_model(model, spec, rank)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    objective = method.objective(Student(loaded, template, device, parts["train"], batches))
    rows_per_epoch = objective.batches.rows_per_epoch  # type: ignore[attr-defined]
    # The last batch of an epoch may be filled from the next, so rows decide, not batches.
    steps = spec.steps or max(1, round(spec.epochs * rows_per_epoch / (spec.batch_size * spec.accumulate)))
    rate = spec.lr or default_rate(model.spec.d_model, lora is not None)
    trainer = Trainer(
        name=stage,
        optimizer=AdamWSpec(lr=rate, betas=(0.9, 0.99), weight_decay=0.0 if lora else 0.01),
        fit=FitSpec(
            steps=steps,
            seconds=60 * spec.minutes if spec.minutes is not None and spec.steps is None else None,
            max_steps=steps,
            schedule=ScheduleSpec(warmup=0.05, decay=0.9),
            save_every=spec.save_every,
            keep=1,
            accumulate=spec.accumulate,
            trained_only=lora is not None,
        ),
        device=device,
        log=log,
        checkpoints=out / "training",
        announced={"trained_parameters": trained, "lora_rank": rank, "context": context},
    )
    model.checkpointing = spec.checkpointing
    result = trainer.train(model, objective)
    model.checkpointing = False
    after = scores("after")
    if lora is not None:
        save_adapter(model, out / "adapter", base=spec.model, names=names_of(loaded.run))
        fold(model)
    write_model(loaded, out, stage, result.last_step, chats=True)
    done = Finetuned(out, result.last_step, trained, parameter_count(model), conversations.form, before, after)
    made: dict[str, Any] = {
        "path": str(out),
        "lr": rate,
        "lora_rank": rank,
        "context_length": context,
        "commit": commit(),
    }
    made["versions"] = {name: importlib.metadata.version(name) for name in ("underhood", "torch")}
    write_text(out / "results.json", json.dumps(asdict(done) | made | measured, indent=1))
    shutil.rmtree(trainer.checkpoints, ignore_errors=True)
    figures = {f"{name}_loss": rows.loss for name, rows in after.items()}
    log.event(stage, "end", seconds=result.seconds, tokens=result.tokens, loss=result.loss, **figures)
    return done


def _split(spec: FinetuneSpec, examples: Sequence[Conversation]) -> dict[str, Sequence[Conversation]]:
    """The conversations to train on, to validate by and to test by."""
    shares = (1 - spec.validation - spec.test, spec.validation, spec.test)
    parts = split_conversations(examples, shares=shares, seed=spec.seed)
    return dict(zip(("train", "validation", "test"), parts, strict=True))


def template_of(loaded: LoadedModel) -> Template:
    """How this model's conversations are written: its own template, or ChatML where it has the markers for it.

    Raises:
        UserError: the model has neither.
    """
    if loaded.template is not None:
        return loaded.template
    if not {CHATML.start, CHATML.end} <= loaded.tokenizer.special.keys():
        raise UserError(
            f"{loaded.run} has no chat template, and its tokenizer no marks for turns",
            fix=no_template_fix(loaded.run),
        )
    return CHATML


@torch.no_grad()
def score(
    model: Decoder,
    examples: Sequence[Rendered],
    device: Device,
    context_length: int,
    rows: int = 16,
    progress: Progress | None = None,
) -> Score:
    """Loss and accuracy on the answers of conversations; each is cut to the model's context."""
    model.eval()
    nats, right, count = 0.0, 0.0, 0
    cut = [Rendered(row.ids[: context_length + 1], row.mask[: context_length + 1]) for row in examples]
    cut = sorted((row for row in cut if any(row.mask[1:])), key=lambda row: len(row.ids))
    for first in range(0, len(cut), rows):
        if progress is not None:
            progress(first, len(cut))
        batch = padded(cut[first : first + rows]).to(device.torch)
        with device.autocast():
            loss_sum, metrics = SFTLoss()(model, batch)
        nats, right, count = nats + float(loss_sum), right + metrics["answer_accuracy"], count + batch.target_count
    if progress is not None:
        progress(len(cut), len(cut))
    return Score(nats / max(1, count), right / max(1, count), count)


def adapt_model(model: Decoder, spec: FinetuneSpec, rank: int) -> LoRASpec | None:
    """Freezes and wraps the model as asked; None means that all weights learn."""
    if rank == 0:
        if spec.bits:
            raise UserError("--bits freezes the model, so it needs adapters", fix="Give a --lora-rank, e.g. 16")
        model.requires_grad_(True)
        return None
    if spec.bits:
        quantize_linears(model, spec.bits)
    lora = LoRASpec(
        rank=rank,
        alpha=spec.lora_alpha if spec.lora_alpha is not None else 2.0 * rank,
        dropout=spec.lora_dropout,
        targets=spec.lora_targets,
        rslora=spec.rslora,
    )
    lora.apply(model, seed=spec.seed)
    return lora


def _context(spec: FinetuneSpec, examples: Sequence[Rendered], limit: int) -> int:
    if spec.context_length is not None:
        if spec.context_length > limit:
            raise UserError(
                "--context-length is longer than the model's",
                expected=f"at most {limit:,}",
                got=f"{spec.context_length:,}",
            )
        return spec.context_length
    longest = max((len(row.ids) for row in examples), default=1) - 1
    # Rows of one conversation would be mostly padding: several of the longest fit.
    return min(limit, max(64, 64 * math.ceil(longest / 64)))
