"""Pretraining on pydocs in a fixed time: bits per byte on held-out documents, beside primed compressors.

    python benchmarks/bench_pretrain.py --seconds 165
    python benchmarks/bench_pretrain.py --seconds 45 --width 192 --layers 4 --heads 3 --rows 8

Trains one model of the house's default shape for about `--seconds` of training (steps are fixed beforehand from a
short probe, as the planner does it) with our loop, optimiser and packing, then scores every held-out document. The
peers are compressors that have read the same training text.
"""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from harness import machine, options_from_command_line, print_json
from underhood.core.device import Device
from underhood.core.runlog import RunLog
from underhood.data.clean import clean
from underhood.data.documents import Corpus
from underhood.data.pack import EvaluationWindows, PackedBatches
from underhood.data.shards import TokenShards, write_shards
from underhood.data.sources import load_corpus
from underhood.data.split import split_documents
from underhood.evals.compression import compressors_bits_per_byte
from underhood.evals.perplexity import held_out_loss
from underhood.models.base import parameter_count
from underhood.models.decoder import qwen3_shaped
from underhood.text.bpe import train_bpe
from underhood.train.loop import FitSpec, fit
from underhood.train.loss import next_token_loss_sum
from underhood.train.optim import MuonAdamWSpec
from underhood.train.schedule import ScheduleSpec


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to train, for how long.

    Attributes:
        seconds: training time to fill.
        steps: fixed number of steps instead.
        dtype: of matrix products, Muon's included; bfloat16 pays where the processor has it (AMX).
        stride: of the held-out windows; None is half the context. The context itself scores fastest and a little worse.
        data: corpus, as `underhood build --data` takes it.
        cache: folder to keep shards in between runs; None makes them anew.
        peers: also run the compressors.
    """

    seconds: float = 165.0
    steps: int | None = None
    data: str = "pydocs"
    vocab_size: int = 4096
    width: int = 256
    layers: int = 4
    heads: int = 4
    kv_heads: int | None = None
    hidden: int | None = None
    context: int = 256
    rows: int = 8
    tied: bool = False
    matrix_lr: float = 0.03
    lr: float = 0.005
    unembed_lr: float | None = None
    momentum: float = 0.95
    matrix_decay: float = 0.0
    newton_schulz_steps: int = 5
    dtype: Literal["float32", "bfloat16"] = "float32"
    stride: int | None = None
    embed_std: float = 0.02
    warmup: float = 0.02
    decay: float = 0.6
    shape: Literal["linear", "cosine"] = "linear"
    seed: int = 0
    threads: int = 2
    cache: Path | None = None
    peers: bool = True


def prepare(options: Options, folder: Path) -> tuple[TokenShards, TokenShards, tuple[Corpus, Corpus]]:
    """Training and held-out shards, made in `folder` unless they are there."""
    corpus, _ = clean(load_corpus(options.data))
    train, held_out = split_documents(corpus, held_out=0.08, seed=0)
    digest = f"{corpus.digest}-{options.vocab_size}"
    parts = []
    tokenizer = None
    for name, documents in (("train", train), ("held_out", held_out)):
        where = folder / f"{name}-{options.vocab_size}"
        if not where.exists():
            tokenizer = tokenizer or train_bpe((d.text for d in train.documents), vocab_size=options.vocab_size)
            write_shards(
                where,
                tokenizer.encode_batch([d.text for d in documents.documents]),
                eot_id=tokenizer.special["<|endoftext|>"],
                tokenizer_digest=digest,
                byte_counts=[d.bytes for d in documents.documents],
            )
        parts.append(TokenShards.open(where, tokenizer_digest=digest))
    return parts[0], parts[1], (train, held_out)


def run(options: Options, folder: Path) -> dict[str, Any]:
    torch.set_num_threads(options.threads)
    train, held_out, texts = prepare(options, folder)
    spec = qwen3_shaped(
        vocab_size=options.vocab_size,
        context_length=options.context,
        d_model=options.width,
        layers=options.layers,
        heads=options.heads,
        kv_heads=options.kv_heads,
        d_ff=options.hidden,
        tied=options.tied,
    )
    batches = PackedBatches(train, batch_size=options.rows, context_length=options.context, seed=options.seed)
    recipe = MuonAdamWSpec(
        matrix_lr=options.matrix_lr,
        lr=options.lr,
        unembed_lr=options.unembed_lr,
        momentum=options.momentum,
        weight_decay=options.matrix_decay,
        newton_schulz_steps=options.newton_schulz_steps,
        newton_schulz_dtype=options.dtype,
    )
    device = Device(name="cpu", dtype=options.dtype)
    schedule = ScheduleSpec(warmup=options.warmup, decay=options.decay, shape=options.shape)

    def train_for(steps: int) -> tuple[torch.nn.Module, float, float]:
        model = spec.initialize(seed=options.seed, embed_std=options.embed_std)

        done = fit(
            model,
            batches,
            next_token_loss_sum,
            recipe.build(model),
            FitSpec(steps=steps, schedule=schedule, log_every=10),
            stage="pretrain",
            log=RunLog(None),
            device=device,
        )
        return model, done.seconds, done.loss

    steps = options.steps
    if steps is None:
        train_for(2)
        _, seconds, _ = train_for(8)
        steps = max(10, round(options.seconds / seconds * 8))
    model, seconds, loss = train_for(steps)
    windows = EvaluationWindows.of_shards(held_out, context_length=options.context, stride=options.stride)
    with device.autocast():
        report = held_out_loss(model, windows)  # type: ignore[arg-type]
    tokens = steps * options.rows * options.context
    actual: dict[str, Any] = {
        "bits_per_byte": round(report.bits_per_byte, 4),
        "training_seconds": round(seconds, 1),
        "steps": steps,
        "ms_per_step": round(1e3 * seconds / steps, 1),
        "tokens_per_second": round(tokens / seconds),
        "epochs": round(tokens / train.tokens, 2),
        "parameters": parameter_count(model),
        "last_training_loss": round(loss, 3),
        "bytes_per_token": round(train.bytes / train.tokens, 3),
    }
    if options.peers:
        peers = compressors_bits_per_byte(*([d.text for d in piece.documents] for piece in texts))
        actual["peers"] = {name: round(value, 4) for name, value in peers.items()}
        actual["share_of_xz"] = round(report.bits_per_byte / peers["xz"], 4)
    return actual


def main(options: Options) -> None:
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.cache or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        actual = run(options, folder)
    for name, value in actual.items():
        print(f"{name:20} {json.dumps(value)}")
    settings = {name: value for name, value in asdict(options).items() if name != "cache"}
    print_json(
        "pretrain", actual, settings=settings, wall_s=round(time.perf_counter() - started, 1), **machine("torch")
    )


if __name__ == "__main__":
    main(options_from_command_line(Options))
