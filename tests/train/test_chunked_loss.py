"""The loss without its logits: the same number and gradients as with them, slice by slice."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from underhood.nn.softcap import SoftcappedLinear
from underhood.train.chunked import unembedded_loss

POSITIONS, WIDTH, VOCAB = 13, 6, 11


@pytest.mark.parametrize("rows", [1, 4, 13, 100])
@pytest.mark.parametrize("capped", [False, True])
@pytest.mark.parametrize("trained", [False, True])
def test_unembedded_loss_matches_cross_entropy_of_the_logits(rows: int, capped: bool, trained: bool):
    unembed = (SoftcappedLinear(WIDTH, VOCAB, 2.0) if capped else nn.Linear(WIDTH, VOCAB)).double()
    unembed.requires_grad_(trained)
    hidden = torch.randn(POSITIONS, WIDTH, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(VOCAB, (POSITIONS,))
    wanted = [hidden, *(unembed.parameters() if trained else ())]
    loss, right = unembedded_loss(hidden, unembed, targets, vocab_size=VOCAB, slice_values=rows * VOCAB)
    expected = F.cross_entropy(unembed(hidden), targets, reduction="sum")
    torch.testing.assert_close(loss, expected)
    assert right == int((unembed(hidden).argmax(-1) == targets).sum())
    for mine, other in zip(
        torch.autograd.grad(3 * loss, wanted), torch.autograd.grad(3 * expected, wanted), strict=True
    ):
        torch.testing.assert_close(mine, other)


def test_unembedded_loss_never_holds_more_logits_than_a_slice():
    seen: list[int] = []

    class Counting(nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            seen.append(input.shape[0])
            return super().forward(input)

    hidden = torch.randn(10, WIDTH, requires_grad=True)
    unembedded_loss(hidden, Counting(WIDTH, VOCAB), torch.zeros(10).long(), vocab_size=VOCAB, slice_values=3 * VOCAB)
    assert seen == [3, 3, 3, 1]


def test_unembedded_loss_takes_half_precision_scores_in_fp32():
    unembed = nn.Linear(WIDTH, VOCAB).bfloat16()
    hidden = torch.randn(POSITIONS, WIDTH).bfloat16()
    targets = torch.randint(VOCAB, (POSITIONS,))
    with torch.no_grad():
        loss, _ = unembedded_loss(hidden, unembed, targets, vocab_size=VOCAB)
        expected = F.cross_entropy(unembed(hidden).float(), targets, reduction="sum")
        torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)  # in bf16 it would be off by 1e-3 and more


def test_unembedded_loss_of_nothing_is_zero():
    loss, right = unembedded_loss(
        torch.randn(0, WIDTH), nn.Linear(WIDTH, VOCAB), torch.zeros(0).long(), vocab_size=VOCAB
    )
    assert (float(loss.detach()), right) == (0.0, 0)
