"""``underhood ppo``: trains any model by PPO on prompts and a reward."""

from __future__ import annotations

from dataclasses import dataclass

from underhood.cli.policy_verb import PolicyOptions, run_policy_command
from underhood.recipes.policy_settings import PPOSettings


@dataclass(frozen=True, kw_only=True)
class Args(PolicyOptions, PPOSettings):
    """Trains any model on its own answers by PPO: a value head learns what to
    expect, and the KL to the model as it was is part of the reward. What is
    interrupted goes on.

    The file holds a prompt per line as JSON, and what the reward needs, such as the
    right answer: {"prompt": "12+30=", "answer": "42"}. A reward of your own is a
    function in a Python file: def reward(answers) -> list of numbers, where each
    answer has .prompt, .answer, .finished and .record. It is run as any code is.

    In the settings [N] is Huang et al. 2024, "The N implementation details of RLHF
    with PPO", and [I] is Ouyang et al. 2022 (InstructGPT).
    """


def run(args: Args) -> int:
    return run_policy_command(args, "ppo")
