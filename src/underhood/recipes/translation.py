"""Training an encoder–decoder on pairs, and measuring it: exact matches and BLEU on held-out sources."""

from __future__ import annotations

import copy
import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from underhood.core.checkpoint import load_module, module_tensors, write_checkpoint
from underhood.core.config import to_json
from underhood.core.device import Device, choose_device
from underhood.core.errors import UserError
from underhood.core.files import write_text
from underhood.core.runlog import RunLog
from underhood.data.dates import date_pairs
from underhood.data.translation_batches import TranslationBatches, translation_batch
from underhood.data.translations import HeldOutSource, Translation, read_translations, split_translations
from underhood.evals.bleu import bleu
from underhood.evals.intervals import wilson
from underhood.infer.beam import BeamSpec
from underhood.infer.translator import END, SEARCH, TRANSLATOR, Translator
from underhood.models.base import parameter_count
from underhood.models.encoder_decoder import EncoderDecoder, original_transformer
from underhood.recipes.training import Trainer
from underhood.recipes.translation_spec import DATES, TRANSLATE_FILE, TranslateSpec
from underhood.recipes.tuned_run import training_in_folder
from underhood.text.bpe import BytePairTokenizer, train_bpe
from underhood.text.characters import CharacterTokenizer
from underhood.train.averaging import average_checkpoints
from underhood.train.cross_entropy import LabelSmoothing
from underhood.train.dropout import ResidualDropout
from underhood.train.hardware import faster_dtype
from underhood.train.held_out import HeldOut
from underhood.train.loop import FitSpec, Objective
from underhood.train.optim import AdamWSpec
from underhood.train.schedule import NoamSpec, Schedule, ScheduleSpec
from underhood.train.translation_loss import translation_loss

STAGE = TRANSLATOR
DATE_COUNT = 40_000
MOST_HELD_OUT = 1000
FEW_CHARACTERS, SHORT_TEXT = 128, 60
"""Texts with no more different characters, and no longer, are cut into characters unless the settings say otherwise."""


@dataclass(frozen=True)
class TranslationResult:
    """What came out of a training.

    Attributes:
        exact: share of the held-out sources whose translation is one of the given ones; low, high: its 95 % interval.
        bleu: of the held-out sources; signature: how it was measured.
        loss: of held-out targets, in nats per token, without smoothing.
        averaged: steps of the checkpoints whose mean the model is; the last step alone where that is better.
        examples: source, translation and a given one, of some held-out sources.
    """

    path: Path
    learnt_from: int
    tested_on: int
    parameters: int
    steps: int
    seconds: float
    exact: float
    low: float
    high: float
    bleu: float
    signature: str
    loss: float
    averaged: tuple[int, ...]
    examples: tuple[tuple[str, str, str], ...]


def train_translator(spec: TranslateSpec, out: Path) -> tuple[RunLog, Callable[[], TranslationResult]]:
    """Makes the folder and returns the log and the work to call (see `recipes.tuned_run.training_in_folder`)."""
    return training_in_folder(spec, out, TRANSLATE_FILE, _train)


def _train(spec: TranslateSpec, out: Path, log: RunLog) -> TranslationResult:
    if (out / "checkpoints" / TRANSLATOR).exists():
        raise UserError(f"{out} is trained already", fix="Translate with it, or choose another folder")
    pairs = read_pairs(spec)
    learn, test = split_translations(pairs, held_out=spec.test, most=MOST_HELD_OUT, seed=spec.seed)
    tokenizer = make_tokenizer(spec, learn, alphabet=pairs)
    tokenizer.save(out / "tokenizer.json")
    end_id = tokenizer.special[END]

    def encode(some: Sequence[Translation]) -> list[tuple[list[int], list[int]]]:
        sources, targets = (
            tokenizer.encode_batch(texts) for texts in zip(*((p.source, p.target) for p in some), strict=True)
        )
        both = zip(sources, targets, strict=True)
        return [([*s, end_id], t) for s, t in both if max(len(s), len(t)) < spec.context_length]

    rows = encode(learn)
    held_out = [Translation(item.source, item.targets[0]) for item in test]
    if not rows:
        raise UserError("all pairs are too long", expected=f"at most {spec.context_length - 1} tokens a side")
    if left_out := len(learn) - len(rows):
        log.event(STAGE, "note", text=f"{left_out:,} pairs are longer than {spec.context_length} tokens: left out")
    text = f"{len(rows):,} pairs to learn from, {len(test):,} sources held out, {tokenizer.vocab_size:,} tokens"
    log.event(STAGE, "note", text=text)

    name = choose_device(spec.device)
    device = Device(name=name, dtype=spec.dtype or faster_dtype(name))
    kind = "characters" if isinstance(tokenizer, CharacterTokenizer) else "bpe"
    width = spec.width(kind)
    model = original_transformer(
        vocab_size=tokenizer.vocab_size,
        context_length=spec.context_length,
        d_model=width,
        layers=spec.layers,
        heads=spec.heads,
        d_ff=spec.d_ff or 4 * width,
        norm=spec.norm,
        positions=spec.positions,
    ).initialize(seed=spec.seed)
    model.to(device.torch)
    batches = TranslationBatches(rows, end_id=end_id, batch_tokens=spec.batch_tokens, seed=spec.seed)
    loss_fn = translation_loss(LabelSmoothing(epsilon=spec.smoothing) if spec.smoothing else None)
    dropout = ResidualDropout(spec.dropout_rate(kind), spec.seed)
    steps = spec.steps or max(20, round(60 * spec.minutes / _step_seconds(model, Objective(batches, loss_fn), device)))
    save_every = max(1, steps // 40)
    trainer = Trainer(
        name=STAGE,
        optimizer=AdamWSpec(lr=peak_rate(spec, width), betas=(0.9, 0.98), eps=1e-9, weight_decay=0.0),
        fit=FitSpec(
            steps=steps,
            seconds=None if spec.steps else 60 * spec.minutes,
            schedule=schedule_of(spec),
            save_every=save_every,
            keep=spec.average,
            log_every=max(1, steps // 400),
        ),
        device=device,
        log=log,
        checkpoints=out / "training",
        announced={"parameters": parameter_count(model), "seconds_planned": 60 * spec.minutes},
    )
    sample = [translation_batch(chunk, end_id) for chunk in _chunks(encode(held_out)[:200], 50)]
    measure = HeldOut(batches=sample, loss_fn=translation_loss(), evaluations=10)
    with dropout.applied(model):
        result = trainer.train(model, Objective(dropout.batches(batches), loss_fn), measure)
    averaged = _average(model, out, spec.average, measure, log)
    facts = {
        "spec": to_json(model.spec),
        "stage": STAGE,
        "model": STAGE,
        "step": result.last_step,
        "steps": result.last_step,
    }
    write_checkpoint(
        out / "checkpoints" / TRANSLATOR, result.last_step, {"model": module_tensors(model)}, facts, keep=1
    )
    translator = Translator(model.eval(), tokenizer)
    scores = measure_translator(translator, test, progress=log.counter(STAGE, "testing", "sources"))
    done = TranslationResult(
        path=out,
        learnt_from=len(rows),
        tested_on=len(test),
        parameters=parameter_count(model),
        steps=result.last_step,
        seconds=round(result.seconds, 1),
        loss=measure.measure(model)["loss"],
        averaged=averaged,
        **scores,  # type: ignore[arg-type]
    )
    write_text(out / "results.json", json.dumps(asdict(done) | {"path": str(out)}, indent=1, ensure_ascii=False) + "\n")
    shutil.rmtree(out / "training", ignore_errors=True)
    log.event(STAGE, "end", seconds=result.seconds, tokens=result.tokens, exact=done.exact, bleu=done.bleu)
    return done


def read_pairs(spec: TranslateSpec) -> list[Translation]:
    """The pairs of all files, or dates."""
    pairs = list[Translation]()
    for name in spec.data:
        if name == DATES and not Path(name).exists():
            pairs += [Translation(source, target, DATES) for source, target in date_pairs(DATE_COUNT, seed=spec.seed)]
        else:
            pairs += read_translations(Path(name), source=spec.source_column, target=spec.target_column)
    return pairs


def make_tokenizer(
    spec: TranslateSpec, learn: Sequence[Translation], alphabet: Sequence[Translation]
) -> CharacterTokenizer | BytePairTokenizer:
    """One vocabulary for both sides: of the characters of `alphabet`, or of byte pairs of what is learnt from."""
    texts = [text for pair in alphabet for text in (pair.source, pair.target)]
    kind = spec.tokens
    if kind is None:
        few = len(set().union(*texts)) <= FEW_CHARACTERS and max(map(len, texts)) <= SHORT_TEXT
        kind = "characters" if few else "bpe"
    if kind == "characters":
        return CharacterTokenizer.from_texts(texts, special=[END])
    texts = [text for pair in learn for text in (pair.source, pair.target)]
    return train_bpe(texts, vocab_size=spec.vocab_size, special=[END])


def peak_rate(spec: TranslateSpec, width: int) -> float:
    """The highest learning rate: the one given, the paper's for its schedule, or one that suits short trainings."""
    if spec.lr is not None:
        return spec.lr
    return NoamSpec(warmup=spec.warmup).peak(width) if spec.schedule == "noam" else 3e-3 * (128 / width) ** 0.5


def schedule_of(spec: TranslateSpec) -> Schedule:
    return NoamSpec(warmup=spec.warmup) if spec.schedule == "noam" else ScheduleSpec(warmup=0.1, decay=0.9)


def measure_translator(
    translator: Translator,
    test: Sequence[HeldOutSource],
    search: BeamSpec = SEARCH,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, object]:
    """Exact matches and BLEU of translations of held-out sources; those that are too long count as empty."""
    fits = [
        item for item in test if len(translator.tokenizer.encode(item.source)) < translator.model.spec.context_length
    ]
    written = translator.translate([item.source for item in fits], search, progress=progress)
    by_source = {item.source: best[0].text for item, best in zip(fits, written, strict=True)}
    texts = [by_source.get(item.source, "") for item in test]
    right = sum(text in item.targets for text, item in zip(texts, test, strict=True))
    interval = wilson(right, len(test))
    score = bleu(texts, [item.targets for item in test])
    examples = tuple((item.source, text, item.targets[0]) for item, text in zip(test[:6], texts, strict=False))
    return {
        "exact": interval.value,
        "low": interval.low,
        "high": interval.high,
        "bleu": score.score,
        "signature": score.signature,
        "examples": examples,
    }


def _step_seconds(model: EncoderDecoder, objective: Objective, device: Device) -> float:
    """Seconds per step, from a few on a copy of the model."""
    trial = copy.deepcopy(model)
    optimizer = AdamWSpec().build(trial)
    started, count = time.perf_counter(), 6
    for number in range(count):
        if number == 2:
            started = time.perf_counter()
        batch = objective.batches(number).to(device.torch)
        with device.autocast():
            loss, _ = objective.loss_fn(trial, batch)
        (loss / batch.target_count).backward()
        optimizer.step()
        optimizer.zero_grad()
    return (time.perf_counter() - started) / (count - 2)


@torch.no_grad()
def _average(model: EncoderDecoder, out: Path, last: int, measure: HeldOut, log: RunLog) -> tuple[int, ...]:
    """Puts the mean of the last checkpoints into the model, unless the last weights do better on held-out pairs."""
    weights, steps = average_checkpoints(out / "training", last)
    own = {name: tensor.clone() for name, tensor in module_tensors(model).items()}
    before = measure.measure(model)["loss"]
    load_module(model, weights, out)
    after = measure.measure(model)["loss"]
    log.event(STAGE, "note", text=f"held-out loss {before:.4f}; of the mean of {len(steps)} checkpoints {after:.4f}")
    if after <= before:
        return steps
    load_module(model, own, out)
    return steps[-1:]


def _chunks(items: Sequence[tuple[list[int], list[int]]], size: int) -> list[Sequence[tuple[list[int], list[int]]]]:
    ordered = sorted(items, key=lambda pair: len(pair[0]))
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]
