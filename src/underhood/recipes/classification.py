"""Classification fine-tuning of any model on labelled texts, measured beside a bag of words."""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from underhood.align.classify import (
    ClassificationLoss,
    Classifier,
    ClassifierSpec,
    LabelledBatches,
    class_probabilities,
    encode_texts,
    label_tokens,
)
from underhood.core.checkpoint import load_module, module_tensors, newest, read_checkpoint
from underhood.core.config import from_json, to_json
from underhood.core.device import Device, choose_device
from underhood.core.errors import UserError
from underhood.core.files import write_text
from underhood.core.runlog import RunLog
from underhood.data.labelled import Labelled, read_labelled, split_labelled
from underhood.evals.intervals import wilson
from underhood.infer.load import LoadedModel, load
from underhood.models.hub_weights import Progress
from underhood.nn.lora import LoRASpec, fold
from underhood.recipes.finetune import default_rate
from underhood.recipes.finetune_spec import CLASSIFY_FILE, ClassifySpec
from underhood.recipes.training import Trainer
from underhood.recipes.tuned_run import rank_of, training_in_folder, write_model
from underhood.train.loop import FitSpec, Objective
from underhood.train.optim import AdamWSpec
from underhood.train.schedule import ScheduleSpec

STAGE = "classify"


@dataclass(frozen=True)
class ClassifierRow:
    """One line of the table.

    Attributes:
        accuracy: on the held-out texts; low, high: its 95 % Wilson interval.
        parameters: numbers that were learnt.
    """

    name: str
    accuracy: float
    low: float
    high: float
    parameters: int


@dataclass(frozen=True)
class Classified:
    """What came out: the model's row first, then the baselines'."""

    path: Path
    labels: tuple[str, ...]
    learnt_from: int
    tested_on: int
    rows: tuple[ClassifierRow, ...]
    notes: tuple[str, ...] = ()


def classify_model(spec: ClassifySpec, out: Path) -> tuple[RunLog, Callable[[], Classified]]:
    """Makes the folder and returns the log and the work to call (see `recipes.tuned_run.training_in_folder`)."""
    return training_in_folder(spec, out, CLASSIFY_FILE, _classify)


def _classify(spec: ClassifySpec, out: Path, log: RunLog) -> Classified:
    device = Device(name=choose_device(spec.device))
    reading = log.counter(STAGE, "reading the model")
    loaded = load(spec.model, spec.stage, device=device.torch, progress=reading)
    examples = [
        example
        for path in spec.data
        for example in read_labelled(
            Path(path), text=spec.text_column, label=spec.label_column, second=spec.second_column
        )
    ]
    labels = tuple(sorted({example.label for example in examples}))
    learn, test = split_labelled(examples, test=spec.test, seed=spec.seed)
    log.event(STAGE, "note", text=f"{len(learn):,} texts to learn from, {len(test):,} held out, {len(labels)} labels")
    ids = label_tokens(loaded.tokenizer, labels) if spec.how == "token" else ()
    described = ClassifierSpec(
        labels=labels, how=spec.how, pool=spec.pool, label_ids=ids, pairs=spec.second_column is not None
    )
    model = loaded.decoder
    rank = rank_of(spec, model)
    if rank:
        LoRASpec(rank=rank, alpha=2.0 * rank).apply(model, seed=spec.seed)
    else:
        model.requires_grad_(True)
    torch.manual_seed(spec.seed)
    classifier = described.build(model)
    number = {label: index for index, label in enumerate(labels)}
    opening = loaded.prompt_ids("")

    def encode(group: Sequence[Labelled]) -> list[list[int]]:
        texts = [example.text for example in group]
        return encode_texts(loaded.tokenizer, described, texts, model.context_length, opening=opening)

    rows, test_rows = encode(learn), encode(test)
    truth, test_truth = [number[example.label] for example in learn], [number[example.label] for example in test]
    steps = max(1, math.ceil(spec.epochs * len(learn) / spec.batch))
    trained = sum(p.numel() for p in classifier.parameters() if p.requires_grad)
    trainer = Trainer(
        name=STAGE,
        optimizer=rates_of(spec, model.spec.d_model, rank),
        fit=FitSpec(
            steps=steps,
            schedule=ScheduleSpec(warmup=0.1, decay=0.9),
            save_every=200,
            keep=1,
            trained_only=True,
        ),
        device=device,
        log=log,
        checkpoints=out / "training",
        announced={"trained_parameters": trained, "lora_rank": rank},
    )
    batches = LabelledBatches(rows, truth, batch_size=spec.batch, seed=spec.seed)
    result = trainer.train(classifier, Objective(batches, ClassificationLoss(lm_weight=spec.lm_weight)))
    probabilities = class_probabilities(classifier, test_rows, progress=log.counter(STAGE, "testing", "texts"))
    answers = probabilities.argmax(-1).tolist()
    base, notes = baselines(learn, test)
    name = f"{Path(spec.model).name}, {'a head' if spec.how == 'head' else 'its own tokens'}"
    table = (_row(name, [a == b for a, b in zip(answers, test_truth, strict=True)], trained), *base)
    fold(model)
    groups = {} if classifier.head is None else {"head": module_tensors(classifier.head)}
    facts = {"classifier": to_json(described)}
    write_model(loaded, out, STAGE, steps, chats=loaded.chats, groups=groups, facts=facts)
    done = Classified(out, labels, len(learn), len(test), table, tuple(notes))
    write_text(out / "results.json", json.dumps(asdict(done) | {"path": str(out)}, indent=1, ensure_ascii=False))
    shutil.rmtree(trainer.checkpoints, ignore_errors=True)
    log.event(STAGE, "end", seconds=result.seconds, tokens=result.tokens, loss=result.loss, accuracy=table[0].accuracy)
    return done


def rates_of(spec: ClassifySpec, d_model: int, rank: int) -> AdamWSpec:
    """What learns how fast: a new head fast; adapters at their usual rate, or, where all weights learn, the blocks at a
    quarter of theirs and the embedding fast.

    What tells the classes apart are words, and a small model knows most of them badly: a word that is met a few times
    has to move in those. The blocks, which know how words go together, would forget it at a high rate. (LOG.md has the
    measurements.)
    """
    if spec.lr is not None:
        return AdamWSpec(lr=spec.lr, weight_decay=0.01)
    if rank:
        return AdamWSpec(lr=default_rate(d_model, True), weight_decay=0.01, rates=(("head.", 1e-2),))
    rates = (("head.", 1e-2), ("model.embed.", 2e-2))
    return AdamWSpec(lr=default_rate(d_model, False) / 4, weight_decay=0.01, rates=rates)


def baselines(learn: Sequence[Labelled], test: Sequence[Labelled]) -> tuple[list[ClassifierRow], list[str]]:
    """What needs no language model: logistic regression on counts of words, and the commonest label."""
    rows, notes = [], []
    try:
        from sklearn.feature_extraction.text import CountVectorizer
        from sklearn.linear_model import LogisticRegression
    except ImportError:
        notes.append("No bag of words in the table: it needs scikit-learn (pip install scikit-learn)")
    else:
        counts = CountVectorizer(token_pattern=r"(?u)\b\w+(?:'\w+)?\b", ngram_range=(1, 2))
        model = LogisticRegression(max_iter=1000)
        # Of a pair it sees the words of both texts together.
        model.fit(counts.fit_transform([example.text for example in learn]), [example.label for example in learn])
        predicted = model.predict(counts.transform([example.text for example in test]))
        right = [example.label == label for example, label in zip(test, predicted, strict=True)]
        learnt = sum(np.asarray(weights).size for weights in (model.coef_, model.intercept_))
        rows.append(_row("bag of words, logistic regression", right, learnt))
    commonest = Counter(example.label for example in learn).most_common(1)[0][0]
    rows.append(_row("always the commonest label", [example.label == commonest for example in test], 0))
    return rows, notes


@dataclass(frozen=True)
class LoadedClassifier:
    """A finished classifier, ready to use."""

    classifier: Classifier
    loaded: LoadedModel

    @property
    def labels(self) -> tuple[str, ...]:
        return self.classifier.spec.labels

    def predict(self, texts: Sequence[str], progress: Progress | None = None) -> list[dict[str, float]]:
        """For each text the probability of every label.

        Raises:
            UserError: a text is empty.
        """
        if not texts:
            return []
        spec, opening = self.classifier.spec, self.loaded.prompt_ids("")
        rows = encode_texts(self.loaded.tokenizer, spec, texts, self.loaded.decoder.context_length, opening=opening)
        found_NC = class_probabilities(self.classifier, rows, progress=progress)
        return [dict(zip(self.labels, row.tolist(), strict=True)) for row in found_NC]


def is_classifier(folder: Path) -> bool:
    return newest(folder / "checkpoints" / STAGE) is not None


def load_classifier(folder: Path, *, device: str | None = None) -> LoadedClassifier:
    """Opens what `classify_model` left.

    Raises:
        UserError: there is no classifier, or a file is damaged.
    """
    path = newest(folder / "checkpoints" / STAGE)
    if path is None:
        raise UserError(f"there is no classifier in {folder}", fix="Make one with underhood classify MODEL --data FILE")
    loaded = load(folder, STAGE, device=choose_device(device))
    saved = read_checkpoint(path)
    where = str(path / "state.json")
    classifier = from_json(ClassifierSpec, saved.state["classifier"], where=where).build(loaded.decoder)
    if classifier.head is not None:
        with torch.no_grad():
            load_module(classifier.head, saved.tensors("head"), path)
    return LoadedClassifier(classifier.eval(), loaded)


def _row(name: str, right: Sequence[bool], parameters: int) -> ClassifierRow:
    interval = wilson(sum(right), len(right))
    return ClassifierRow(name, interval.value, interval.low, interval.high, parameters)
