"""Hop questions against a walk in Python, and layers from which an answer is settled."""

from __future__ import annotations

import torch

from underhood.data.batch import IGNORE
from underhood.path.lib.hops import (
    LENGTH,
    ONE_HOP,
    QUESTIONS,
    SEPARATOR,
    SYMBOLS,
    TWO_HOPS,
    hop_questions,
    settled_layer,
)


def test_answers_are_those_of_a_walk_along_the_cycle():
    hops = hop_questions(30, torch.Generator().manual_seed(0))
    assert hops.tokens.shape == (30, LENGTH)
    for tokens, targets, between in zip(
        hops.tokens.tolist(), hops.targets.tolist(), hops.between.tolist(), strict=True
    ):
        pairs = [tokens[3 * row : 3 * row + 3] for row in range(SYMBOLS)]
        assert {pair[0] for pair in pairs} == {SEPARATOR}
        points_to = {start: end for _, start, end in pairs}
        at, walked = 0, 0
        while walked == 0 or at != 0:  # one cycle through all symbols
            at, walked = points_to[at], walked + 1
        assert walked == SYMBOLS
        positions = [position for position, target in enumerate(targets) if target != IGNORE]
        assert len(positions) == QUESTIONS
        for position in positions:
            hop, start = tokens[position - 1 : position + 1]
            assert hop in (ONE_HOP, TWO_HOPS)
            answer = points_to[start] if hop == ONE_HOP else points_to[points_to[start]]
            assert targets[position] == answer
            assert between[position] == (IGNORE if hop == ONE_HOP else points_to[start])
            if position + 1 < len(tokens):
                assert tokens[position + 1] == answer


def test_settled_layer_is_the_first_that_stays_right():
    named = torch.tensor([[5, 1, 5, 5], [1, 5, 5, 1], [5, 5, 5, 1]])
    assert settled_layer(named, torch.tensor([5, 5, 5, 5])).tolist() == [2, 1, 0, 3]
