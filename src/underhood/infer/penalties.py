"""Scores that know what has been said: penalties for repeating, and a bias for single tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from underhood.infer.sample import SamplingSpec


def penalize(
    logits_V: Float[Tensor, "V"], spec: SamplingSpec, seen_V: Bool[Tensor, "V"], count_V: Int[Tensor, "V"]
) -> Float[Tensor, "V"]:
    """The scores after the repetition penalty, then the presence and frequency penalties, then the bias.

    The repetition penalty comes first because it scales: it has to meet the model's own scores. What follows only adds.

    Args:
        seen_V: whether a token is in the prompt or the answer.
        count_V: how often it is in the answer.
    """
    limits = torch.finfo(logits_V.dtype)
    if spec.repetition_penalty != 1:
        penalty = min(max(spec.repetition_penalty, limits.tiny), limits.max)
        scaled_V = torch.where(logits_V > 0, logits_V / penalty, logits_V * penalty)
        logits_V = torch.where(seen_V, scaled_V, logits_V)
    if spec.presence_penalty:
        logits_V = logits_V - spec.presence_penalty * (count_V > 0)
    if spec.frequency_penalty:
        logits_V = logits_V - spec.frequency_penalty * count_V
    if spec.logit_bias:
        ids, bias = zip(*spec.logit_bias, strict=True)
        index = torch.tensor(ids, device=logits_V.device)
        logits_V = logits_V.index_add(0, index, torch.tensor(bias, dtype=logits_V.dtype, device=logits_V.device))
    # An extreme penalty leads to infinity, and between two infinities no softmax can tell.
    return logits_V.clamp(limits.min / 4, limits.max / 4)


class Penalties:
    """The penalties and bias of one text while it grows.

    Args:
        prompt: what the text begins with; only the repetition penalty looks at it.
    """

    def __init__(self, spec: SamplingSpec, prompt: Sequence[int]):
        self._spec = spec
        self._prompt: Sequence[int] = prompt
        self._seen_V: Tensor | None = None
        self._count_V: Tensor | None = None
        self._written: list[int] = []

    def push(self, id: int) -> None:
        """Says that `id` was written."""
        self._written.append(id)

    def __call__(self, logits_V: Float[Tensor, "V"]) -> Float[Tensor, "V"]:
        """The scores of the next token; the tensor given stays as it is."""
        if self._seen_V is None or self._count_V is None:
            self._seen_V = torch.zeros(logits_V.shape, dtype=torch.bool, device=logits_V.device)
            self._count_V = torch.zeros(logits_V.shape, dtype=torch.int64, device=logits_V.device)
            self._seen_V[torch.tensor(list(self._prompt), dtype=torch.int64, device=logits_V.device)] = True
        for id in self._written:
            self._seen_V[id] = True
            self._count_V[id] += 1
        self._written.clear()
        return penalize(logits_V, self._spec, self._seen_V, self._count_V)
