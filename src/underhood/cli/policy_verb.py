"""The commands ``underhood ppo`` and ``grpo``: their common options, and how the training ended."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from underhood.cli.training_verb import AnyModelOptions, follow_training, trained_line

if TYPE_CHECKING:
    from rich.console import Console

    from underhood.recipes.policy_run import PolicyTrained


@dataclass(frozen=True, kw_only=True)
class PolicyOptions(AnyModelOptions):
    """Options beside the settings of the training."""

    FIRST: ClassVar = ("model", "data", "reward", "out", "stage", "steps", "answers", "max_new_tokens", "json")
    REST: ClassVar = "Settings of the training"

    out: Path | None = None
    """Folder of the run to make; runs/MODEL-DATA-METHOD if left out."""


def run_policy_command(args: Any, name: str) -> int:
    """Trains by PPO or GRPO and prints what came out; returns the exit code."""
    from underhood.recipes.policy_run import train_policy
    from underhood.recipes.published_run import model_stem

    path = args.out or Path("runs") / f"{model_stem(args.model)}-{Path(args.data).stem}-{name}"
    return follow_training(*train_policy(args.settings, path), _show, as_json=args.json)


def _show(screen: Console, done: PolicyTrained) -> None:
    from underhood.ui.terminal import table

    screen.print(trained_line(done, "on {:,} rollouts"))
    if done.before:
        rows = [
            ["mean reward", f"{done.before['reward']:.3f}", f"{done.after['reward']:.3f}"],
            ["tokens per answer", f"{done.before['length']:.1f}", f"{done.after['length']:.1f}"],
            ["cut off", f"{done.before['cut_off']:.1%}", f"{done.after['cut_off']:.1%}"],
        ]
        screen.print(table([f"{done.held_out:,} held-out prompts", "before", "after"], rows))
