"""Measures every model of the history: the same text, the same number of steps, bits per byte of unseen documents."""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import torch

from underhood.core.files import write_text
from underhood.core.protocols import LanguageModel
from underhood.core.verdicts import estimate
from underhood.curriculum.reproduce import machine
from underhood.curriculum.years import STEM
from underhood.curriculum.years.rungs import CONTEXT, RUNGS, Rung
from underhood.data.pack import EvaluationWindows
from underhood.data.pydocs import pydocs_corpus
from underhood.data.split import split_documents
from underhood.evals.compression import compressors_bits_per_byte
from underhood.evals.perplexity import held_out_loss
from underhood.models.base import parameter_count
from underhood.models.ngram import NGram
from underhood.text.bpe import BytePairTokenizer, train_bpe
from underhood.train.small_lm import train_small

VOCABULARY, BATCH = 2048, 8
STEPS = {"smoke": 6, "report": 800}

Ids = list[list[int]]


def measure_years(
    scale: Literal["smoke", "report"],
    *,
    seeds: int = 3,
    rungs: Sequence[Rung] = RUNGS,
    unfinished: Path | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> dict[str, Any]:
    """Trains and judges every model, each network once per seed.

    Args:
        scale: ``report`` trains 800 steps of 1,024 tokens; ``smoke`` six on a small part, to see that it runs.
        unfinished: a file that keeps the models that are done, for another call to go on where this one was stopped; it
            is removed at the end.
        progress: told what is being trained, and the share of all that is done.

    Returns:
        What the result file holds: the corpus, the compressors' bits per byte, and for each model its parameters,
        bits per byte of every seed with a 95 % interval, operations and processor seconds of the training.
    """
    corpus = pydocs_corpus()
    train, held_out = ([document.text for document in split.documents] for split in split_documents(corpus))
    if scale == "smoke":
        train, held_out = train[:40], held_out[:4]
    tokenizer = train_bpe(train, vocab_size=VOCABULARY)
    settings = [scale, seeds, STEPS[scale], BATCH, corpus.facts]
    done = _kept(unfinished, settings)
    models = []
    for index, rung in enumerate(rungs):

        def tell(share: float, rung: Rung = rung, index: int = index) -> None:
            if progress is not None:
                progress(f"{rung.year} {rung.name}", (index + share) / len(rungs))

        steps = STEPS[scale] * rung.times
        done[rung.name] = done.get(rung.name) or _measure(rung, train, held_out, tokenizer, steps, seeds, tell)
        models.append(done[rung.name])
        if unfinished is not None:
            write_text(unfinished, json.dumps({"settings": settings, "models": done}))
    if unfinished is not None:
        unfinished.unlink()
    return {
        "milestone": STEM,
        "machine": machine(),
        "claims": [],
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "scale": scale,
        "seeds": seeds,
        "corpus": {
            "name": corpus.name,
            **corpus.facts,
            "train_bytes": sum(len(text.encode()) for text in train),
            "held_out_bytes": sum(len(text.encode()) for text in held_out),
        },
        "training": {"steps": STEPS[scale], "batch": BATCH, "context": CONTEXT, "vocabulary": tokenizer.vocab_size},
        "compressors": compressors_bits_per_byte(train, held_out),
        "models": models,
    }


def _kept(file: Path | None, settings: list[Any]) -> dict[str, Any]:
    """Models that an earlier call with the same settings has measured."""
    if file is None or not file.exists():
        return {}
    kept = json.loads(file.read_text(encoding="utf-8"))
    return kept["models"] if kept["settings"] == settings else {}


def _measure(
    rung: Rung,
    train: Sequence[str],
    held_out: Sequence[str],
    tokenizer: BytePairTokenizer,
    steps: int,
    seeds: int,
    tell: Callable[[float], None],
) -> dict[str, Any]:
    spec = rung.spec(257 if rung.bytes else tokenizer.vocab_size)
    bits, seconds, kept = [], [], 0
    for seed in range(1 if rung.optimizer is None else seeds):
        tell(seed / seeds)
        started = time.process_time()
        if rung.optimizer is None:
            model: LanguageModel = cast(NGram, spec.build()).fit(_closed(train, tokenizer, rung.bytes))
        else:
            model = train_small(
                train,
                tokenizer,
                spec,
                steps=steps,
                batch_size=BATCH,
                seed=seed,
                copying=rung.copying,
                optimizer=rung.optimizer,
                progress=lambda share, seed=seed: tell((seed + share) / seeds),
            )
        seconds.append(time.process_time() - started)
        kept = _numbers_kept(model)
        bits.append(bits_per_byte(model, held_out, tokenizer, in_bytes=rung.bytes))
    judged = estimate(bits, fixed=rung.optimizer is None)
    tokens = steps * BATCH * CONTEXT if rung.optimizer is not None else 0
    return {
        "year": rung.year,
        "name": rung.name,
        "idea": rung.idea,
        "source": rung.source,
        "paper": rung.paper,
        "evidence": rung.evidence,
        "page": rung.page,
        "bits_per_byte": bits,
        "mean": judged.middle,
        "low": judged.low,
        "high": judged.high,
        "parameters": kept,
        "operations": 3 * spec.flops_per_token * tokens,
        "seconds": seconds,
    }


def bits_per_byte(
    model: LanguageModel, texts: Sequence[str], tokenizer: BytePairTokenizer, *, in_bytes: bool = False
) -> float:
    """Bits per byte of texts, each read in windows that see at least half the context."""
    documents = _closed(texts, tokenizer, in_bytes)
    byte_counts = [len(text.encode()) for text in texts]
    windows = EvaluationWindows(documents, byte_counts, eot_id=documents[0][-1], context_length=CONTEXT)
    return held_out_loss(model, windows).bits_per_byte


def _closed(texts: Sequence[str], tokenizer: BytePairTokenizer, in_bytes: bool) -> Ids:
    """Each text's tokens, and one that ends it."""
    if in_bytes:
        return [[*text.encode(), 256] for text in texts]
    return [[*tokenizer.encode(text), tokenizer.special["<|endoftext|>"]] for text in texts]


def _numbers_kept(model: Any) -> int:
    """Parameters that were learnt, or counts that were kept."""
    if isinstance(model, NGram):
        counts = (buffer for name, buffer in model.named_buffers() if name.startswith("counts_"))
        return sum(int(torch.count_nonzero(buffer)) for buffer in counts)
    return parameter_count(model)
