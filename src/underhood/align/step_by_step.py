"""Distilling step-by-step: rationales as a second task, not as an input (Hsieh et al. 2023).

A teacher gives a label and the steps that lead to it. Each example becomes two, told apart by a prefix of the prompt:
after ``[label]`` the student writes the label at once, after ``[rationale]`` the steps. Both go through the same
weights, so what the steps teach serves the label as well; and a label costs no more tokens than before, since no steps
are written when it is wanted.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

LABEL_PREFIX, RATIONALE_PREFIX = "[label] ", "[rationale] "


@dataclass(frozen=True)
class TaskPair:
    """The two examples made of one: prompts with their prefixes, and what is to be written after each."""

    label_prompt: str
    label: str
    rationale_prompt: str
    rationale: str


def two_tasks(prompt: str, label: str, rationale: str) -> TaskPair:
    """The example as two tasks of one student (section 3.2).

    Raises:
        ValueError: the rationale is empty.
    """
    if not rationale.strip():
        raise ValueError("an example without a rationale has no second task")
    return TaskPair(LABEL_PREFIX + prompt, label, RATIONALE_PREFIX + prompt, rationale)


def step_by_step_loss(
    label_loss: Float[Tensor, "*models"], rationale_loss: Float[Tensor, "*models"], *, alpha: float
) -> Float[Tensor, "*models"]:
    """α · L_label + (1 − α) · L_rationale, each a mean over its own tokens.

    The paper's text has L_label + λ · L_rationale (equations 3 and 4) with λ = 1, the published code this form with
    α = 0.5: half of it. In general λ = (1 − α) / α, and this loss is 1 / (1 + λ) of that.

    Raises:
        ValueError: `alpha` is not a share.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is between 0 and 1, got {alpha}")
    return alpha * label_loss + (1 - alpha) * rationale_loss
