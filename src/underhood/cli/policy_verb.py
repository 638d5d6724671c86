"""The commands ``underhood ppo`` and ``grpo``: progress, and how the training ended."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any


def run_policy_command(args: Any, name: str) -> int:
    """Trains by PPO or GRPO and prints what came out; returns the exit code."""
    from underhood.cli.progress import StageProgress
    from underhood.recipes.policy_run import train_policy
    from underhood.recipes.published_run import model_stem
    from underhood.train.stopping import Interrupted
    from underhood.ui.terminal import console, next_commands, table

    path = args.out or Path("runs") / f"{model_stem(args.model)}-{Path(args.data).stem}-{name}"
    screen = console(sys.stderr if args.json else None)
    log, work = train_policy(args.settings, path)
    try:
        with StageProgress(log, screen):
            done = work()
    except Interrupted as stop:
        print(f"Stopped after step {stop.step:,}; the work so far is kept.", file=sys.stderr)
        print("Go on with the same command.", file=sys.stderr)
        return 130
    if args.json:
        print(json.dumps(asdict(done) | {"path": str(done.path)}))
        return 0
    share = done.trained_parameters / done.parameters
    screen.print(
        f"\nTrained {done.trained_parameters:,} parameters ({share:.1%} of the model's) on {done.steps:,} rollouts."
    )
    if done.before:
        rows = [
            ["mean reward", f"{done.before['reward']:.3f}", f"{done.after['reward']:.3f}"],
            ["tokens per answer", f"{done.before['length']:.1f}", f"{done.after['length']:.1f}"],
            ["cut off", f"{done.before['cut_off']:.1%}", f"{done.after['cut_off']:.1%}"],
        ]
        screen.print(table([f"{done.held_out:,} held-out prompts", "before", "after"], rows))
    next_commands(screen, {f"underhood chat {shlex.quote(str(path))}": "talk with it"})
    return 0
