"""``underhood grpo``: trains any model by GRPO on prompts and a reward."""

from __future__ import annotations

from dataclasses import dataclass

from underhood.cli.policy_verb import PolicyOptions, run_policy_command
from underhood.recipes.policy_settings import GRPOSettings


@dataclass(frozen=True, kw_only=True)
class Args(PolicyOptions, GRPOSettings):
    """Trains any model on its own answers by GRPO: each is compared with the other
    answers to the same prompt. What is interrupted goes on.

    The file holds a prompt per line as JSON, and what the reward needs, such as the
    right answer: {"prompt": "12+30=", "answer": "42"}. A reward of your own is a
    function in a Python file: def reward(answers) -> list of numbers, where each
    answer has .prompt, .answer, .finished and .record. It is run as any code is.
    """


def run(args: Args) -> int:
    return run_policy_command(args, "grpo")
