"""Elementary functions for every kind of number: floats use `math`, other types bring their own method.

That lets our engines be put into each other: a graph of dual numbers carries second derivatives (`grad.second`), and a
graph of counted numbers tells what it costs (`grad.counting`).
"""

from __future__ import annotations

import math
from typing import Any


def apply(name: str, x: Any) -> Any:
    """``exp``, ``log``, ``sin``, ``cos`` or ``tanh`` of x: its own method if it has one."""
    own = getattr(x, name, None)
    return getattr(math, name)(x) if own is None else own()
