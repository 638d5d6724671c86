"""Feedback of users as preference pairs, which alignment learns from.

A few dozen opinions alone would pull a model away from everything else it was aligned with, so they fill at most half
of what alignment reads, each pair a few times at most; the rest stays the text's own pairs. The pairs are kept in the
run's folder, beside its other training data: an interrupted alignment goes on with the same ones.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from underhood.core.errors import UserError
from underhood.core.files import write_text
from underhood.data.feedback import feedback_pairs, read_feedback
from underhood.data.preferences import Pair
from underhood.recipes.training_data import StageData, chosen

MOST_TIMES = 4
"""How often one pair of feedback is read at most in an alignment."""


def learn_from_feedback(
    data: StageData, feedback: Path | None, kept: Path, *, reads: int, had: int, restart: bool, seed: int
) -> tuple[StageData, str | None]:
    """The data with feedback among its pairs, and a note for the log if there is new feedback.

    Args:
        kept: file of the pairs that an alignment has begun with.
        feedback: a file that `underhood serve` wrote; None goes on with what an interrupted alignment had.
        reads: pairs that alignment will read.
        had: steps that the aligned model has had.
        restart: it starts anew, without earlier feedback unless that is given again.

    Raises:
        UserError: the feedback makes no pair, or the model was aligned by other pairs.
    """
    if feedback is None:
        if restart or not had:
            kept.unlink(missing_ok=True)
        if not kept.exists():
            return data, None
        rows = [json.loads(line) for line in kept.read_text(encoding="utf-8").splitlines()]
        pairs = [Pair(**row | {"prompt": tuple(row["prompt"])}) for row in rows]
        return replace(data, pairs=mixed(pairs, data.pairs, reads=reads, seed=seed)), None
    opinions = read_feedback(feedback)
    pairs = feedback_pairs(opinions)
    if not pairs:
        raise UserError(
            f"{feedback} makes no preference pair: {len(opinions)} opinions, but none to compare",
            fix="Edit an answer, or rate two answers to the same question up and down",
        )
    text = "".join(json.dumps(asdict(pair), ensure_ascii=False) + "\n" for pair in pairs)
    if had and not restart and (not kept.exists() or kept.read_text(encoding="utf-8") != text):
        raise UserError(
            f"the alignment was begun without {feedback}", fix="Give --restart to start the alignment anew with it"
        )
    write_text(kept, text)
    note = f"{len(pairs)} pairs from {len(opinions)} opinions in {feedback.name}"
    return replace(data, pairs=mixed(pairs, data.pairs, reads=reads, seed=seed)), note


def mixed(feedback: Sequence[Pair], others: Sequence[Pair], *, reads: int, seed: int) -> list[Pair]:
    """About `reads` pairs: those of the feedback, up to half of them all, and a sample of the others."""
    times = min(MOST_TIMES, max(1, reads // 2 // len(feedback)))
    mine = list(feedback) * times
    return [*mine[: max(len(feedback), reads)], *chosen(list(others), max(0, reads - len(mine)), seed)]
