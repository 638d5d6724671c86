"""Residual dropout for a training: parts of what each sublayer adds are left out at random (Srivastava et al. 2014).

So are parts of the sums of embeddings and positions, in models that have a module for these (Vaswani et al. 2017,
section 5.4).

It is surgery on a built model, by hooks that are removed afterwards: the model keeps no trace of it. What is left out
is a function of the seed and the batch's number, so that a training that is resumed leaves out the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from underhood.nn.block import Block
from underhood.nn.embedding import EmbeddingSum

B = TypeVar("B")


class ResidualDropout:
    """Leaves out outputs of sublayers, and of sums of embeddings, while the model trains.

    Args:
        rate: share of the numbers that become 0; the others are divided by what is left, so that the mean stays.
        seed: of the draws.
    """

    def __init__(self, rate: float, seed: int):
        if not 0 <= rate < 1:
            raise ValueError(f"rate is a share from 0 up to 1, got {rate}")
        self.rate, self.seed = rate, seed
        self._generators: dict[torch.device, torch.Generator] = {}
        self._number = 0

    def begin(self, number: int) -> None:
        """Starts the draws of batch `number`."""
        self._number = number
        self._generators.clear()

    def batches(self, batches: Callable[[int], B]) -> Callable[[int], B]:
        """The same batches; each begins its draws when it is asked for."""

        def drawn(number: int) -> B:
            self.begin(number)
            return batches(number)

        if hasattr(batches, "epoch_of"):
            drawn.epoch_of = batches.epoch_of  # type: ignore[attr-defined]
        return drawn

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Hooks on the sublayers of the model's blocks, as long as the ``with`` block lasts."""
        blocks = [module for module in model.modules() if isinstance(module, Block)] if self.rate else []
        sublayers = [getattr(block, sublayer.name) for block in blocks for sublayer in block.sublayers]
        sums = [module for module in model.modules() if isinstance(module, EmbeddingSum)] if self.rate else []
        handles = [module.register_forward_hook(self._hook) for module in (*sums, *sublayers)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor | None:
        if not module.training:
            return None
        generator = self._generators.get(output.device)
        if generator is None:
            generator = torch.Generator(output.device).manual_seed((self.seed << 32) + self._number)
            self._generators[output.device] = generator
        kept = torch.empty_like(output).bernoulli_(1 - self.rate, generator=generator)
        return output * kept / (1 - self.rate)
