"""``underhood sft``: fine-tunes the base model of a run on conversations."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from underhood.cli.options import Positional
from underhood.core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Args:
    """Fine-tunes the base model of a run on conversations about its text; only
    the answers are learnt.

    An interrupted fine-tuning goes on. What was aligned from an earlier
    fine-tuning is removed: it would no longer belong to this one.

    With --model and --data it fine-tunes any model on a file of conversations
    instead, and makes a run of its own. The file is JSON lines, JSON or Parquet
    in OpenAI's, ShareGPT's or Alpaca's form, or prompts with responses.
    """

    FIRST: ClassVar = ("run", "steps", "again", "lr_scale", "model", "data", "json")
    REST: ClassVar = "With --model"

    run: Positional[Path | None] = None
    """Folder of the run, or of a checkpoint of its base model to start from."""

    model: str | None = None
    """A run, a Hugging Face folder or hf:OWNER/NAME to fine-tune on --data."""

    data: Path | None = None
    """A file of conversations."""

    out: Path | None = None
    """Folder of the run to make; runs/MODEL-DATA if left out."""

    stage: Literal["base", "sft", "dpo"] | None = None
    """Which of a run's models to start from; the last one if left out."""

    lora_rank: int | None = None
    """Rank of LoRA adapters; 0 trains all weights. Left out: 16, or 0 for a small model."""

    lora_alpha: float | None = None
    """LoRA's alpha; twice the rank if left out."""

    lora_dropout: float = 0.0
    """Share of the inputs that the adapters do without in training."""

    lora_targets: tuple[str, ...] = ("blocks.*",)
    """Which linear layers get adapters, by names like query or blocks.0.*."""

    rslora: bool = False
    """Scales adapters by alpha / sqrt(rank)."""

    bits: Literal[8, 4] | None = None
    """Holds the frozen weights under the adapters in 8 or 4 bits."""

    epochs: float = 3.0
    """How often the conversations are read, unless --steps is given."""

    rows: int = 4
    """Rows of packed conversations read at once."""

    accumulate: int = 1
    """How many times --rows make one update."""

    context: int | None = None
    """Tokens per row; the longest conversation's if left out."""

    lr: float | None = None
    """Learning rate; by the model's width if left out."""

    validation: float = 0.05
    """Share of the conversations to validate by."""

    test: float = 0.1
    """Share of the conversations to test by."""

    checkpointing: bool = False
    """Less memory for a third more time."""

    seed: int = 0
    """Seed of the split, the order and the adapters' start."""

    device: str | None = None
    """Where to compute: cpu, cuda or mps; the fastest if left out."""

    steps: int | None = None
    """Steps in all; a finished model goes on up to these."""

    again: bool = False
    """Starts over from the model before."""

    lr_scale: float | None = None
    """Learning rates of fine-tuning as a share of pretraining's."""

    json: bool = False
    """Prints one JSON object about the result; progress goes to standard error."""


def run(args: Args) -> int:
    if args.model is not None or args.data is not None:
        return _any_model(args)
    if args.run is None:
        raise UserError("nothing to fine-tune", fix="Name a RUN, or give --model and --data")
    from underhood.cli.stage_verb import train

    changes = {"sft_lr_scale": args.lr_scale}
    return train(args.run, "sft", again=args.again, steps=args.steps, as_json=args.json, changes=changes)


def _any_model(args: Args) -> int:
    if args.model is None or args.data is None:
        raise UserError("--model and --data go together", fix=f"Give --{'data' if args.data is None else 'model'} too")
    if args.run is not None:
        raise UserError(f"{args.run} and --model are two models", fix="Give one of them")
    if args.again or args.lr_scale is not None:
        raise UserError("--again and --lr-scale belong to a run's own fine-tuning", fix="Use --out or --lr")
    from dataclasses import fields

    from underhood.cli.finetune import train
    from underhood.recipes.finetune import FinetuneSpec

    own = {field.name for field in fields(FinetuneSpec)} & {field.name for field in fields(args)}
    given = {name: getattr(args, name) for name in own} | {"data": str(args.data), "model_stage": args.stage}
    try:
        spec = FinetuneSpec(**given)
    except ValueError as error:
        raise UserError(str(error)) from error
    return train(spec, args.out, as_json=args.json)
