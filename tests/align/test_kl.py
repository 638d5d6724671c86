"""KL estimators against sums over all outcomes, and the controller against Ziegler's rule worked by hand."""

from __future__ import annotations

import pytest
import torch

from underhood.align.kl import KLController, k1, k2, k3


def expectations(estimator: str) -> tuple[torch.Tensor, torch.Tensor]:
    """E[k] under π over all outcomes, and the expected gradient Σ π(a) ∇k(a), both in float64."""
    logits_V = (
        torch.randn(9, generator=torch.Generator().manual_seed(0), dtype=torch.float64).mul(2).requires_grad_(True)
    )
    ref_V = torch.randn(9, generator=torch.Generator().manual_seed(1), dtype=torch.float64).log_softmax(0)
    logp_V = logits_V.log_softmax(0)
    values_V = {"k1": k1, "k2": k2, "k3": k3}[estimator](logp_V, ref_V)
    p_V = logp_V.detach().exp()
    [gradient] = torch.autograd.grad((p_V * values_V).sum(), logits_V)
    return (p_V * values_V.detach()).sum(), gradient


def divergence(forward: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """KL(π_ref ‖ π) if `forward`, else KL(π ‖ π_ref), with its exact gradient."""
    logits_V = (
        torch.randn(9, generator=torch.Generator().manual_seed(0), dtype=torch.float64).mul(2).requires_grad_(True)
    )
    ref_V = torch.randn(9, generator=torch.Generator().manual_seed(1), dtype=torch.float64).log_softmax(0)
    logp_V = logits_V.log_softmax(0)
    kl = (ref_V.exp() * (ref_V - logp_V)).sum() if forward else (logp_V.exp() * (logp_V - ref_V)).sum()
    [gradient] = torch.autograd.grad(kl, logits_V)
    return kl.detach(), gradient


def test_k1_and_k3_are_unbiased_and_k2_is_not():
    kl, _ = divergence(forward=False)
    assert float(expectations("k1")[0]) == pytest.approx(float(kl), abs=1e-12)
    assert float(expectations("k3")[0]) == pytest.approx(float(kl), abs=1e-12)
    assert abs(float(expectations("k2")[0] - kl)) > 0.05


def test_expected_gradients_of_the_estimators_as_losses():
    """k1: zero. k2: that of the reverse KL. k3: that of the forward KL."""
    assert float(expectations("k1")[1].abs().max()) < 1e-12
    assert torch.allclose(expectations("k2")[1], divergence(forward=False)[1], atol=1e-12)
    assert torch.allclose(expectations("k3")[1], divergence(forward=True)[1], atol=1e-12)
    assert not torch.allclose(expectations("k3")[1], divergence(forward=False)[1], atol=1e-2)


def test_k3_is_never_negative_and_k1_is_sometimes():
    generator = torch.Generator().manual_seed(2)
    logp_N, ref_N = -torch.rand(1000, generator=generator) * 5, -torch.rand(1000, generator=generator) * 5
    assert float(k3(logp_N, ref_N).min()) >= 0
    assert float(k2(logp_N, ref_N).min()) >= 0
    assert float(k1(logp_N, ref_N).min()) < 0


def test_adaptive_controller_follows_zieglers_rule():
    controller = KLController(0.2, target=6.0, horizon=100)
    controller.update(6.6, 10)  # an error of 10 % over a tenth of the horizon
    assert controller.beta == pytest.approx(0.2 * (1 + 0.1 * 0.1))
    controller = KLController(0.2, target=6.0, horizon=100)
    controller.update(60.0, 10)  # far off: clipped to 20 %
    assert controller.beta == pytest.approx(0.2 * 1.02)
    controller.update(0.0, 10)
    assert controller.beta == pytest.approx(0.2 * 1.02 * 0.98)


def test_fixed_controller_stays():
    controller = KLController(0.2)
    controller.update(100.0, 1000)
    assert controller.beta == 0.2


def test_adaptive_controller_reaches_its_target():
    """A policy whose KL is 1 / β: the controller must find β = 1 / 4, from above and from below."""
    for start in (0.02, 3.0):
        controller = KLController(start, target=4.0, horizon=100)
        for _ in range(500):
            controller.update(1 / controller.beta, 50)
        assert controller.beta == pytest.approx(0.25, rel=1e-3)
