"""Topological order of a computation graph, for the backward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

N = TypeVar("N")


def topological_order(end: N, inputs_of: Callable[[N], Iterable[N]]) -> list[N]:
    """Everything that `end` depends on, `end` itself last, each once and after all that it was made from.

    Depth first and without recursion: a graph may be deeper than Python's stack.
    """
    seen, order = {end}, []
    path = [(end, iter(inputs_of(end)))]
    while path:
        fresh = next((parent for parent in path[-1][1] if parent not in seen), None)
        if fresh is None:
            order.append(path.pop()[0])
        else:
            seen.add(fresh)
            path.append((fresh, iter(inputs_of(fresh))))
    return order
