"""``underhood grpo``: trains any model by GRPO on prompts and a reward."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from underhood.cli.model_options import ModelOptions
from underhood.cli.options import Positional
from underhood.recipes.policy_settings import GRPOSettings


@dataclass(frozen=True, kw_only=True)
class Args(ModelOptions, GRPOSettings):
    """Trains any model on its own answers by GRPO: each is compared with the other
    answers to the same prompt. What is interrupted goes on.

    The file holds a prompt per line as JSON, and what the reward needs, such as the
    right answer: {"prompt": "12+30=", "answer": "42"}. A reward of your own is a
    function in a Python file: def reward(answers) -> list of numbers, where each
    answer has .prompt, .answer, .finished and .record. It is run as any code is.
    """

    FIRST: ClassVar = ("model", "data", "reward", "out", "stage", "steps", "answers", "max_new_tokens", "json")
    REST: ClassVar = "Settings of the training"

    model: Positional[str]
    """A run, a Hugging Face folder, a GGUF file, a name like smollm2, or hf:OWNER/NAME."""

    out: Path | None = None
    """Folder of the run to make; runs/MODEL-DATA-grpo if left out."""

    json: bool = False
    """Prints one JSON object about the result; progress goes to standard error."""


def run(args: Args) -> int:
    from underhood.cli.policy_verb import run_policy_command

    return run_policy_command(args, "grpo")
