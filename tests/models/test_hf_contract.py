"""The parts that the open families add keep what every language model of ours keeps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from test_contract import (
    built,
    check_batch_is_single,
    check_cache,
    check_causality,
    check_documents,
    check_left_padding,
    check_positions_none,
    check_shape,
    decoder,
    nats_per_token,
    random_tokens,
)

from underhood.core.config import from_json, to_json
from underhood.models.decoder import Decoder, DecoderSpec
from underhood.nn.attention import AttentionSpec
from underhood.nn.block import BlockSpec
from underhood.nn.feedforward import GatedMLPSpec
from underhood.nn.moe import MoESpec
from underhood.nn.norm import RMSNormSpec
from underhood.nn.rope import RotarySpec
from underhood.nn.rope_scaling import LinearScaling, Llama3Scaling, LongRopeScaling, YarnScaling
from underhood.nn.softcap import apply_softcap
from underhood.nn.zero_centered_norm import ZeroCenteredRMSNormSpec

CENTRED = ZeroCenteredRMSNormSpec()


def with_rotary(rotary: RotarySpec) -> DecoderSpec:
    return decoder(AttentionSpec(heads=2, rotary=rotary))


def with_block(**parts: object) -> DecoderSpec:
    block = decoder(AttentionSpec(heads=2)).blocks[0]
    return decoder(AttentionSpec(heads=2), blocks=(replace(block, **parts),))


GEMMA = BlockSpec(
    mixer=AttentionSpec(heads=4, kv_heads=2, window=3, softcap=2.0, scale=0.3, qk_norm=CENTRED),
    feedforward=GatedMLPSpec(d_ff=24, activation="gelu_tanh"),
    norm=CENTRED,
    post_norm=CENTRED,
)
SPECS: dict[str, DecoderSpec] = {
    "experts": with_block(feedforward=MoESpec(experts=4, experts_per_token=2, d_ff=12)),
    "post_norm": with_block(norm=None, post_norm=RMSNormSpec()),
    "whole_qk_norm": decoder(AttentionSpec(heads=4, kv_heads=2, qk_norm=RMSNormSpec(), qk_norm_whole=True)),
    "gemma": decoder(
        AttentionSpec(heads=2),
        blocks=(GEMMA, GEMMA, replace(GEMMA, mixer=replace(GEMMA.mixer, window=None))),
        layers=4,
        tied=True,
        norm=CENTRED,
        embed_scale=4.0,
        logit_softcap=3.0,
    ),
    "part": with_rotary(RotarySpec(fraction=0.5)),
    "linear": with_rotary(RotarySpec(scaling=LinearScaling(factor=3.0))),
    "llama3": with_rotary(
        RotarySpec(scaling=Llama3Scaling(factor=8.0, low_turns=1.0, high_turns=4.0, original_context=16))
    ),
    "yarn": with_rotary(RotarySpec(scaling=YarnScaling(factor=4.0, original_context=16))),
    "longrope": with_rotary(RotarySpec(scaling=LongRopeScaling(divisors=(1.0, 2.0, 3.0, 4.0), attention_factor=1.2))),
}


@pytest.mark.parametrize(
    "check",
    [
        check_shape,
        check_causality,
        check_batch_is_single,
        check_left_padding,
        check_documents,
        check_positions_none,
        lambda model: check_cache(model, (4, 1, 5, 2)),
    ],
)
@pytest.mark.parametrize("name", SPECS)
def test_open_parts_keep_the_contract(name: str, check: Callable) -> None:
    check(built(SPECS[name]))


@pytest.mark.parametrize("name", SPECS)
def test_open_parts_round_trip_through_json(name: str) -> None:
    assert from_json(DecoderSpec, to_json(SPECS[name])) == SPECS[name]


@pytest.mark.parametrize("name", ["experts", "post_norm", "whole_qk_norm", "gemma"])
def test_open_parts_learn_from_fresh_weights(name: str) -> None:
    model = SPECS[name].initialize(seed=0)
    tokens = random_tokens(4, 12, seed=3)
    first = nats_per_token(model, tokens)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02, weight_decay=0.0)
    for _ in range(50):
        loss = nats_per_token(model, tokens)
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
        optimizer.step()
    assert nats_per_token(model, tokens) < 0.4 * first


@torch.no_grad()
def test_initialized_layers_add_nothing_at_first() -> None:
    """Whatever norms are around them: the model begins as its embedding."""
    for name in ("post_norm", "gemma", "experts"):
        model = SPECS[name].initialize(seed=0)
        seen: list[torch.Tensor] = []
        model.norm.register_forward_pre_hook(lambda module, given, seen=seen: seen.append(given[0]))
        tokens = random_tokens(2, 9)
        model(tokens)
        assert torch.equal(seen[0], model.embed(tokens))


@torch.no_grad()
def test_soft_cap_is_the_identity_for_small_scores_and_bounded_for_large_ones() -> None:
    assert apply_softcap(torch.tensor([1e-3]), 30.0).item() == pytest.approx(1e-3, rel=1e-6)
    assert apply_softcap(torch.tensor([1e6, -1e6]), 30.0).tolist() == [30.0, -30.0]


@torch.no_grad()
def test_capped_attention_with_a_high_cap_matches_the_fused_kernel() -> None:
    tokens = random_tokens(2, 12)
    plain = decoder(AttentionSpec(heads=4, kv_heads=2, window=5))
    capped = decoder(AttentionSpec(heads=4, kv_heads=2, window=5, softcap=1e5))
    ours, fused = built(capped), built(plain)
    assert isinstance(ours, Decoder)
    torch.testing.assert_close(ours(tokens), fused(tokens), rtol=1e-4, atol=1e-5)
    low = built(decoder(AttentionSpec(heads=4, kv_heads=2, window=5, softcap=0.5)))
    assert not torch.allclose(low(tokens), fused(tokens), atol=1e-2)


def test_centred_norm_matches_rms_norm_with_one_more() -> None:
    x, weight = torch.randn(3, 8), torch.randn(8)
    centred, plain = CENTRED.build(8), RMSNormSpec().build(8)
    with torch.no_grad():
        centred.weight.copy_(weight)
        plain.weight.copy_(1 + weight)
    torch.testing.assert_close(centred(x), plain(x))
    assert centred(x.bfloat16()).dtype == torch.bfloat16
