"""Instructions in the Alpaca form as padded rows with masked targets (Raschka 2024, chapter 7)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from underhood.data.batch import IGNORE, Batch
from underhood.text.bpe import BytePairTokenizer

Row = tuple[list[int], int]
"""Ids of prompt and answer, and how many of them are the prompt's."""


def prompt(entry: dict[str, str]) -> str:
    """An entry up to where the answer begins, in the chapter's words."""
    task = "Below is an instruction that describes a task. Write a response that appropriately completes the request."
    extra = f"\n\n### Input:\n{entry['input']}" if entry["input"] else ""
    return f"{task}\n\n### Instruction:\n{entry['instruction']}{extra}"


def full_text(entry: dict[str, str]) -> str:
    return f"{prompt(entry)}\n\n### Response:\n{entry['output']}"


def encoded(tokenizer: BytePairTokenizer, entry: dict[str, str]) -> Row:
    opening = tokenizer.encode(f"{prompt(entry)}\n\n### Response:\n")
    return [*opening, *tokenizer.encode(entry["output"])], len(opening)


def padded(rows: Sequence[Row], end: int, *, masked: bool = False, ended: bool = True) -> Batch:
    """Rows as one batch: each ends with `end` and is filled up with it; only the first `end` of a row is a target.

    Args:
        masked: leaves the prompt's tokens out of the targets too.
        ended: False masks the first `end` too.
    """
    width = max(len(ids) for ids, _ in rows)
    tokens_BT, targets_BT = torch.full((len(rows), width), end), torch.full((len(rows), width), IGNORE)
    for b, (ids, opening) in enumerate(rows):
        targets = torch.tensor([*ids[1:], end if ended else IGNORE])
        if masked:
            targets[: opening - 1] = IGNORE
        tokens_BT[b, : len(ids)], targets_BT[b, : len(ids)] = torch.tensor(ids), targets
    return Batch(tokens_BT, targets_BT)
