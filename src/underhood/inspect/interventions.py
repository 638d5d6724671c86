"""Interventions: a value changed on its way through a model, by hooks that are removed afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from underhood.inspect.sites import Hookable
from underhood.inspect.target import BATCH_TOKENS, Target, logits_from
from underhood.models.decoder import Decoder

Change = Callable[[Tensor], Tensor]
"""A value's replacement; it must not write into the value itself."""


@contextmanager
def changing(hook: Hookable, change: Change) -> Iterator[None]:
    """Passes inside see ``change(value)`` in place of a module's input or output."""

    def on_input(_module: Any, inputs: Any) -> Any:
        return (change(inputs[0]), *inputs[1:])

    def on_output(_module: Any, _inputs: Any, output: Any) -> Any:
        return change(output)

    module = hook.module
    handle = (
        module.register_forward_pre_hook(on_input) if hook.side == "input" else module.register_forward_hook(on_output)
    )
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def changing_all(changes: Sequence[tuple[Hookable, Change]]) -> Iterator[None]:
    """Several changes at once, each after those before it."""
    with ExitStack() as stack:
        for hook, change in changes:
            stack.enter_context(changing(hook, change))
        yield


@torch.no_grad()
def sweep(
    model: Decoder,
    layer: int,
    stream_TD: Float[Tensor, "T D"],
    target: Target,
    count: int,
    hook: Hookable,
    change: Callable[[Tensor, range], Tensor],
) -> Float[Tensor, "N"]:
    """The target under `count` changes of one layer, many to a batch; passes start at that layer.

    Args:
        stream_TD: the residual stream before the layer.
        change: gets a value with a row for each number of the range, and gives it back with change n made in its row.
    """
    scores = []
    size = max(1, BATCH_TOKENS // len(stream_TD))
    for start in range(0, count, size):
        rows = range(start, min(start + size, count))

        def changed(value: Tensor, rows: range = rows) -> Tensor:
            return change(value.clone(), rows)

        with changing(hook, changed):
            logits_BV = logits_from(model, layer, stream_TD.expand(len(rows), -1, -1))
        scores.append(target.of(logits_BV).cpu())
    return torch.cat(scores)
