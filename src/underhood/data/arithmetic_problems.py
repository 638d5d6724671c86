"""Arithmetic problems with one right answer each, for reinforcement learning with a verifiable reward."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Problem:
    """An arithmetic problem: a question as text and its right answer."""

    prompt: str
    answer: str

    def record(self) -> dict[str, str]:
        """As a record of a prompts file."""
        return {"prompt": self.prompt, "answer": self.answer}


def addition_problems(largest: int, *, count: int | None = None, seed: int = 0) -> list[Problem]:
    """Sums ``a + b =`` of numbers from 0 to `largest`, in random order without repetition.

    Args:
        count: how many; None gives all (largest + 1)² of them.

    Raises:
        ValueError: more are wanted than there are.
    """
    total = (largest + 1) ** 2
    count = total if count is None else count
    if not 0 < count <= total:
        raise ValueError(f"there are {total} such sums, {count} were wanted")
    numbers = np.random.default_rng(seed).permutation(total)[:count]
    pairs = (divmod(int(number), largest + 1) for number in numbers)
    return [Problem(f"{a}+{b}=", str(a + b)) for a, b in pairs]
