"""What weights of 8 and 4 bits cost a model that was trained here: bits per byte and perplexity of its held-out text.

    python benchmarks/bench_quantize_quality.py --run runs/NAME [--stage base] [--threads 2]

The model as trained is measured beside its copies by `optimize_for_inference`, as `--quantize int8` and `--quantize
int4` serve it, on the same documents. What rounding changes is a paired difference: its interval is that of drawing
other documents. "Same choice" is how often the likeliest next token stays the same, over all held-out tokens.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from harness import machine, options_from_command_line, print_json
from underhood.core.errors import UserError
from underhood.data.batch import IGNORE
from underhood.data.pack import EvaluationWindows
from underhood.evals.intervals import paired_ratio
from underhood.evals.perplexity import LossReport, held_out_loss
from underhood.infer.load import load
from underhood.infer.optimize import Quantized, optimize_for_inference
from underhood.models.base import parameter_count
from underhood.models.decoder import Decoder
from underhood.recipes.run import Run

KINDS: tuple[Quantized | None, ...] = (None, "int8", "int4")


@dataclass(frozen=True)
class Options:
    """What int8 and int4 weights change about a run's bits per byte and perplexity."""

    run: Path
    """A run that underhood build has made."""

    stage: str = "base"
    """Which of its models."""

    threads: int = torch.get_num_threads()
    """Threads to use."""


def main() -> None:
    options = options_from_command_line(Options)
    torch.set_num_threads(options.threads)
    try:
        results = measure(options.run, options.stage)
    except UserError as mistake:
        sys.exit(str(mistake))
    show(results)
    print_json("quantize_quality", results, **machine("torch"), threads=options.threads)


def measure(run: Path, stage: str) -> dict[str, Any]:
    opened = Run.open(run)
    shards = opened.open_shards("held_out")
    plain = load(run, stage).model
    assert isinstance(plain, Decoder), "a build makes decoders"
    context = plain.context_length
    windows = EvaluationWindows.of_shards(shards, context_length=context, stride=max(1, context * 3 // 4))
    kinds: dict[str, dict[str, Any]] = {}
    before: LossReport | None = None
    expected: list[Tensor] = []
    for kind in KINDS:
        model = load(run, stage).model
        assert isinstance(model, Decoder), "a build makes decoders"
        if kind is not None:
            model = optimize_for_inference(model, kind)
        report, chosen = held_out_loss(model, windows), choices(model, windows)
        before, expected = before or report, expected or chosen
        change = paired_ratio((before.bits_N, before.bytes_N), (report.bits_N, report.bytes_N))
        same = sum(int((item == two).sum()) for item, two in zip(chosen, expected, strict=True))
        kinds[kind or "fp32"] = {
            "perplexity": round(report.perplexity, 4),
            "perplexity_change": round(report.perplexity / before.perplexity - 1, 5),
            "bits_per_byte": round(report.bits_per_byte, 5),
            "bits_per_byte_change": [round(value, 6) for value in (change.value, change.low, change.high)],
            "same_choice": round(same / report.tokens, 4),
            "megabytes": round(size(model) / 1e6, 2),
        }
    assert before is not None
    facts = {"data": opened.spec.data, "minutes": opened.spec.minutes, "stage": stage}
    facts |= {"parameters": parameter_count(plain), "context": context, "documents": len(shards)}
    return {**facts, "tokens": before.tokens, "bytes": before.bytes, "kinds": kinds}


@torch.inference_mode()
def choices(model: Decoder, windows: EvaluationWindows) -> list[Tensor]:
    """The likeliest token wherever one is scored, batch by batch."""
    return [model(batch.tokens, positions=batch.positions).argmax(dim=-1)[batch.targets != IGNORE] for batch in windows]


def size(model: nn.Module) -> int:
    """Bytes of weights; a matrix that is embedding and unembedding counts once."""
    parts = {piece.data_ptr(): piece for piece in (*model.parameters(), *model.buffers())}
    return sum(piece.numel() * piece.element_size() for piece in parts.values())


def show(results: dict[str, Any]) -> None:
    print(f"{results['parameters']:,} parameters, {results['documents']} documents, {results['tokens']:,} tokens\n")
    print(f"{'':<6}{'perplexity':>12}{'change':>9}{'bits/byte':>11}{'change (95 %)':>33}{'same choice':>13}{'MB':>8}")
    for kind, row in results["kinds"].items():
        value, low, high = row["bits_per_byte_change"]
        change = f"{value:+.5f} ({low:+.5f} to {high:+.5f})" if kind != "fp32" else ""
        print(
            f"{kind:<6}{row['perplexity']:>12.3f}{row['perplexity_change']:>+9.2%}{row['bits_per_byte']:>11.4f}"
            f"{change:>33}{row['same_choice']:>13.1%}{row['megabytes']:>8.1f}"
        )


if __name__ == "__main__":
    main()
