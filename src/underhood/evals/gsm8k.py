"""GSM8K scoring: exact match of the number behind ``####`` at the end of a worked answer.

Source: Cobbe et al. 2021, and the script published with the set: thousands separators are dropped, and the numbers are
compared as they are written. An answer without the mark is wrong, whatever it says.
"""

from __future__ import annotations

import re

MARK = re.compile(r"#### (-?[0-9.,]+)")
STOPS = ("Question:", "</s>", "<|im_end|>")
"""Where an answer ends: the model goes on with a question of its own, as the examples have taught it."""


def final_number(text: str) -> str | None:
    """The number behind the first ``####``, without thousands separators and a closing full stop; None without one."""
    match = MARK.search(text)
    return None if match is None else match[1].replace(",", "").removesuffix(".")


def is_right(answer: str, reference: str) -> bool:
    """Whether both texts end in the same number.

    Raises:
        ValueError: the reference has none.
    """
    right = final_number(reference)
    if right is None:
        raise ValueError(f"the reference answer holds no '#### NUMBER': {reference!r}")
    return final_number(answer) == right
