"""Chains of hindsight: which tokens carry loss, and which are hidden."""

from __future__ import annotations

import pytest
import torch

from underhood.align.hindsight import hide_past_tokens, hindsight_chain


def test_loss_falls_on_the_answers_alone_in_the_order_given():
    chain = hindsight_chain([1, 2], [([8], [3, 4]), ([9, 9], [5])])
    assert chain.ids == [1, 2, 8, 3, 4, 9, 9, 5]
    assert chain.mask == [False, False, False, True, True, False, False, True]
    with pytest.raises(ValueError, match="at least one answer"):
        hindsight_chain([1], [])


def test_hidden_tokens_are_those_of_answers_in_the_share_asked_for():
    tokens_BT = torch.arange(1, 401).expand(500, -1)
    answers_BT = (torch.arange(400) % 4 != 0).expand(500, -1)
    draws = [torch.Generator().manual_seed(0) for _ in range(2)]
    hidden_BT, again_BT = (
        hide_past_tokens(tokens_BT, answers_BT, hidden_id=0, generator=draw, most=0.2) for draw in draws
    )
    assert torch.equal(hidden_BT, again_BT)
    is_hidden_BT = hidden_BT == 0
    assert not (is_hidden_BT & ~answers_BT).any()
    assert torch.equal(hidden_BT.where(~is_hidden_BT, tokens_BT), tokens_BT)
    share_B = is_hidden_BT.sum(1) / answers_BT.sum(1)
    assert float(share_B.mean()) == pytest.approx(0.1, abs=0.01)  # uniform from 0 to 0.2 by row
    assert float(share_B.max()) < 0.3
    assert float(share_B.min()) < 0.02


def test_nothing_is_hidden_at_a_share_of_zero():
    tokens_BT, answers_BT = torch.ones(3, 5, dtype=torch.int64), torch.ones(3, 5, dtype=torch.bool)
    draw = torch.Generator().manual_seed(0)
    assert torch.equal(hide_past_tokens(tokens_BT, answers_BT, hidden_id=0, generator=draw, most=0.0), tokens_BT)
