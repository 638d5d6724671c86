"""KTO: against trl's code, by hand, and its mismatched pairs."""

from __future__ import annotations

import pytest
import torch
from test_dpo import END, d, model, pairs
from test_preference_losses import token_log_probs
from trl_losses import trl_kto_loss

from underhood.align.dpo import score_all_pairs, sequence_log_probs
from underhood.align.kto import KTOLoss, KTOSpec, halves, kl_estimate, kto_loss, mismatched_pairs
from underhood.align.pairs import Marked, PairBatches
from underhood.core.runlog import RunLog
from underhood.train.loop import FitSpec, fit
from underhood.train.optim import AdamWSpec

SPEC = KTOSpec(beta=0.3, desirable_weight=1.2, undesirable_weight=0.7)


@pytest.mark.parametrize("shift", [1.0, -2.0])
@pytest.mark.parametrize("label", ["both", "good only", "bad only"])
def test_kto_loss_and_its_gradient_match_trl(label: str, shift: float):
    """`shift` makes the estimate of the divergence positive, or negative and so clamped to zero."""
    logps_BT, mask_BT = token_log_probs(3)
    generator = torch.Generator().manual_seed(4)
    reference_B = logps_BT.detach().sum(1) + torch.randn(len(logps_BT), generator=generator)
    kl = torch.randn(5, generator=generator) + shift, torch.randn(5, generator=generator)
    desirable_B = torch.arange(len(logps_BT)) % 3 > 0 if label == "both" else torch.full((12,), label == "good only")
    estimate = kl_estimate(*kl)
    assert (float(estimate) > 0) == (shift > 0)
    ours = kto_loss(logps_BT.sum(1), reference_B, desirable_B, estimate, SPEC).mean()
    theirs = trl_kto_loss(logps_BT, mask_BT, reference_B, kl, desirable_B, SPEC)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    gradients = [torch.autograd.grad(loss, logps_BT, retain_graph=True)[0] for loss in (ours, theirs)]
    assert float(gradients[0].abs().max()) > 1e-4
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-5)


def test_kto_loss_of_an_unchanged_policy_is_half_the_weights():
    loss_N = kto_loss(d(-3.0, -4.0), d(-3.0, -4.0), torch.tensor([True, False]), d(0.0)[0], SPEC)
    assert loss_N.tolist() == pytest.approx([0.6, 0.35])


def examples(count: int = 12) -> tuple[list[Marked], torch.Tensor]:
    """Answers without a partner: every other one is good."""
    answers = [pair[number % 2] for number, pair in enumerate(pairs(count))]
    return answers, torch.arange(count) % 2 == 0


def test_mismatched_pairs_put_ids_together_and_never_keep_the_prompt_and_its_answer():
    answers, _ = examples()
    made = mismatched_pairs(answers, seed=3)
    splits = [(ids[: mask.index(True)], ids[mask.index(True) :]) for ids, mask in answers]
    partners = []
    for number, (own, (ids, mask)) in enumerate(made):
        assert own == answers[number]
        prompt, answer = ids[: mask.index(True)], ids[mask.index(True) :]
        assert prompt == splits[number][0]
        options = [k for k, split in enumerate(splits) if split[1] == answer and split[0] != prompt]
        assert options
        partners.append(tuple(answer))
        assert ids[-1] == END
    assert sorted(partners) == sorted(tuple(split[1]) for split in splits)  # a cycle: each answer once
    assert mismatched_pairs(answers, seed=3) == made
    assert mismatched_pairs(answers, seed=4) != made


def test_kto_kl_comes_from_the_mismatched_rows_and_carries_no_gradient():
    answers, desirable_N = examples()
    batches = PairBatches(mismatched_pairs(answers, seed=0), batch_size=12, seed=0)
    policy = model(torch.float64)
    reference = score_all_pairs(model(torch.float64), batches)
    reference = type(reference)(
        reference.chosen_N, reference.rejected_N - 0.5, reference.chosen_length_N, reference.rejected_length_N
    )
    batch = batches(0)
    loss, extra = KTOLoss(reference, desirable_N, SPEC)(policy, batch)
    assert extra["kl"] / 12 == pytest.approx(0.5)
    loss.backward()
    gradient = policy.embed.weight.grad
    assert gradient is not None
    policy.zero_grad()
    own, _ = halves(batch.rows)
    again = kto_loss(
        sequence_log_probs(policy, own),
        reference.chosen_N[batch.pairs_N],
        desirable_N[batch.pairs_N],
        torch.tensor(0.5, dtype=torch.float64),
        SPEC,
    ).sum()
    again.backward()
    torch.testing.assert_close(policy.embed.weight.grad, gradient)


def test_kto_training_tells_good_answers_from_bad_ones():
    answers, desirable_N = examples(24)
    batches = PairBatches(mismatched_pairs(answers, seed=0), batch_size=8, seed=0)
    policy = model()
    before = score_all_pairs(policy, batches)
    fit(
        policy,
        batches,
        KTOLoss(before, desirable_N, KTOSpec(beta=0.5)),
        AdamWSpec(lr=3e-3, weight_decay=0.0).build(policy),
        FitSpec(steps=30),
        stage="kto",
        log=RunLog(None),
    )
    gain_N = score_all_pairs(policy, batches).chosen_N - before.chosen_N
    assert float(gain_N[desirable_N].mean()) > float(gain_N[~desirable_N].mean()) + 1


def test_kto_loss_refuses_labels_of_other_answers_and_impossible_weights():
    answers, desirable_N = examples()
    batches = PairBatches(mismatched_pairs(answers, seed=0), batch_size=12, seed=0)
    with pytest.raises(ValueError, match="5 labels, but 12"):
        KTOLoss(score_all_pairs(model(), batches), desirable_N[:5], KTOSpec())
    with pytest.raises(ValueError, match="negative"):
        KTOSpec(undesirable_weight=-1.0)
