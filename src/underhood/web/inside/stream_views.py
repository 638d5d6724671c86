"""Panels over the residual stream: the lens, the parts of a score, patching between two prompts, the self-checks."""

from __future__ import annotations

from typing import Any

import torch

from underhood.core.errors import UserError
from underhood.inspect.checks import self_checks
from underhood.inspect.contributions import contributions
from underhood.inspect.lens import Lens, logit_lens, read_out
from underhood.inspect.patching import check_equal_lengths, patch_residual
from underhood.inspect.trace import pieces_of
from underhood.web.inside.packing import Payload, exact, half, whole
from underhood.web.inside.subjects import Subject
from underhood.web.token_view import token_facts

POSITIONS_AT_ONCE = 128
"""Of a lens: the scores of more take too much memory."""


def lens(subject: Subject, *, start: int = 0, stop: int = -1, k: int = 5) -> Payload:
    """What each layer would say after the tokens from `start` up to `stop`; -1 means to the last one."""
    positions = lens_positions(subject, start, stop)
    return packed_lens(logit_lens(subject.loaded, subject.trace, positions=positions, k=k))


def lens_positions(subject: Subject, start: int, stop: int) -> range:
    """The positions of a lens.

    Raises:
        UserError: there are none, or too many.
    """
    count = len(subject.ids)
    last = count if stop < 0 else min(stop, count)
    first = subject.at(start)
    if not 0 < last - first <= POSITIONS_AT_ONCE:
        raise UserError("the lens takes too many tokens at once", expected=f"1 to {POSITIONS_AT_ONCE}")
    return range(first, last)


def packed_lens(view: Lens) -> Payload:
    """A lens as the page reads it."""
    return Payload(
        {"start": view.positions[0], "pieces": {str(id): piece for id, piece in view.pieces.items()}},
        {
            "ids": whole(view.ids),
            "probabilities": half(view.probabilities),
            "ranks": whole(view.ranks),
            "entropy": half(view.entropy),
        },
    )


def likeliest(subject: Subject, position: int) -> int:
    """The id that the whole model finds likeliest after a token."""
    stream_D = subject.trace[f"residual.{len(subject.model.blocks)}"][position]
    return int(read_out(subject.model, stream_D).argmax())


def token_named(subject: Subject, text: str) -> int:
    """The id of a text that is a single token.

    Raises:
        UserError: it is none or several.
    """
    ids = subject.loaded.tokenizer.encode(text)
    if len(ids) != 1:
        raise UserError(f"{text!r} is {len(ids)} tokens", expected="one token, most often with the blank before it")
    return ids[0]


def parts(subject: Subject, *, position: int, answer: str = "", other: str = "") -> Payload:
    """What each part of the model adds to the score of a token after a position (direct logit attribution)."""
    at = subject.at(position)
    token = token_named(subject, answer) if answer else likeliest(subject, at)
    against = token_named(subject, other) if other else None
    view = contributions(subject.loaded, subject.trace, token, against=against, position=at)
    facts: dict[str, Any] = {
        "names": view.names,
        "constant": view.constant,
        "score": view.score,
        "error": view.error,
        "token": token_facts(subject.loaded.tokenizer, token),
        "against": None if against is None else token_facts(subject.loaded.tokenizer, against),
    }
    return Payload(facts, {"values": exact(view.values)})


def patch(subject: Subject, *, against: str, answer: str = "", other: str = "", direction: str = "in") -> Payload:
    """Patches one prompt's residual stream with another prompt's, each layer and token by itself.

    Args:
        against: the other prompt, of as many tokens.
        direction: "in" puts the other prompt's values into this one's run, "out" this one's into the other's. The
            score is the same in both: that of the other prompt's answer minus that of this one's.
    """
    if direction not in ("in", "out"):
        raise UserError(f"there is no direction {direction!r}", expected="in or out")
    other_run = subject.with_prompt(against)
    check_equal_lengths(len(other_run.ids), len(subject.ids))
    ends = [likeliest(each, len(each.ids) - 1) for each in (other_run, subject)]
    first = token_named(subject, answer) if answer else ends[0]
    second = token_named(subject, other) if other else ends[1]
    if first == second:
        piece = pieces_of(subject.loaded, [first])[0]
        raise UserError(f"both prompts go on with {piece!r}", fix="Name two tokens whose scores are to be compared")
    source_target = (other_run, subject) if direction == "in" else (subject, other_run)
    sweep = patch_residual(subject.loaded, *(each.trace for each in source_target), answer=first, other=second)
    names = [token_facts(subject.loaded.tokenizer, id) for id in (first, second)]
    facts = {
        "source": sweep.source,
        "target": sweep.target,
        "answer": names[0],
        "other": names[1],
        "pieces": list(sweep.pieces),
        "source_pieces": list(source_target[0].trace.pieces),
    }
    return Payload(facts, {"restored": exact(sweep.restored), "differences": exact(sweep.differences)})


def checks(subject: Subject) -> Payload:
    """What must hold for anything on the page to be true of the model."""
    made = self_checks(subject.loaded, subject.trace)
    rows = [{"name": c.name, "difference": c.difference, "limit": c.limit, "holds": c.holds} for c in made]
    return Payload({"checks": rows})


@torch.no_grad()
def stream(subject: Subject, *, position: int) -> Payload:
    """How long the residual stream is before each layer, and how much of it the layer turns."""
    streams_LD = subject.trace.layers("residual")[:, subject.at(position)].float()
    turned_L = torch.nn.functional.cosine_similarity(streams_LD[1:], streams_LD[:-1], dim=-1)
    return Payload({}, {"length": exact(streams_LD.norm(dim=-1)), "cosine": exact(turned_L)})
