"""Robust DPO, IPO, hinge, ORPO and SimPO: against trl's code, the papers' formulas, and with an idea taken away."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_dpo import d, model, pairs
from torch import Tensor
from trl_losses import trl_dpo_loss, trl_orpo_loss, trl_simpo_loss

from underhood.align.dpo import (
    DPOLoss,
    DPOSpec,
    PairScores,
    PreferenceLoss,
    compare,
    dpo_loss,
    score_all_pairs,
    score_pairs,
)
from underhood.align.hinge import HingeSpec, hinge_loss
from underhood.align.ipo import IPOSpec, ipo_loss
from underhood.align.orpo import ORPOSpec, log_odds, odds_ratio_loss
from underhood.align.pairs import PairBatches
from underhood.align.robust_dpo import RobustDPOSpec, robust_dpo_loss
from underhood.align.simpo import SimPOSpec, simpo_loss
from underhood.core.runlog import RunLog
from underhood.train.loop import FitSpec, fit
from underhood.train.optim import AdamWSpec

COUNT, LENGTH = 6, 9


def token_log_probs(seed: int) -> tuple[Tensor, Tensor]:
    """Log-probabilities (2N, T) of answers of different lengths, and their mask."""
    generator = torch.Generator().manual_seed(seed)
    lengths_B = torch.randint(1, LENGTH + 1, (2 * COUNT,), generator=generator)
    mask_BT = torch.arange(LENGTH) < lengths_B[:, None]
    logps_BT = -3 * torch.rand(2 * COUNT, LENGTH, generator=generator)
    return (logps_BT * mask_BT).requires_grad_(), mask_BT


def scores_of(logps_BT: Tensor, mask_BT: Tensor) -> PairScores:
    lengths_B = mask_BT.sum(1).float()
    return PairScores(*logps_BT.sum(1).chunk(2), *lengths_B.chunk(2))


def reference_scores(like: PairScores, seed: int = 7) -> PairScores:
    generator = torch.Generator().manual_seed(seed)
    noise = [torch.randn(COUNT, generator=generator) for _ in range(2)]
    return replace(like, chosen_N=like.chosen_N.detach() + noise[0], rejected_N=like.rejected_N.detach() + noise[1])


@pytest.mark.parametrize(
    ("spec", "kind", "beta", "smoothing"),
    [
        (DPOSpec(beta=0.3), "sigmoid", 0.3, 0.0),
        (DPOSpec(beta=2.5, length_normalised=True), "sigmoid_norm", 2.5, 0.0),
        (RobustDPOSpec(beta=0.3, label_noise=0.15), "robust", 0.3, 0.15),
        (IPOSpec(tau=0.2), "ipo", 0.2, 0.0),
        (HingeSpec(beta=0.4), "hinge", 0.4, 0.0),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_loss_with_a_reference_and_its_gradient_match_trl(
    spec: PreferenceLoss, kind: str, beta: float, smoothing: float
):
    logps_BT, mask_BT = token_log_probs(0)
    policy = scores_of(logps_BT, mask_BT)
    reference = reference_scores(policy)
    ours = spec.preference(policy, reference).loss
    theirs = trl_dpo_loss(
        kind, logps_BT, mask_BT, (reference.chosen_N, reference.rejected_N), beta=beta, smoothing=smoothing
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    gradients = [torch.autograd.grad(loss, logps_BT, retain_graph=True)[0] * mask_BT for loss in (ours, theirs)]
    assert float(gradients[0].abs().max()) > 1e-3
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-5)


def test_cdpo_is_trls_own_mixture_of_dpo_with_the_swapped_pairs():
    """trl 1.16 has no cDPO any more: by its definition it is (1 − ε) of the loss and ε of the swapped pairs'."""
    logps_BT, mask_BT = token_log_probs(1)
    policy = scores_of(logps_BT, mask_BT)
    reference = reference_scores(policy)
    ours = DPOSpec(beta=0.3, label_smoothing=0.2).preference(policy, reference).loss
    swapped_BT, swapped_mask_BT = (x.roll(COUNT, 0) for x in (logps_BT, mask_BT))
    theirs = 0.8 * trl_dpo_loss(
        "sigmoid", logps_BT, mask_BT, (reference.chosen_N, reference.rejected_N), beta=0.3, smoothing=0
    ) + 0.2 * trl_dpo_loss(
        "sigmoid", swapped_BT, swapped_mask_BT, (reference.rejected_N, reference.chosen_N), beta=0.3, smoothing=0
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["orpo", "simpo"])
def test_loss_without_a_reference_and_its_gradient_match_trl(kind: str):
    logps_BT, mask_BT = token_log_probs(2)
    policy = scores_of(logps_BT, mask_BT)
    means = policy.per_token()
    if kind == "orpo":
        ours = ORPOSpec(odds_weight=0.4).preference(policy).loss
        theirs = trl_orpo_loss(means.chosen_N, means.rejected_N, beta=0.4)
    else:
        ours = SimPOSpec(beta=2.5, gamma=1.4).preference(policy).loss
        theirs = trl_simpo_loss(means.chosen_N, means.rejected_N, beta=2.5, gamma=1.4)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    gradients = [torch.autograd.grad(loss, logps_BT, retain_graph=True)[0] for loss in (ours, theirs)]
    assert float(gradients[0].abs().max()) > 1e-3
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-5)


def test_robust_dpo_is_unbiased_under_swapped_pairs_and_cdpo_is_not():
    """The expectation over swaps with probability ε is the loss of the unswapped pairs: a sum of two terms."""
    scores, noise = (d(-2.0, -5.0), d(-6.0, -4.0), d(-4.0, -4.0), d(-3.0, -5.0)), 0.2
    swapped = scores[1], scores[0], scores[3], scores[2]
    clean = dpo_loss(*scores, beta=0.5).loss

    def expected(loss: Any) -> Tensor:
        return (1 - noise) * loss(*scores) + noise * loss(*swapped)

    robust = expected(lambda *s: robust_dpo_loss(*s, beta=0.5, label_noise=noise).loss)
    conservative = expected(lambda *s: dpo_loss(*s, beta=0.5, label_smoothing=noise).loss)
    torch.testing.assert_close(robust, clean)
    assert abs(float(conservative - clean)) > 0.02


def test_ipo_is_content_at_its_margin_and_dpo_never_is():
    """h = 1 / (2τ) has loss and gradient zero; beyond it IPO pulls back while DPO goes on pushing."""
    for margin, sign in ((5.0, 0), (4.0, -1), (6.0, 1)):
        chosen = d(margin).requires_grad_()
        (slope,) = torch.autograd.grad(ipo_loss(chosen, d(0.0), d(0.0), d(0.0), tau=0.1).loss, chosen)
        assert float(slope) == pytest.approx(2 * sign)
        (slope,) = torch.autograd.grad(dpo_loss(chosen, d(0.0), d(0.0), d(0.0), beta=0.1).loss, chosen)
        assert float(slope) < 0


def test_ipo_length_conventions_differ_by_length_alone():
    policy = PairScores(d(-2.0), d(-6.0), d(2.0), d(3.0))
    reference = PairScores(d(-4.0), d(-3.0), d(2.0), d(3.0))
    summed = IPOSpec(tau=0.5, length="summed").preference(policy, reference)
    per_token = IPOSpec(tau=0.5, length="per-token").preference(policy, reference)
    assert float(summed.loss) == pytest.approx((2 + 3 - 1) ** 2)
    assert float(per_token.loss) == pytest.approx((2 / 2 + 3 / 3 - 1) ** 2)
    single = PairScores(d(-2.0), d(-6.0), d(1.0), d(1.0)), PairScores(d(-4.0), d(-3.0), d(1.0), d(1.0))
    same = [float(IPOSpec(tau=0.5, length=name).preference(*single).loss) for name in ("summed", "per-token")]
    assert same[0] == same[1]


def test_hinge_loss_teaches_nothing_beyond_its_margin():
    chosen = d(3.0, 1.0).requires_grad_()
    result = hinge_loss(chosen, d(0.0, 0.0), d(0.0, 0.0), d(0.0, 0.0), beta=0.5)
    assert float(result.loss.detach()) == pytest.approx((0 + 0.5) / 2)
    (slope_N,) = torch.autograd.grad(result.loss, chosen)
    assert slope_N.tolist() == [0.0, -0.25]


@given(st.lists(st.floats(-60, -1e-9), min_size=1, max_size=5))
def test_log_odds_match_the_definition(values: list[float]):
    expected = [math.log(math.exp(v)) - math.log(-math.expm1(v)) for v in values]
    assert log_odds(d(*values)).tolist() == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_log_odds_have_a_finite_gradient_everywhere_below_zero():
    logp_N = d(-1e-12, -0.3, -math.log(2), -5.0, -500.0).requires_grad_()
    (slope_N,) = torch.autograd.grad(log_odds(logp_N).sum(), logp_N)
    assert bool(slope_N.isfinite().all())
    assert slope_N.tolist() == pytest.approx([1 / -math.expm1(v) for v in logp_N.tolist()], rel=1e-6)


def test_orpo_odds_ratio_by_hand_and_its_whole_loss_adds_the_answers_own():
    """Probabilities ¾ and ½ have odds 3 and 1, so −log σ(log 3) = log(4/3)."""
    result = odds_ratio_loss(d(math.log(0.75)), d(math.log(0.5)), odds_weight=0.1)
    assert float(result.loss) == pytest.approx(0.1 * math.log(4 / 3))
    policy, batches = model(torch.float64), PairBatches(pairs(4), batch_size=4, seed=0)
    batch = batches(0)
    scores = score_pairs(policy, batch.rows)
    loss, _ = DPOLoss(None, ORPOSpec(odds_weight=0.1))(policy, batch)
    odds = ORPOSpec(odds_weight=0.1).preference(scores).loss
    expected = 4 * odds - (scores.chosen_N / scores.chosen_length_N).sum()
    assert float(loss.detach()) == pytest.approx(float(expected.detach()))


def test_simpo_by_hand_and_without_its_margin_or_its_length():
    policy = PairScores(d(-4.0), d(-9.0), d(4.0), d(3.0))
    result = SimPOSpec(beta=2.0, gamma=1.0).preference(policy)
    assert float(result.loss) == pytest.approx(math.log1p(math.exp(-(2 * (-1 + 3) - 1))))
    assert result.margin == pytest.approx(4.0)
    no_margin = SimPOSpec(beta=2.0, gamma=0.0).preference(policy)
    assert float(no_margin.loss) < float(result.loss)
    by_sum = simpo_loss(policy.chosen_N, policy.rejected_N, beta=2.0, gamma=1.0)
    assert by_sum.margin == pytest.approx(10.0)


@pytest.mark.parametrize(
    "spec",
    [DPOSpec(), RobustDPOSpec(), IPOSpec(), IPOSpec(length="summed"), HingeSpec(), ORPOSpec(), SimPOSpec()],
    ids=lambda spec: f"{type(spec).__name__}{getattr(spec, 'length', '')}",
)
def test_every_loss_learns_to_prefer_through_one_loss_function(spec: PreferenceLoss):
    policy, batches = model(), PairBatches(pairs(), batch_size=8, seed=0)
    before = score_all_pairs(policy, batches)
    loss_fn = DPOLoss(before if spec.uses_reference else None, spec)
    optimizer = AdamWSpec(lr=3e-3, weight_decay=0.0).build(policy)
    fit(policy, batches, loss_fn, optimizer, FitSpec(steps=25), stage="dpo", log=RunLog(None))
    after = score_all_pairs(policy, batches)
    assert compare(after, before, DPOSpec()).accuracy > 0.85


@pytest.mark.parametrize("spec", [DPOSpec(), RobustDPOSpec(), IPOSpec(), HingeSpec()], ids=lambda s: type(s).__name__)
def test_loss_that_compares_with_a_reference_refuses_to_go_without(spec: PreferenceLoss):
    with pytest.raises(ValueError, match="compares with a reference"):
        DPOLoss(None, spec)


@pytest.mark.parametrize(
    ("spec", "change"),
    [
        (RobustDPOSpec, {"label_noise": 0.5}),
        (RobustDPOSpec, {"beta": -1.0}),
        (IPOSpec, {"tau": 0.0}),
        (IPOSpec, {"length": "mean"}),
        (HingeSpec, {"beta": -1.0}),
        (ORPOSpec, {"odds_weight": -0.1}),
        (SimPOSpec, {"beta": 0.0}),
        (SimPOSpec, {"gamma": -0.1}),
    ],
)
def test_spec_refuses_impossible_settings(spec: Any, change: dict[str, Any]):
    with pytest.raises(ValueError, match="got"):
        spec(**change)
