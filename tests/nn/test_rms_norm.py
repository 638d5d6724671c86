"""RMSNorm against PyTorch's own, forwards and backwards, and against finite differences."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from underhood.nn.norm import RMSNormSpec


def test_rms_norm_matches_torch_forward_and_backward():
    torch.manual_seed(0)
    for shape in ((3, 5, 16), (2, 3, 4, 8), (7, 6)):
        norm = RMSNormSpec(eps=1e-5).build(shape[-1])
        with torch.no_grad():
            norm.weight.normal_()
        x = (torch.randn(shape) + 0.5).requires_grad_()  # a mean that is not 0, or LayerNorm would pass as well
        upstream = torch.randn(shape)
        expected = F.rms_norm(x, norm.weight.shape, norm.weight, 1e-5)
        torch.testing.assert_close(norm(x), expected)
        ours = torch.autograd.grad(norm(x), (x, norm.weight), upstream)
        theirs = torch.autograd.grad(expected, (x, norm.weight), upstream)
        for mine, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


def test_rms_norm_gradient_matches_finite_differences():
    torch.manual_seed(1)
    norm = RMSNormSpec().build(6).double()
    x = torch.randn(2, 3, 6, dtype=torch.float64).transpose(0, 1).requires_grad_()  # not contiguous
    assert torch.autograd.gradcheck(norm, (x,), fast_mode=False)


def test_rms_norm_keeps_bfloat16():
    norm, x = RMSNormSpec().build(8), torch.randn(4, 8).bfloat16().requires_grad_()
    norm(x).sum().backward()
    assert norm(x).dtype == torch.bfloat16
    assert x.grad is not None
    assert x.grad.dtype == torch.bfloat16


def test_rms_norm_under_autocast_gives_the_narrow_type_once_for_all_who_read_it():
    """The same as narrowing the fp32 result, forwards and backwards."""
    torch.manual_seed(2)
    norm = RMSNormSpec().build(16)
    x = torch.randn(4, 16, requires_grad=True)
    upstream = torch.randn(4, 16).bfloat16()
    expected = F.rms_norm(x, norm.weight.shape, norm.weight, norm.spec.eps).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = norm(x)
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, expected)
    ours = torch.autograd.grad(y, (x, norm.weight), upstream)
    theirs = torch.autograd.grad(expected, (x, norm.weight), upstream)
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.dtype == torch.float32
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)
