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
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from underhood.align.adapter import names_of, save_adapter
from underhood.align.sft import sft_step
from underhood.core.checkpoint import module_tensors, write_checkpoint
from underhood.core.config import from_json, to_json
from underhood.core.device import Device, choose_device
from underhood.core.errors import UserError
from underhood.core.files import sha256_of, storage_errors, write_text
from underhood.core.protocols import Tokenizer
from underhood.core.provenance import commit
from underhood.core.runlog import RunLog
from underhood.core.toml import read_toml, toml_text
from underhood.data.conversations import Conversation, read_conversations, split_conversations
from underhood.data.render import ChatBatches, padded
from underhood.infer.importing import BESIDE
from underhood.infer.load import IMPORTED, LoadedModel, load
from underhood.models.decoder import Decoder, parameter_count
from underhood.models.hub_weights import Progress, read_config
from underhood.nn.lora import LoRASpec, fold
from underhood.nn.qlora_linear import quantize_linears
from underhood.text.chat import CHATML, Rendered, Template
from underhood.train.loop import FitSpec, fit
from underhood.train.optim import AdamWSpec
from underhood.train.schedule import ScheduleSpec

SETTINGS = "finetune.toml"
STAGE = "sft"
SMALL_MODEL = 50_000_000
"""Parameters up to which all weights are trained unless a rank is given: LoRA saves memory that is not scarce here."""


@dataclass(frozen=True, kw_only=True)
class FinetuneSpec:
    """Everything that decides what a fine-tuning does. What is None is decided by the model or the data.

    Attributes:
        model: a run's folder or a model's.
        data: a file of conversations (see `data.conversations`).
        model_stage: which of a run's models; the last one if None.
        lora_rank: rank of the adapters; 0 trains all weights; None takes 16, or 0 for a small model.
        lora_alpha: α; None is twice the rank.
        lora_dropout, lora_targets, rslora: see `nn.lora.LoRASpec`.
        bits: holds the frozen base in 8 or 4 bits (LoRA only).
        epochs: how often the conversations are read.
        steps: updates in all, instead of epochs.
        rows: packed rows per micro-batch.
        accumulate: micro-batches per update.
        context: tokens per row; None takes the longest conversation's, at most the model's context.
        lr: None goes by width: see `default_rate`.
        validation, test: shares of the conversations that are held out.
        checkpointing: works activations out again on the way back, for less memory.
        seed: of everything that is random.
        device, dtype: where to compute and in which format.
        save_every: updates between checkpoints.
    """

    model: str
    data: str
    model_stage: str | None = None
    lora_rank: int | None = None
    lora_alpha: float | None = None
    lora_dropout: float = 0.0
    lora_targets: tuple[str, ...] = ("blocks.*",)
    rslora: bool = False
    bits: Literal[8, 4] | None = None
    epochs: float = 3.0
    steps: int | None = None
    rows: int = 4
    accumulate: int = 1
    context: int | None = None
    lr: float | None = None
    validation: float = 0.05
    test: float = 0.10
    checkpointing: bool = False
    seed: int = 0
    device: str | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    save_every: int = 200

    def __post_init__(self):
        for name in ("rows", "accumulate", "save_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.lora_rank is not None and self.lora_rank < 0:
            raise ValueError(f"lora_rank can't be negative, got {self.lora_rank}")
        if self.bits and self.lora_rank == 0:
            raise ValueError("bits freezes the model, so it needs a lora_rank above 0")
        if not self.epochs > 0:
            raise ValueError(f"epochs must be positive, got {self.epochs}")
        if min(self.validation, self.test) < 0 or self.validation + self.test > 0.9:
            raise ValueError(f"validation and test are shares, got {self.validation} and {self.test}")


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


def finetune_model(spec: FinetuneSpec, out: Path) -> tuple[RunLog, Any]:
    """Prepares (reads model and data, makes the folder) and returns the log and the work to call.

    The two are apart so that whoever shows progress can listen before anything happens.
    """
    _claim(spec, out)
    log = RunLog(out / "events.jsonl")
    return log, lambda: _finetune(spec, out, log)


def default_rate(width: int, lora: bool) -> float:
    """Learning rates that serve at widths from 128 to 8192: 2e-5 (all weights) and 2e-4 (LoRA) at 4096, where they are
    customary; all weights scale with 1/width (Yang et al. 2022), adapters with its root."""
    return 2e-4 * math.sqrt(4096 / width) if lora else 2e-5 * 4096 / width


def _finetune(spec: FinetuneSpec, out: Path, log: RunLog) -> Finetuned:
    log.event(STAGE, "note", text=f"model {spec.model}, data {spec.data}")
    device = Device(name=choose_device(spec.device), dtype=spec.dtype)
    reading = log.counter(STAGE, "reading the model")
    loaded = load(spec.model, spec.model_stage, device=device.torch, progress=reading)
    found = read_conversations(Path(spec.data))
    log.event(STAGE, "note", text=f"{len(found):,} conversations in the form {found.form}")
    template = template_of(loaded)
    shares = (1 - spec.validation - spec.test, spec.validation, spec.test)
    parts = dict(
        zip(
            ("train", "validation", "test"),
            split_conversations(found.examples, shares=shares, seed=spec.seed),
            strict=True,
        )
    )
    write_text(out / "split.json", json.dumps({name: [one.source for one in part] for name, part in parts.items()}))
    rendered = {name: _rendered(part, template, loaded.tokenizer) for name, part in parts.items()}
    model = loaded.model
    context = _context(spec, rendered["train"], model.context)
    batches = ChatBatches(rendered["train"], rows=spec.rows, context=context, seed=spec.seed)
    if batches.dropped:
        text = f"{batches.dropped:,} conversations are longer than {context:,} tokens and are left out"
        log.event(STAGE, "note", text=text)
    held_out = {name: rendered[name] for name in ("validation", "test") if rendered[name]}

    def scores(when: str) -> dict[str, Score]:
        counters = {name: log.counter(STAGE, f"{name} {when}", "conversations") for name in held_out}
        return {
            name: score(model, part, device, model.context, progress=counters[name]) for name, part in held_out.items()
        }

    before = scores("before")
    rank = spec.lora_rank if spec.lora_rank is not None else (0 if parameter_count(model) <= SMALL_MODEL else 16)
    lora = _operate(model, spec, rank)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    # The last batch of an epoch may be filled from the next, so rows decide, not batches.
    steps = spec.steps or max(1, round(spec.epochs * batches.rows_per_epoch / (spec.rows * spec.accumulate)))
    log.event(STAGE, "start", steps=steps, trained_parameters=trained, lora_rank=rank, context=context)
    model.checkpointing = spec.checkpointing
    step = sft_step(model, batches)

    def in_precision(number: int):
        with device.autocast():
            return step(number)

    rate = spec.lr or default_rate(model.spec.width, lora is not None)
    work = out / "training"
    result = fit(
        model,
        in_precision,
        AdamWSpec(lr=rate, betas=(0.9, 0.99), weight_decay=0.0 if lora else 0.01).build(model),
        FitSpec(
            steps=steps,
            schedule=ScheduleSpec(warmup=0.05, decay=0.9),
            save_every=spec.save_every,
            keep=1,
            accumulate=spec.accumulate,
            trained_only=lora is not None,
        ),
        stage=STAGE,
        log=log,
        checkpoints=work,
    )
    model.checkpointing = False
    after = scores("after")
    if lora is not None:
        save_adapter(model, out / "adapter", base=spec.model, names=names_of(loaded.run))
        fold(model)
    copy_voice(loaded, out)
    facts: dict[str, Any] = {"spec": to_json(model.spec), "model": STAGE, "stage": STAGE, "step": steps, "steps": steps}
    file = out / "tokenizer.json"
    facts["tokenizer"] = sha256_of(file) if file.exists() else None
    write_checkpoint(out / "checkpoints" / STAGE, steps, {"model": module_tensors(model)}, facts, keep=1)
    done = Finetuned(out, steps, trained, parameter_count(model), found.form, before, after)
    made: dict[str, Any] = {"path": str(out), "lr": rate, "lora_rank": rank, "context": context, "commit": commit()}
    made["versions"] = {name: importlib.metadata.version(name) for name in ("underhood", "torch")}
    write_text(out / "results.json", json.dumps(asdict(done) | made, indent=1))
    shutil.rmtree(work, ignore_errors=True)
    figures = {f"{name}_loss": one.loss for name, one in after.items()}
    log.event(STAGE, "end", seconds=result.seconds, tokens=result.tokens, loss=result.loss, **figures)
    return done


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
            fix="Put the chat_template.jinja of its chat model beside it",
        )
    return CHATML


@torch.no_grad()
def score(
    model: Decoder,
    examples: Sequence[Rendered],
    device: Device,
    context: int,
    rows: int = 16,
    progress: Progress | None = None,
) -> Score:
    """Loss and accuracy on the answers of conversations; each is cut to the model's context."""
    model.eval()
    nats, right, count = 0.0, 0.0, 0
    cut = [Rendered(one.ids[: context + 1], one.mask[: context + 1]) for one in examples]
    cut = sorted((one for one in cut if any(one.mask[1:])), key=lambda one: len(one.ids))
    for first in range(0, len(cut), rows):
        if progress is not None:
            progress(first, len(cut))
        batch = padded(cut[first : first + rows])
        with device.autocast():
            loss, _, figures = sft_step(model, lambda step, batch=batch: batch)(0)
        targets = int(figures["targets"])
        nats, right, count = nats + float(loss) * targets, right + figures["answer_accuracy"] * targets, count + targets
    if progress is not None:
        progress(len(cut), len(cut))
    return Score(nats / max(1, count), right / max(1, count), count)


def _operate(model: Decoder, spec: FinetuneSpec, rank: int) -> LoRASpec | None:
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


def _rendered(part: Sequence[Conversation], template: Template, tokenizer: Tokenizer) -> list[Rendered]:
    rendered = []
    for one in part:
        try:
            rendered.append(template.render(tokenizer, one.messages))
        except UserError as error:
            raise UserError(
                f"{one.source}: {error.what}", expected=error.expected, got=error.got, fix=error.fix
            ) from error
    return rendered


def _context(spec: FinetuneSpec, examples: Sequence[Rendered], limit: int) -> int:
    if spec.context is not None:
        if spec.context > limit:
            raise UserError(
                "--context is longer than the model's", expected=f"at most {limit:,}", got=f"{spec.context:,}"
            )
        return spec.context
    longest = max((len(one.ids) for one in examples), default=1) - 1
    # Rows of one conversation would be mostly padding: several of the longest fit.
    return min(limit, max(64, 64 * math.ceil(longest / 64)))


def _claim(spec: FinetuneSpec, out: Path) -> None:
    """Makes the folder, or finds the same job in it to go on with."""
    file = out / SETTINGS
    if file.exists():
        if from_json(FinetuneSpec, read_toml(file), where=str(file)) != spec:
            raise UserError(f"{out} holds another fine-tuning", fix="Choose another --out, or give its settings again")
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is not empty", fix="Choose another --out")
    with storage_errors(out, "Choose another --out"):
        out.mkdir(parents=True, exist_ok=True)
    write_text(file, toml_text(to_json(spec)))


def copy_voice(loaded: LoadedModel, out: Path) -> None:
    """The tokenizer's files beside a new model, and for a published one what says how it writes and opens texts."""
    with storage_errors(out, "Free some space"):
        for name in (*BESIDE, IMPORTED):
            if (loaded.run / name).exists():
                shutil.copyfile(loaded.run / name, out / name)
    if loaded.roles is not None and not (out / IMPORTED).exists():
        config = read_config(loaded.run)
        if not (out / "generation_config.json").exists() and "eos_token_id" in config:
            write_text(out / "generation_config.json", json.dumps({"eos_token_id": config["eos_token_id"]}) + "\n")
        write_text(out / IMPORTED, json.dumps({"source": str(loaded.run), "config": config}, indent=1) + "\n")
