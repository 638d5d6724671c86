"""DPO against the paper's formulas, finite differences, and itself with one idea taken away."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from underhood.align.dpo import (
    DPOLoss,
    DPOSpec,
    PairScores,
    compare,
    dpo_loss,
    score_all_pairs,
    score_pairs,
    sequence_log_probs,
)
from underhood.align.pairs import Marked, PairBatches
from underhood.core.runlog import RunLog
from underhood.data.batch import Batch
from underhood.models.decoder import Decoder, qwen3_shaped
from underhood.train.loop import FitSpec, fit
from underhood.train.optim import AdamWSpec

VOCAB, END = 20, 19


def model(dtype: torch.dtype = torch.float32) -> Decoder:
    spec = qwen3_shaped(vocab_size=VOCAB, context_length=16, d_model=16, layers=1, heads=2, d_ff=32)
    made = spec.initialize(seed=0)
    with torch.no_grad():
        made.unembed.weight.normal_(std=0.3, generator=torch.Generator().manual_seed(1))
    return made.to(dtype)


def pairs(count: int = 24) -> list[tuple[Marked, Marked]]:
    """A question of 2–6 letters; the right answer repeats its first letter once, the wrong one another letter twice."""
    random = np.random.default_rng(0)
    made = []
    for _ in range(count):
        question = random.integers(0, 8, random.integers(2, 7)).tolist()
        right, wrong = [8 + question[0], END], [8 + (question[0] + 3) % 8] * 2 + [END]
        made.append(
            tuple((question + output, [False] * len(question) + [True] * len(output)) for output in (right, wrong))
        )
    return made


def d(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_dpo_loss_of_an_unchanged_policy_is_ln_2_exactly():
    at_start = d(-3.0, -7.5, -0.25)
    for beta in (0.01, 0.1, 5.0):
        result = dpo_loss(at_start, at_start - 2, at_start, at_start - 2, beta=beta)
        assert float(result.loss) == pytest.approx(math.log(2), abs=1e-15)
        assert (result.accuracy, result.margin) == (0.5, 0.0)


def test_dpo_loss_by_hand():
    """Rewards 0.1·(−2 + 4) and 0.1·(−6 + 3), so h = 0.2 + 0.3 = ½."""
    result = dpo_loss(d(-2.0), d(-6.0), d(-4.0), d(-3.0), beta=0.1)
    assert float(result.loss) == pytest.approx(math.log1p(math.exp(-0.5)))
    assert float(result.chosen_reward_N) == pytest.approx(0.2)
    assert float(result.rejected_reward_N) == pytest.approx(-0.3)
    assert result.margin == pytest.approx(0.5)
    assert result.accuracy == 1.0
    smoothed = dpo_loss(d(-2.0), d(-6.0), d(-4.0), d(-3.0), beta=0.1, label_smoothing=0.2)
    assert float(smoothed.loss) == pytest.approx(0.8 * math.log1p(math.exp(-0.5)) + 0.2 * math.log1p(math.exp(0.5)))


log_probs = st.lists(st.floats(-80, 0), min_size=3, max_size=3).map(lambda values: d(*values))


@given(log_probs, log_probs, log_probs, log_probs, st.floats(0.01, 5), st.sampled_from([0.0, 0.1, 0.5]))
def test_dpo_gradient_matches_the_papers_identity(
    w: Tensor, lo: Tensor, rw: Tensor, rl: Tensor, beta: float, eps: float
):
    """The gradient below equation 7: −β σ(r̂_l − r̂_w), on the chosen; the opposite on the rejected."""
    w, lo = w.clone().requires_grad_(), lo.clone().requires_grad_()
    result = dpo_loss(w, lo, rw, rl, beta=beta, label_smoothing=eps)
    chosen, rejected = torch.autograd.grad(result.loss, (w, lo))
    h = result.margin_N
    expected = -beta * ((1 - eps) * torch.sigmoid(-h) - eps * torch.sigmoid(h)) / 3
    torch.testing.assert_close(chosen, expected)
    torch.testing.assert_close(rejected, -expected)


def test_dpo_gradient_matches_finite_differences():
    inputs = [d(-2.0, -9.0).requires_grad_(), d(-6.0, -4.0).requires_grad_()]
    loss = lambda w, lo: dpo_loss(w, lo, d(-4.0, -4.0), d(-3.0, -5.0), beta=0.7, label_smoothing=0.1).loss  # noqa: E731
    assert torch.autograd.gradcheck(loss, inputs)


def test_dpo_with_beta_zero_teaches_nothing():
    w = d(-2.0).requires_grad_()
    dpo_loss(w, d(-6.0), d(-4.0), d(-3.0), beta=0.0).loss.backward()
    assert w.grad is not None
    assert float(w.grad) == 0.0


def test_dpo_swapped_pairs_have_the_opposite_accuracy_and_margin():
    scores = [d(-2.0, -5.0, -1.0), d(-6.0, -4.0, -3.0), d(-4.0, -4.0, -4.0), d(-3.0, -5.0, -3.0)]
    right = dpo_loss(*scores, beta=0.1)
    swapped = dpo_loss(scores[1], scores[0], scores[3], scores[2], beta=0.1)
    assert right.accuracy == pytest.approx(2 / 3)
    assert swapped.accuracy == pytest.approx(1 / 3)
    assert swapped.margin == pytest.approx(-right.margin)


def test_dpo_without_its_reference_is_another_loss():
    policy = d(-2.0), d(-6.0)
    with_reference = dpo_loss(*policy, d(-4.0), d(-3.0), beta=0.1)
    without = dpo_loss(*policy, d(0.0), d(0.0), beta=0.1)
    assert float(without.loss) != pytest.approx(float(with_reference.loss))


def test_sequence_log_probs_match_a_plain_sum_and_do_not_depend_on_padding():
    policy = model(torch.float64)
    batches = PairBatches(pairs(), batch_size=6, seed=0)
    batch = batches(0)
    actual = sequence_log_probs(policy, batch.rows)
    by_hand = []
    for side in (0, 1):
        for n in batch.pairs_N.tolist():
            ids, mask = pairs()[n][side]
            log_p = policy(torch.tensor([ids])).log_softmax(-1)[0]
            by_hand.append(sum(log_p[i - 1, ids[i]] for i in range(1, len(ids)) if mask[i]))
    torch.testing.assert_close(actual, torch.stack(by_hand))  # type: ignore[arg-type]


def test_sequence_log_probs_of_a_row_without_targets_is_zero():
    batch = Batch(torch.tensor([[1, 2], [3, 4]]), torch.tensor([[-100, -100], [4, -100]]))
    actual = sequence_log_probs(model(), batch)
    assert float(actual[0].detach()) == 0.0
    assert float(actual[1].detach()) < 0.0


def test_score_all_pairs_is_in_the_order_of_the_pairs_and_leaves_the_model_alone():
    policy, batches = model(torch.float64).train(), PairBatches(pairs(), batch_size=5, seed=3)
    scores = score_all_pairs(policy, batches)
    assert policy.training
    assert not scores.chosen_N.requires_grad
    assert scores.chosen_length_N.tolist() == [2.0] * 24
    assert scores.rejected_length_N.tolist() == [3.0] * 24
    for step in range(batches.batches_per_epoch):
        batch = batches(step)
        here, expected = score_pairs(policy, batch.rows), scores[batch.pairs_N]
        torch.testing.assert_close(here.chosen_N.detach(), expected.chosen_N)
        torch.testing.assert_close(here.rejected_N.detach(), expected.rejected_N)


def test_dpo_gradient_of_the_whole_model_matches_finite_differences():
    policy, batches = model(torch.float64), PairBatches(pairs(4), batch_size=4, seed=0)
    reference = score_all_pairs(model(torch.float64), batches)
    with torch.no_grad():
        for p in policy.parameters():
            p.add_(0.05 * torch.randn(p.shape, dtype=p.dtype, generator=torch.Generator().manual_seed(p.numel())))
    loss_fn = DPOLoss(reference, DPOSpec(beta=0.5, label_smoothing=0.1, sft_weight=0.3))
    loss_fn(policy, batches(0))[0].backward()
    generator = torch.Generator().manual_seed(5)
    for p in policy.parameters():
        assert p.grad is not None
        direction = torch.randn(p.shape, dtype=p.dtype, generator=generator)
        losses = []
        for move in (1e-5, -2e-5, 1e-5):
            with torch.no_grad():
                p.add_(direction, alpha=move)
            losses.append(float(loss_fn(policy, batches(0))[0].detach()))
        slope = (losses[0] - losses[1]) / 2e-5
        assert slope == pytest.approx(float((p.grad * direction).sum()), rel=1e-5, abs=1e-9)


def align(spec: DPOSpec, chosen_first: bool = True, **change: Any) -> tuple[Decoder, PairBatches, PairScores]:
    policy, given_pairs = model(), pairs()
    batches = PairBatches([p if chosen_first else p[::-1] for p in given_pairs], batch_size=8, seed=0)
    reference = score_all_pairs(policy, batches)
    fit(
        policy,
        batches,
        DPOLoss(change.get("reference", reference), spec),
        AdamWSpec(lr=3e-3, weight_decay=0.0).build(policy),
        FitSpec(steps=25),
        stage="dpo",
        log=RunLog(None),
    )
    return policy, PairBatches(given_pairs, batch_size=8, seed=0), reference


def test_dpo_training_raises_accuracy_and_margin_and_swapped_pairs_lower_them():
    spec = DPOSpec(beta=0.5)
    policy, batches, reference = align(spec)
    result = compare(score_all_pairs(policy, batches), reference, spec)
    assert result.accuracy > 0.9
    assert result.margin > 0.5
    policy, batches, swapped = align(spec, chosen_first=False)
    reference = replace(reference, chosen_N=swapped.rejected_N, rejected_N=swapped.chosen_N)
    result = compare(score_all_pairs(policy, batches), reference, spec)
    assert result.accuracy < 0.1
    assert result.margin < -0.5


def test_dpo_reference_keeps_the_policy_near_and_without_it_training_ends_elsewhere():
    spec = DPOSpec(beta=0.5)
    policy, batches, reference = align(spec)
    nothing = torch.zeros(24)
    without, _, _ = align(spec, reference=replace(reference, chosen_N=nothing, rejected_N=nothing))
    far = score_all_pairs(without, batches).chosen_N - score_all_pairs(policy, batches).chosen_N
    assert float(far.abs().mean()) > 0.1


def test_dpo_sft_weight_holds_up_the_chosen_answer():
    """What it is for: more likely right answers than DPO alone leaves, at about the same preference."""
    alone, batches, reference = align(DPOSpec(beta=0.5))
    held, _, _ = align(DPOSpec(beta=0.5, sft_weight=1.0))
    assert score_all_pairs(held, batches).chosen_N.mean() > score_all_pairs(alone, batches).chosen_N.mean()
    assert compare(score_all_pairs(held, batches), reference, DPOSpec(beta=0.5)).accuracy > 0.9


def test_dpo_loss_logs_its_metrics_and_counts_real_tokens():
    policy, batches = model(), PairBatches(pairs(3), batch_size=3, seed=0)
    reference = score_all_pairs(policy, batches)
    batch = batches(0)
    loss, extra = DPOLoss(reference, DPOSpec(beta=0.3))(policy, batch)
    assert batch.target_count == 3
    assert float(loss.detach()) == pytest.approx(3 * math.log(2), abs=1e-6)
    assert batch.token_count == sum(len(ids) - 1 for pair in pairs(3) for ids, _ in pair)
    assert extra["reward_margin"] == pytest.approx(0, abs=1e-6)
    assert extra["chosen_log_prob"] == pytest.approx(float((reference.chosen_N / 2).sum()), rel=1e-5)
    assert (extra["chosen_length"], extra["rejected_length"]) == (6.0, 9.0)
    assert extra.keys() == {
        *("preference_accuracy", "reward_margin", "chosen_reward", "rejected_reward"),
        *("chosen_log_prob", "rejected_log_prob", "chosen_length", "rejected_length"),
    }


def test_dpo_length_normalised_compares_answers_per_token():
    policy = PairScores(d(-2.0), d(-6.0), d(2.0), d(3.0))
    reference = PairScores(d(-4.0), d(-3.0), d(2.0), d(3.0))
    plain = compare(policy, reference, DPOSpec(beta=1.0))
    normalised = compare(policy, reference, DPOSpec(beta=1.0, length_normalised=True))
    assert plain.margin == pytest.approx(2 + 3)
    assert normalised.margin == pytest.approx(2 / 2 + 3 / 3)


def test_dpo_loss_refuses_a_reference_of_other_pairs():
    policy = model()
    reference = score_all_pairs(policy, PairBatches(pairs(3), batch_size=3, seed=0))
    with pytest.raises(ValueError, match="scores 3 pairs, not all of these"):
        DPOLoss(reference, DPOSpec())(policy, PairBatches(pairs(4), batch_size=4, seed=0)(0))


@pytest.mark.parametrize(
    "change", [{"beta": -1}, {"sft_weight": -1}, {"label_smoothing": -0.1}, {"label_smoothing": 0.6}]
)
def test_dpo_spec_refuses_impossible_settings(change: dict[str, float]):
    with pytest.raises(ValueError, match="got"):
        DPOSpec(**change)
