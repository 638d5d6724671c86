"""On-policy distillation: the student writes, the teacher scores every token of it (Agarwal et al. 2024, GKD).

A student that learns from the teacher's texts is examined in its own: a wrong token takes it where it was never taught
what to say. Here the batches are the student's own samples, drawn with its weights of that moment, and the loss (see
`align.distillation`) asks the teacher about every one of their tokens. No gradient goes through the sampling.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from underhood.core.errors import UserError
from underhood.data.batch import IGNORE, Batch
from underhood.infer.engine import Engine
from underhood.infer.sample import SamplingSpec
from underhood.models.base import BuiltModel


class OnPolicyBatches:
    """Batches of a student's own answers by step number, a function of the step and the student's weights.

    The loss falls on every token of an answer, the one that ends it included; what a cut answer lacks is not learnt.

    Args:
        student: whose weights write; its training mode is as before afterwards.
        engine: writes the answers; it gets the weights anew for each batch.
        prompts: token ids; each epoch reads them in an order of its own.
        batch_size: answers per batch.
        temperature: of the sampling; 0 is greedy.
        on_batch: called with the number of answers of each batch and how many of them were cut.

    Raises:
        UserError: there are no prompts.
    """

    def __init__(
        self,
        student: BuiltModel,
        engine: Engine,
        prompts: Sequence[list[int]],
        *,
        batch_size: int,
        max_new_tokens: int,
        stop_ids: Collection[int],
        seed: int,
        temperature: float = 1.0,
        on_batch: Callable[[int, int], None] | None = None,
    ):
        if not prompts:
            raise UserError("there are no prompts for the student to answer", fix="Give conversations that are shorter")
        self.student, self.engine, self.prompts, self.batch_size = student, engine, prompts, batch_size
        self.max_new_tokens, self.stop_ids = max_new_tokens, frozenset(stop_ids)
        self.seed, self.temperature, self.on_batch = seed, temperature, on_batch
        self.rows_per_epoch = len(prompts)

    def epoch_of(self, step: int) -> float:
        """How many times the prompts have been answered when `step` begins."""
        return step * self.batch_size / self.rows_per_epoch

    def __call__(self, step: int) -> Batch:
        prompts = [self.prompts[self._prompt_at(step * self.batch_size + i)] for i in range(self.batch_size)]
        [seed] = np.random.SeedSequence([self.seed, step, 2]).generate_state(1, np.uint64).tolist()
        training = self.student.training
        try:
            self.engine.update_weights(self.student)
            rollout = self.engine.rollout(
                prompts,
                max_new_tokens=self.max_new_tokens,
                sampling=SamplingSpec(temperature=self.temperature, seed=seed),
                stop_ids=self.stop_ids,
            )
        finally:
            self.student.train(training)
        if self.on_batch is not None:
            self.on_batch(len(prompts), int((~rollout.finished_N).sum()))
        return rollout_batch(rollout.ids_NT, rollout.mask_NT, rollout.response_mask_NT)

    def _prompt_at(self, number: int) -> int:
        epoch, index = divmod(number, len(self.prompts))
        return int(np.random.default_rng([self.seed, epoch, 3]).permutation(len(self.prompts))[index])


def rollout_batch(
    ids_NT: Int[Tensor, "N T"], mask_NT: Bool[Tensor, "N T"], response_mask_NT: Bool[Tensor, "N T"]
) -> Batch:
    """A rollout's sequences as a batch whose targets are the tokens of the answers; the ids are taken as they are."""
    targets_NT = ids_NT.where(response_mask_NT, IGNORE)[:, 1:]
    positions_NT = torch.arange(ids_NT.shape[1], device=ids_NT.device).where(mask_NT, -1)[:, :-1]
    return Batch(ids_NT[:, :-1].contiguous(), targets_NT.contiguous(), positions_NT.contiguous())
