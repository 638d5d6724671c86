"""What a first layer of weights that can copy is worth: the same training with it and without it.

    python benchmarks/bench_copying.py --seeds 3 --steps 300
    python benchmarks/bench_copying.py --seeds 1 --steps 20        # does it work at all?

For each seed two models of a five-minute build's size read the same batches of pydocs with the same optimiser for the
same steps. One begins as `initialize` leaves it, one as `begin_copying` does (two heads that copy what followed the
last time). Then the held-out documents are scored: bits per byte of all of them, and the mean loss per token near
the start of a window and far into it. What falls from the one to the other was learnt from the context.
"""

from __future__ import annotations

import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from harness import machine, options_from_command_line, print_json
from underhood.core.device import Device
from underhood.core.runlog import RunLog
from underhood.data.pack import EvaluationWindows, PackedBatches
from underhood.data.shards import TokenShards
from underhood.evals.perplexity import held_out_loss
from underhood.models.base import parameter_count
from underhood.models.copying import begin_copying
from underhood.models.decoder import Decoder
from underhood.recipes.corpus import prepare_data
from underhood.recipes.run import Run
from underhood.recipes.spec import BuildSpec
from underhood.recipes.stages.pretrain import EMBED_STD
from underhood.recipes.training import optimizer_spec
from underhood.train.loop import FitSpec, fit
from underhood.train.loss import next_token_loss_sum
from underhood.train.plan import FIRST_SIZE, SIZES
from underhood.train.schedule import ScheduleSpec

NEAR, FAR = slice(8, 32), slice(128, 256)
WINDOW = 256


@dataclass(frozen=True, kw_only=True)
class Options:
    """How often and how long.

    Attributes:
        seeds: independent repeats, from seed 0: of the weights and of the order of the text.
        steps: updates of each model.
        bf16: matrix products in bfloat16.
    """

    seeds: int = 3
    steps: int = 300
    threads: int = 2
    bf16: bool = True


def main(options: Options) -> None:
    torch.set_num_threads(options.threads)
    device = Device(name="cpu", dtype="bfloat16" if options.bf16 else "float32")
    with tempfile.TemporaryDirectory() as folder:
        run = Run.create(Path(folder) / "run", BuildSpec())
        prepare_data(run)
        train, held_out = run.open_shards("train"), run.open_shards("held_out")
        rows: list[dict[str, Any]] = []
        for seed in range(options.seeds):
            actual = {
                name: score(trained(run.spec, train, device, options.steps, seed, copying), held_out, device)
                for name, copying in (("plain", False), ("copying", True))
            }
            rows.append({"seed": seed} | actual)
            print(
                f"seed {seed}: " + " · ".join(f"{name} {line(values)}" for name, values in actual.items()), flush=True
            )
        parameters = parameter_count(SIZES[FIRST_SIZE].spec(run.spec.vocab_size).build())
    gained = [row["plain"]["bits_per_byte"] - row["copying"]["bits_per_byte"] for row in rows]
    spread = f" ± {statistics.stdev(gained):.4f}" if len(gained) > 1 else ""
    print(f"bits per byte gained: {statistics.fmean(gained):.4f}{spread}")
    results = {"parameters": parameters, "steps": options.steps, "runs": rows, "bits_per_byte_gained": gained}
    print_json("copying", results, threads=options.threads, **machine("torch"))


def line(values: dict[str, float]) -> str:
    return f"{values['bits_per_byte']:.4f} bits per byte, {values['near']:.3f} → {values['far']:.3f} nats"


def trained(spec: BuildSpec, shards: TokenShards, device: Device, steps: int, seed: int, copying: bool) -> Decoder:
    size = SIZES[FIRST_SIZE]
    model = size.spec(spec.vocab_size).initialize(seed=seed, embed_std=EMBED_STD)
    if copying:
        begin_copying(model, seed=seed, embed_std=EMBED_STD)
    batches = PackedBatches(shards, batch_size=size.batch_size, context_length=size.context_length, seed=seed)

    fit(
        model,
        batches,
        next_token_loss_sum,
        optimizer_spec(spec, device).build(model),
        FitSpec(steps=steps, schedule=ScheduleSpec(warmup=0.02, decay=0.6), log_every=steps),
        stage="copying" if copying else "plain",
        log=RunLog(None),
        device=device,
    )
    return model


@torch.no_grad()
def score(model: Decoder, shards: TokenShards, device: Device) -> dict[str, float]:
    """Bits per byte of all held-out text; mean loss per token near the start of a window and far into it."""
    with device.autocast():
        report = held_out_loss(
            model, EvaluationWindows.of_shards(shards, context_length=model.context_length, stride=192)
        )
        texts = [np.append(shards.eot_id, shards.document(number)) for number in range(len(shards))]
        rows = [text[at : at + WINDOW + 1] for text in texts for at in range(0, len(text) - WINDOW, WINDOW)]
        loss_NT = torch.cat(
            [
                F.cross_entropy(model(piece[:, :-1]).float().mT, piece[:, 1:], reduction="none")
                for piece in torch.from_numpy(np.stack(rows).astype(np.int64)).split(16)
            ]
        )
    near, far = (float(loss_NT[:, where].mean()) for where in (NEAR, FAR))
    return {"bits_per_byte": report.interval().value, "near": near, "far": far}


if __name__ == "__main__":
    main(options_from_command_line(Options))
