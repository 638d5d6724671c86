"""Attention over packed documents is that of the block-diagonal mask, in values and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from underhood.models.decoder import qwen3_shaped
from underhood.nn.attention import AttentionSpec, attend
from underhood.nn.forward_context import ForwardContext, MaskRule
from underhood.nn.packed_attention import attend_documents, document_lengths
from underhood.nn.rope import RotarySpec

PACKED = torch.tensor(
    [
        [0, 1, 2, 3, 0, 1, 0, 1, 2, -1, -1, -1],
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11],
        [0, 0, 1, -1, 0, 1, 2, 3, -1, 0, 1, 2],
        [4, 5, 6, 0, 1, 2, 3, 4, 5, 6, 7, 0],
    ]
)


def test_document_lengths_name_documents_and_runs_of_padding():
    assert document_lengths(PACKED) == (4, 2, 3, -3, 12, 1, 2, -1, 4, -1, 3, 3, 8, 1)


@pytest.mark.parametrize(("heads", "groups"), [(4, 4), (6, 2)])
@pytest.mark.parametrize("scale", [None, 0.3])
def test_attention_by_document_matches_the_mask_in_values_and_gradients(heads: int, groups: int, scale: float | None):
    generator = torch.Generator().manual_seed(1)
    rows, count = PACKED.shape
    shapes = ((rows, heads, count, 8), (rows, groups, count, 8), (rows, groups, count, 8))
    inputs = [torch.randn(shape, generator=generator, requires_grad=True) for shape in shapes]
    ctx = ForwardContext(torch.zeros(rows, count, dtype=torch.long), PACKED, None)
    real_BHTK = (PACKED >= 0)[:, None, :, None]
    weights_BHTK = torch.randn(shapes[0], generator=generator) * real_BHTK

    def outcome(y_BHTK: Tensor) -> list[Tensor]:
        gradients = torch.autograd.grad((y_BHTK * weights_BHTK).sum(), inputs)
        return [(y_BHTK * real_BHTK).detach(), *gradients]

    masked = outcome(attend(*inputs, ctx.mask(MaskRule()), scale=scale))
    by_document = outcome(attend_documents(*inputs, document_lengths(PACKED), scale=scale))
    for ours, expected in zip(by_document, masked, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


def test_one_row_of_positions_serves_every_row():
    generator = torch.Generator().manual_seed(2)
    q, k, v = torch.randn(3, 2, 2, 12, 8, generator=generator)
    ctx = ForwardContext(torch.zeros(2, 12, dtype=torch.long), PACKED[3:], None)
    expected = attend(q, k, v, ctx.mask(MaskRule()))
    torch.testing.assert_close(attend_documents(q, k, v, document_lengths(PACKED[3:])), expected, rtol=1e-5, atol=1e-5)


def test_training_a_decoder_on_packed_rows_gives_the_gradients_of_separate_texts():
    model = qwen3_shaped(vocab_size=40, context_length=16, d_model=16, layers=2, heads=2, kv_heads=1).initialize(
        seed=0, embed_std=0.3
    )
    generator = torch.Generator().manual_seed(3)
    for block in model.blocks:  # fresh ones add nothing
        for parameter in block.parameters():
            if parameter.ndim == 2:
                torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    texts = [torch.randint(40, (length,), generator=generator) for length in (5, 3, 4)]

    def gradients(tokens: list[Tensor], positions: list[Tensor | None]) -> list[Tensor]:
        model.zero_grad()
        for tokens_BT, positions_BT in zip(tokens, positions, strict=True):
            model.hidden_states(tokens_BT, positions=positions_BT).square().sum().backward()
        return [parameter.grad.clone() for parameter in model.blocks.parameters() if parameter.grad is not None]

    packed = torch.cat(texts)[None]
    restarts = torch.cat([torch.arange(len(text)) for text in texts])[None]
    apart = gradients([text[None] for text in texts], [None] * 3)
    for ours, expected in zip(gradients([packed], [restarts]), apart, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("rule", "used"),
    [(MaskRule(), True), (MaskRule(window=12), True), (MaskRule(window=5), False), (MaskRule(causal=False), False)],
)
def test_documents_are_used_only_where_they_say_all_that_the_mask_says(rule: MaskRule, used: bool):
    ctx = ForwardContext(torch.zeros(PACKED.shape, dtype=torch.long), PACKED, None)
    assert (ctx.documents(rule) is not None) == used
    with torch.no_grad():
        assert ctx.documents(rule) is None


def test_a_window_inside_a_document_still_holds_in_training():
    spec = AttentionSpec(heads=2, kv_heads=2, window=3, rotary=RotarySpec())
    layer = spec.build(8, 0)
    x_BTD = torch.randn(1, 12, 8, requires_grad=True)
    ctx = ForwardContext(torch.zeros(1, 12, dtype=torch.long), torch.arange(12)[None], None)
    (gradient_BTD,) = torch.autograd.grad(layer(x_BTD, ctx)[0, 11].sum(), x_BTD)
    assert (gradient_BTD[0].abs().sum(-1) > 0).tolist() == [False] * 9 + [True] * 3
