"""Experience of policy optimisation: rollouts with rewards, log-probabilities and advantages, cut into batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from underhood.align.rewards import SampledAnswer
from underhood.core.errors import UserError
from underhood.core.protocols import Tokenizer
from underhood.infer.rollout import Rollout


@dataclass(frozen=True)
class PolicyPrompt:
    """A prompt to answer.

    Attributes:
        ids: its tokens.
        text: the last user turn.
        record: the data's record, which rewards may look into.
        messages: the whole conversation.
    """

    ids: Sequence[int]
    text: str
    record: Mapping[str, Any] = field(default_factory=dict)
    messages: Sequence[Mapping[str, str]] = ()


class PromptOrder:
    """Prompts by step number: a pure function of the step. Every epoch reads all of them in another order."""

    def __init__(self, prompts: Sequence[PolicyPrompt], *, per_step: int, seed: int):
        if not prompts:
            raise UserError("there are no prompts to learn from")
        if per_step < 1:
            raise ValueError(f"per_step must be at least 1, got {per_step}")
        self.prompts, self.per_step, self.seed = prompts, per_step, seed

    def epoch_of(self, step: int) -> float:
        """How many times the prompts have been read when `step` begins."""
        return step * self.per_step / len(self.prompts)

    def __call__(self, step: int) -> list[PolicyPrompt]:
        orders: dict[int, np.ndarray] = {}
        chosen: list[PolicyPrompt] = []
        for number in range(step * self.per_step, (step + 1) * self.per_step):
            epoch, index = divmod(number, len(self.prompts))
            if epoch not in orders:
                orders[epoch] = np.random.default_rng([self.seed, epoch]).permutation(len(self.prompts))
            chosen.append(self.prompts[int(orders[epoch][index])])
        return chosen


@dataclass
class Experience:
    """Answers of one outer step: row p · G + i is answer i to prompt p.

    Attributes:
        ids_NT, mask_NT, response_mask_NT: as in `infer.rollout.Rollout`.
        old_logp_NT: log-probabilities that the answers were sampled with.
        ref_logp_NT: the reference's; None where no reference is used.
        finished_N: answers that ended by themselves.
        rewards_N: scores of the reward function.
        answers: answers per prompt G.
        old_values_NT: the value head's view before the update, or None.
        advantages_N: an advantage per answer (GRPO).
        advantages_NT, returns_NT: advantages and returns per token (PPO).
    """

    ids_NT: Int[Tensor, "N T"]
    mask_NT: Bool[Tensor, "N T"]
    response_mask_NT: Bool[Tensor, "N T"]
    old_logp_NT: Float[Tensor, "N T"]
    ref_logp_NT: Float[Tensor, "N T"] | None
    finished_N: Bool[Tensor, "N"]
    rewards_N: Float[Tensor, "N"]
    answers: int
    old_values_NT: Float[Tensor, "N T"] | None = None
    advantages_N: Float[Tensor, "N"] | None = None
    advantages_NT: Float[Tensor, "N T"] | None = None
    returns_NT: Float[Tensor, "N T"] | None = None

    @property
    def rewards_PG(self) -> Float[Tensor, "P G"]:
        return self.rewards_N.view(-1, self.answers)

    @property
    def tokens(self) -> int:
        """Tokens of the answers."""
        return int(self.response_mask_NT.sum())

    def rows(self, numbers: Tensor) -> Experience:
        """Some of the rows, without columns that are padding in all of them."""
        width = int(self.mask_NT[numbers].sum(dim=1).max())
        cut = {
            name: None if value is None else value[numbers, :width] if name.endswith("_NT") else value[numbers]
            for name in self.__dataclass_fields__
            if name != "answers"
            for value in [getattr(self, name)]
        }
        return Experience(**cut, answers=self.answers)  # type: ignore[arg-type]

    def micro_batches(self, size: int, numbers: Tensor | None = None) -> Iterator[Tensor]:
        """Numbers of rows of like length, `size` at most: together they have little padding."""
        numbers = torch.arange(len(self.ids_NT)) if numbers is None else numbers
        lengths = self.mask_NT.sum(dim=1).cpu()[numbers]
        order = lengths.argsort(stable=True)
        yield from numbers[order].split(size)

    def minibatches(self, count: int, seed: Sequence[int]) -> list[Tensor]:
        """All rows in random order, cut into `count` parts of like size, each for one update."""
        order = np.random.default_rng([*seed]).permutation(len(self.ids_NT))
        return [torch.from_numpy(part_rows) for part_rows in np.array_split(order, count) if len(part_rows)]


def sampled_answers(
    prompts: Sequence[PolicyPrompt], rollout: Rollout, answers: int, tokenizer: Tokenizer
) -> list[SampledAnswer]:
    """The rollout's continuations as text, without the stop token that ended them.

    The token ids stay those that were sampled: text is only for rewards and people, and is never tokenised again.
    """
    sampled: list[SampledAnswer] = []
    for row, response_T in enumerate(rollout.response_mask_NT):
        ids = rollout.ids_NT[row][response_T].tolist()
        finished = bool(rollout.finished_N[row])
        prompt = prompts[row // answers]
        text = tokenizer.decode(ids[:-1] if finished else ids)
        sampled.append(SampledAnswer(prompt.text, text, finished, prompt.record, prompt.messages))
    return sampled
