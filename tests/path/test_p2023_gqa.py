"""Grouped-query attention: transformers repeats heads in the same order, and merged heads are means of neighbours."""

from __future__ import annotations

from typing import cast

import torch

from underhood.nn.attention import Attention, attend
from underhood.path.p2023_gqa.run import fewer_heads, repeated_heads_error, shaped


def test_attention_matches_transformers_repeated_heads():
    from transformers.models.llama.modeling_llama import repeat_kv

    generator = torch.Generator().manual_seed(0)
    q_BHTK = torch.randn(2, 8, 7, 16, generator=generator)
    k_BGTK, v_BGTK = torch.randn(2, 2, 2, 7, 16, generator=generator)
    mask = torch.ones(7, 7).tril().bool()
    share = (q_BHTK @ repeat_kv(k_BGTK, 4).mT / 4).masked_fill(~mask, -torch.inf).softmax(dim=-1)
    theirs = share @ repeat_kv(v_BGTK, 4)
    torch.testing.assert_close(attend(q_BHTK, k_BGTK, v_BGTK, None, causal=True), theirs, rtol=0, atol=1e-6)


def test_heads_dealt_out_in_turn_are_another_function():
    assert repeated_heads_error(0, in_turn=False) < 1e-5 < repeated_heads_error(0, in_turn=True)


def test_merged_heads_are_means_of_neighbours_and_the_rest_is_kept():
    whole = shaped(4, 168).initialize(seed=1)
    merged = fewer_heads(whole, mean=True)
    old, new = (cast(Attention, model.blocks[1].mixer) for model in (whole, merged))
    heads = old.key.weight.unflatten(0, (4, 16))
    torch.testing.assert_close(new.key.weight[:16], (heads[0] + heads[1]) / 2)
    torch.testing.assert_close(new.key.weight[16:], (heads[2] + heads[3]) / 2)
    assert torch.equal(new.query.weight, old.query.weight)
