"""LoRA on a GPT-2 of 124 million parameters: steps per second and peak memory, beside peft on transformers.

Both sides open the same folder of random weights, adapt every linear layer of the blocks with the same rank, and train
in fp32 (or both under bf16 autocast, with --dtype bfloat16) on the same batches with AdamW, gradient clipping and no
dropout. Each run is a process of its own (so its peak
memory is its own), and the sides take turns. The first losses must agree: it is the same model and the same task.
(Where GPT-2 stores query, key and value as one matrix, peft gives it one companion; ours has three, a little more work
on our side.)

    python benchmarks/bench_finetune.py [--rounds 5] [--steps 12] [--quick]
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness import machine, print_json

WARM_UP = 2
OURS, PEER = "underhood", "peft + transformers"
SHAPES: dict[str, dict[str, Any]] = {
    "full": {"n_embd": 768, "n_layer": 12, "n_head": 12, "vocab_size": 50_257, "n_positions": 1024},
    "quick": {"n_embd": 256, "n_layer": 4, "n_head": 4, "vocab_size": 50_257, "n_positions": 256},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="processes per side")
    parser.add_argument("--steps", type=int, default=12, help="timed steps per process")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--sequence", type=int, default=256)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="what products compute in")
    parser.add_argument("--quick", action="store_true", help="a small model, two rounds: does it run at all")
    parser.add_argument("--side", choices=(OURS, PEER), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        torch.set_num_threads(options.threads)
        print(json.dumps((train_ours if options.side == OURS else train_peer)(options)))
        return
    if options.quick:
        options.rounds, options.steps = min(options.rounds, 2), min(options.steps, 4)
    with tempfile.TemporaryDirectory() as made:
        options.folder = Path(made)
        make_model(options.folder, "quick" if options.quick else "full")
        runs: dict[str, list[dict[str, Any]]] = {OURS: [], PEER: []}
        for turn in range(options.rounds):
            for side in (OURS, PEER)[:: -1 if turn % 2 else 1]:
                runs[side].append(in_its_own_process(options, side))
                last = runs[side][-1]
                print(
                    f"round {turn + 1}  {side:<20} {last['median_s']:.3f} s/step, {last['peak_mb']:,.0f} MB", flush=True
                )
    report(options, runs)


def make_model(folder: Path, shape: str) -> None:
    """A GPT-2 with random weights as transformers makes it, without dropout."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(**SHAPES[shape], resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    GPT2LMHeadModel(config).save_pretrained(folder)


def batch_of(step: int, options: argparse.Namespace, vocab: int) -> Tensor:
    """Random tokens (batch, sequence), the same on both sides."""
    generator = torch.Generator().manual_seed(1000 + step)
    return torch.randint(vocab, (options.batch, options.sequence), generator=generator)


def precision(options: argparse.Namespace) -> torch.autocast:
    """Autocast to bf16, or nothing."""
    return torch.autocast("cpu", torch.bfloat16, enabled=options.dtype == "bfloat16")


def train_ours(options: argparse.Namespace) -> dict[str, Any]:
    from underhood.align.sft import SFTLoss
    from underhood.core.device import Device
    from underhood.core.runlog import RunLog
    from underhood.data.batch import IGNORE, Batch
    from underhood.models.hub_weights import load_decoder
    from underhood.nn.lora import LoRASpec
    from underhood.train.loop import FitSpec, fit
    from underhood.train.optim import AdamWSpec
    from underhood.train.schedule import ScheduleSpec

    model = load_decoder(options.folder)
    LoRASpec(rank=options.rank, alpha=2 * options.rank).apply(model)

    def batches(step: int) -> Batch:
        tokens = batch_of(step, options, model.vocab_size)
        targets = torch.cat([tokens[:, 1:], torch.full((options.batch, 1), IGNORE)], dim=1)
        return Batch(tokens, targets)

    log, losses, times = RunLog(None), [], [time.perf_counter()]
    log.listeners.append(lambda event: losses.append(event["loss"]) if event["kind"] == "step" else None)
    fit(
        model,
        batches,
        SFTLoss(),
        AdamWSpec(lr=1e-4, weight_decay=0.01).build(model),
        FitSpec(steps=WARM_UP + options.steps, schedule=ScheduleSpec(warmup=0, decay=0)),
        stage="lora",
        log=log,
        device=Device(name="cpu", dtype=options.dtype),
        on_step=lambda _: times.append(time.perf_counter()),
    )
    return result(times, losses, sum(p.numel() for p in model.parameters() if p.requires_grad))


def train_peer(options: argparse.Namespace) -> dict[str, Any]:
    from peft import LoraConfig, get_peft_model
    from transformers import GPT2LMHeadModel

    base = GPT2LMHeadModel.from_pretrained(options.folder, attn_implementation="sdpa")
    vocab = base.config.vocab_size
    config = LoraConfig(
        r=options.rank,
        lora_alpha=2 * options.rank,
        target_modules=["c_attn", "c_proj", "c_fc"],
        fan_in_fan_out=True,
        task_type="CAUSAL_LM",
    )
    model: Any = get_peft_model(base, config)
    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.01)
    losses, times = [], [time.perf_counter()]
    for step in range(WARM_UP + options.steps):
        tokens = batch_of(step, options, vocab)
        with precision(options):
            loss = model(input_ids=tokens, labels=tokens, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(float(loss.detach()))
        times.append(time.perf_counter())
    return result(times, losses, sum(parameter.numel() for parameter in trained))


def result(times: list[float], losses: list[float], trained: int) -> dict[str, Any]:
    seconds = [after - before for before, after in pairwise(times)][WARM_UP:]
    scale = 1024 if sys.platform == "darwin" else 1  # bytes there, kilobytes elsewhere
    return {
        "median_s": statistics.median(seconds),
        "seconds": [round(second, 4) for second in seconds],
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 / scale,
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "trained_parameters": trained,
    }


def in_its_own_process(options: argparse.Namespace, side: str) -> dict[str, Any]:
    words = [sys.executable, __file__, "--side", side, "--folder", str(options.folder)]
    for name in ("steps", "batch", "sequence", "rank", "threads", "dtype"):
        words += [f"--{name}", str(getattr(options, name))]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{side} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def report(options: argparse.Namespace, runs: dict[str, list[dict[str, Any]]]) -> None:
    table, tokens = {}, options.batch * options.sequence
    for side, actual in runs.items():
        medians = [run["median_s"] for run in actual]
        table[side] = {
            "s_per_step": round(statistics.median(medians), 4),
            "runs_s": [round(median, 4) for median in medians],
            "steps_per_s": round(1 / statistics.median(medians), 4),
            "tokens_per_s": round(tokens / statistics.median(medians), 1),
            "peak_mb": round(max(run["peak_mb"] for run in actual), 1),
            "trained_parameters": actual[0]["trained_parameters"],
            "first_loss": actual[0]["first_loss"],
            "last_loss": actual[0]["last_loss"],
        }
    print(f"\n{'':<22}{'s/step':>8}{'range':>17}{'tokens/s':>10}{'peak MB':>9}{'first loss':>12}{'last':>9}")
    for side, row in table.items():
        span = f"{min(row['runs_s']):.3f}–{max(row['runs_s']):.3f}"
        print(
            f"{side:<22}{row['s_per_step']:>8.3f}{span:>17}{row['tokens_per_s']:>10,.0f}{row['peak_mb']:>9,.0f}"
            f"{row['first_loss']:>12.5f}{row['last_loss']:>9.4f}"
        )
    ours, peer = table[OURS], table[PEER]
    if abs(ours["first_loss"] - peer["first_loss"]) > (1e-4 if options.dtype == "float32" else 0.02):
        sys.exit("the first losses differ: not the same model or not the same task")
    speed, memory = peer["s_per_step"] / ours["s_per_step"], ours["peak_mb"] / peer["peak_mb"]
    print(f"\n{speed:.2f} times as fast (goal 1.2), {memory:.2f} times the memory (goal: at most 1)")
    print_json(
        "finetune",
        table,
        **machine("torch", "transformers", "peft"),
        threads=options.threads,
        batch=options.batch,
        sequence=options.sequence,
        rank=options.rank,
        dtype=options.dtype,
        speed_ratio=round(speed, 3),
        memory_ratio=round(memory, 3),
    )


if __name__ == "__main__":
    main()
