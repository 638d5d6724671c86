"""``underhood best-of``: samples n answers to every prompt and writes the best, to fine-tune on."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from underhood.cli.training_verb import AnyModelOptions
from underhood.core.errors import UserError
from underhood.recipes.policy_settings import BestOfSettings


@dataclass(frozen=True, kw_only=True)
class Args(AnyModelOptions, BestOfSettings):
    """Samples answers to every prompt and writes those with the highest reward as
    conversations: rejection sampling. underhood finetune learns from the file.

    In turns with finetune, and with ppo or grpo at the end, it is Llama 2's recipe.
    """

    out: Path
    """The file of conversations to write (JSON lines)."""


def run(args: Args) -> int:
    from underhood.cli.progress import StageProgress
    from underhood.core.runlog import RunLog
    from underhood.recipes.best_of import write_best
    from underhood.ui.terminal import console, next_commands

    if args.out.exists():
        raise UserError(f"{args.out} exists already", fix="Choose another --out")
    screen, log = console(sys.stderr if args.json else None), RunLog(None)
    with StageProgress(log, screen):
        done = write_best(args.settings, args.out, log)
    if args.json:
        print(json.dumps(asdict(done) | {"path": str(done.path)}))
        return 0
    screen.print(f"\nKept {done.kept:,} of {done.prompts:,} best answers in {done.path}.")
    screen.print(f"Mean reward {done.mean:.3f}; of the best of {args.n}: {done.best:.3f}.")
    if done.cut_off or done.low:
        screen.print(f"Left out: {done.cut_off:,} cut off at {args.max_new_tokens:,} tokens, {done.low:,} too low.")
    if done.equal:
        screen.print(f"Of {done.equal:,} prompts all answers got the same reward.")
    model, path = shlex.quote(args.model), shlex.quote(str(args.out))
    next_commands(screen, {f"underhood finetune {model} --data {path}": "learn from them"})
    return 0
