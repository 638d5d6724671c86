"""The short convolution against PyTorch's own, and what documents may see of each other."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from underhood.nn.convolution import ShortConvolution, ShortConvolutionSpec
from underhood.nn.forward_context import ForwardContext


def made(taps: int) -> ShortConvolution:
    torch.manual_seed(taps)
    layer = ShortConvolutionSpec(taps=taps).build(8, 0)
    with torch.no_grad():
        for tap in layer.taps:
            tap.normal_()
    return layer.double()


def ctx(positions_BT: torch.Tensor | None, rows: int, length: int) -> ForwardContext:
    return ForwardContext(torch.zeros(rows, length, dtype=torch.int64), positions_BT, None)


def test_convolution_matches_conv1d():
    for taps in (1, 2, 4):
        layer, x_BTD = made(taps), torch.randn(2, 7, 8, dtype=torch.float64)
        kernel = torch.stack(list(layer.taps), dim=-1).flip(-1)[:, None]  # conv1d's last tap is the newest
        v_BDT = F.pad(layer.value(x_BTD).mT, (taps - 1, 0))
        expected_BTD = layer.output(F.conv1d(v_BDT, kernel, groups=8).mT * layer.gate(x_BTD))
        torch.testing.assert_close(layer(x_BTD, ctx(None, 2, 7)), expected_BTD)


def test_convolution_stays_inside_documents():
    layer, x_BTD = made(4), torch.randn(1, 9, 8, dtype=torch.float64)
    packed = torch.tensor([[0, 1, 2, 0, 1, 5, 6, 7, 8]])  # three documents; the third begins in its middle
    together = layer(x_BTD, ctx(packed, 1, 9))
    for start, end in ((0, 3), (3, 5), (5, 9)):
        alone = layer(x_BTD[:, start:end], ctx(None, 1, end - start))
        torch.testing.assert_close(together[:, start:end], alone)
    assert not torch.allclose(together, layer(x_BTD, ctx(None, 1, 9)))  # without positions, neighbours leak


def test_convolution_ignores_padding():
    layer, x_BTD = made(3), torch.randn(1, 6, 8, dtype=torch.float64)
    padded = layer(x_BTD, ctx(torch.tensor([[-1, -1, 0, 1, 2, 3]]), 1, 6))
    torch.testing.assert_close(padded[:, 2:], layer(x_BTD[:, 2:], ctx(None, 1, 4)))
