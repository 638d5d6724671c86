"""Panels of ablation: every head of a model by itself, and one head, edge or key with what then comes next."""

from __future__ import annotations

from typing import Any

from underhood.core.errors import UserError
from underhood.inspect.ablation import Ablated, AblatedHead, MaskedEdge, MaskedKey, ablated_logits
from underhood.inspect.ablation_grid import HeadGrid, head_grid
from underhood.inspect.comparison import NATS_PER_BIT
from underhood.inspect.lens import divergence
from underhood.web.inside.explanation_views import target_named, target_of
from underhood.web.inside.packing import Payload, exact
from underhood.web.inside.stream_views import token_named
from underhood.web.inside.subjects import Subject
from underhood.web.token_view import token_facts

NEXT_SHOWN = 5
"""Likeliest tokens before and after an ablation."""

WORDS_MAX = 6
CUTS = ("zero", "mean", "edge", "key")
"""What can be taken away: a head set to zero or to its mean, one of its edges, or a key from all later tokens."""


def ablation(subject: Subject, *, position: int, answer: str = "", other: str = "", mode: str = "mean") -> Payload:
    """How a score changes when a head is silenced, head by head."""
    target = target_of(subject, position, answer, other)
    known = subject.memory.setdefault("ablation", {})
    if (target, mode) not in known:
        known[target, mode] = head_grid(subject.loaded, subject.ids, target, mode="zero" if mode == "zero" else "mean")
    grid: HeadGrid = known[target, mode]
    top = [{"layer": layer, "head": head, "change": change} for layer, head, change in grid.largest(5)]
    facts = {"target": target_named(subject, target), "score": grid.score, "mode": grid.mode, "largest": top}
    return Payload(facts, {"changes": exact(grid.changes)})


def cut(
    subject: Subject,
    *,
    layer: int,
    head: int,
    position: int,
    what: str,
    query: int = -1,
    key: int = -1,
    words: str = "",
) -> Payload:
    """Log-probabilities of the next token with and without a head, an edge of it, or a token that it looks at.

    Args:
        position: after which the next token is predicted.
        what: one of `CUTS`.
        query, key: the edge, and the token that later ones no longer see.
        words: tokens that are listed first, separated by bars: `` cat| dog``.
    """
    after = subject.at(position)
    logprobs_2V = ablated_logits(
        subject.loaded, subject.ids, _taken_away(subject, layer, head, what, query, key), position=after
    ).log_softmax(dim=-1)
    chosen = [token_named(subject, word) for word in words.split("|") if word][:WORDS_MAX]
    likeliest = logprobs_2V.topk(min(NEXT_SHOWN, logprobs_2V.shape[1])).indices.flatten().tolist()
    ids = list(dict.fromkeys([*chosen, *likeliest]))
    before_V, after_V = logprobs_2V.double()
    facts: dict[str, Any] = {
        "tokens": [token_facts(subject.loaded.tokenizer, id) for id in ids],
        "chosen": len(dict.fromkeys(chosen)),
        "divergence": float(divergence(before_V, after_V)) / NATS_PER_BIT,
    }
    return Payload(facts, {"logprobs": exact(logprobs_2V[:, ids])})


def _taken_away(subject: Subject, layer: int, head: int, what: str, query: int, key: int) -> Ablated:
    if what == "edge":
        return MaskedEdge(layer, head, subject.at(query), subject.at(key))
    if what == "key":
        return MaskedKey(layer, head, subject.at(key))
    if what not in CUTS:
        raise UserError(f"{what!r} can't be taken away", expected=" or ".join(CUTS))
    return AblatedHead(layer, head, "zero" if what == "zero" else "mean")
