"""Distillation losses against trl, closed forms and the unsliced computation."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from underhood.align.distillation import DistillationLoss, DistillationSpec, distillation_loss, soft_label_loss
from underhood.align.divergence import Divergence, ForwardKL, GeneralisedJSD, ReverseKL
from underhood.data.batch import IGNORE, Batch
from underhood.models.decoder import qwen3_shaped

DIVERGENCES = {0.0: ForwardKL(), 0.3: GeneralisedJSD(beta=0.3), 0.9: GeneralisedJSD(beta=0.9), 1.0: ReverseKL()}


def logits(seed: int, *shape: int) -> torch.Tensor:
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.slow
@pytest.mark.parametrize("beta", DIVERGENCES)
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_each_divergence_and_its_gradient_match_trl(beta: float, temperature: float):
    gkd = pytest.importorskip("trl.experimental.gkd.gkd_trainer")
    teacher_NV, student_NV = logits(0, 7, 11), logits(1, 7, 11)
    mine, theirs = student_NV.clone().requires_grad_(), student_NV.clone().requires_grad_()
    loss = soft_label_loss(teacher_NV, mine, divergence=DIVERGENCES[beta], temperature=temperature).mean()
    labels = torch.zeros(1, 7, dtype=torch.int64)
    oracle = temperature**2 * gkd.GKDTrainer.generalized_jsd_loss(
        theirs[None], teacher_NV[None], labels=labels, beta=beta, temperature=temperature
    )
    torch.testing.assert_close(loss, oracle, rtol=1e-5, atol=1e-6)
    loss.backward()
    oracle.backward()
    torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-5, atol=1e-6)


def test_divergences_match_torch_distributions():
    teacher, student = (torch.distributions.Categorical(logits=logits(seed, 5, 9)) for seed in (0, 1))
    kl = torch.distributions.kl_divergence
    p_NV, q_NV = teacher.logits, student.logits
    torch.testing.assert_close(ForwardKL()(p_NV, q_NV), kl(teacher, student))
    torch.testing.assert_close(ReverseKL()(p_NV, q_NV), kl(student, teacher))
    mixture = torch.distributions.Categorical(probs=0.3 * teacher.probs + 0.7 * student.probs)
    jsd_N = 0.3 * kl(teacher, mixture) + 0.7 * kl(student, mixture)
    torch.testing.assert_close(GeneralisedJSD(beta=0.3)(p_NV, q_NV), jsd_N)


def test_generalised_jsd_tends_to_forward_and_reverse_kl():
    p_NV, q_NV = (logits(seed, 5, 9).double().log_softmax(-1) for seed in (0, 1))
    small = 1e-5
    near_forward_N = GeneralisedJSD(beta=small)(p_NV, q_NV) / small
    near_reverse_N = GeneralisedJSD(beta=1 - small)(p_NV, q_NV) / small
    torch.testing.assert_close(near_forward_N, ForwardKL()(p_NV, q_NV), rtol=1e-2, atol=0)
    torch.testing.assert_close(near_reverse_N, ReverseKL()(p_NV, q_NV), rtol=1e-2, atol=0)
    assert not torch.allclose(near_forward_N, ReverseKL()(p_NV, q_NV), rtol=0.05)


def test_the_jsd_has_bounds_and_no_ends():
    p_NV, q_NV = (torch.tensor([[30.0, -30.0]]).log_softmax(-1), torch.tensor([[-30.0, 30.0]]).log_softmax(-1))
    assert float(GeneralisedJSD(beta=0.5)(p_NV, q_NV)) == pytest.approx(0.6931, abs=1e-3)  # log 2
    for beta in (0.0, 1.0):
        with pytest.raises(ValueError, match="between 0 and 1"):
            GeneralisedJSD(beta=beta)


@pytest.mark.parametrize("divergence", [ForwardKL(), ReverseKL()])
def test_at_high_temperature_the_loss_is_half_the_mean_squared_difference_of_the_scores(divergence: Divergence):
    """Hinton et al. 2015, equations 3 and 4; T² is what keeps it from vanishing."""
    teacher_NV, student_NV = (logits(seed, 6, 10).double() for seed in (0, 1))
    teacher_centred_NV, student_centred_NV = (x - x.mean(-1, keepdim=True) for x in (teacher_NV, student_NV))
    mse_N = 0.5 * F.mse_loss(teacher_centred_NV, student_centred_NV, reduction="none").mean(-1)
    loss_N = soft_label_loss(teacher_NV, student_NV, divergence=divergence, temperature=1e4)
    torch.testing.assert_close(loss_N, mse_N, rtol=1e-3, atol=0)
    cold_N = soft_label_loss(teacher_NV, student_NV, divergence=divergence, temperature=1.0)
    assert not torch.allclose(cold_N, mse_N, rtol=0.05)


@pytest.mark.parametrize("slice_values", [1, 40, 10_000])
@pytest.mark.parametrize("divergence", [ForwardKL(), ReverseKL(), GeneralisedJSD()])
def test_slices_change_neither_loss_nor_gradients(slice_values: int, divergence: Divergence):
    spec = DistillationSpec(divergence=divergence, temperature=2.0, label_weight=0.5)
    unembed, teacher_unembed = torch.nn.Linear(4, 13, bias=False), torch.nn.Linear(6, 13)
    hidden_ND, teacher_ND = logits(0, 9, 4).requires_grad_(), logits(1, 9, 6)
    targets_N = torch.arange(9)
    student_NV, teacher_NV = unembed(hidden_ND), teacher_unembed(teacher_ND).detach()
    soft = soft_label_loss(teacher_NV, student_NV, divergence=divergence, temperature=2.0).sum()
    whole = soft + 0.5 * F.cross_entropy(student_NV, targets_N, reduction="sum")
    expected = torch.autograd.grad(3 * whole, [hidden_ND, unembed.weight])
    loss, sums = distillation_loss(
        hidden_ND, unembed, teacher_ND, teacher_unembed, targets_N, spec, tokens=13, slice_values=slice_values
    )
    torch.testing.assert_close(loss, whole)
    assert sums.soft == pytest.approx(soft.item(), rel=1e-5)
    assert sums.right == int((student_NV.argmax(-1) == targets_N).sum())
    got = torch.autograd.grad(3 * loss, [hidden_ND, unembed.weight])
    torch.testing.assert_close(got, expected)


def test_loss_of_a_model_reads_supervised_positions_only_and_leaves_the_teacher_alone():
    spec = qwen3_shaped(vocab_size=20, context_length=8, d_model=16, layers=1, heads=2)
    student, teacher = spec.initialize(seed=0), spec.initialize(seed=1)
    tokens_BT = torch.randint(20, (2, 8), generator=torch.Generator().manual_seed(0))
    targets_BT = tokens_BT.roll(-1, 1).where(torch.arange(8) % 2 == 0, IGNORE)
    loss, metrics = DistillationLoss(teacher, DistillationSpec(temperature=2.0))(student, Batch(tokens_BT, targets_BT))
    used = targets_BT != IGNORE
    expected_N = soft_label_loss(
        teacher(tokens_BT)[used], student(tokens_BT)[used], divergence=ForwardKL(), temperature=2.0
    )
    torch.testing.assert_close(loss, expected_N.sum())
    assert metrics["soft_loss"] == pytest.approx(float(loss.detach()))
    loss.backward()
    assert all(p.grad is None for p in teacher.parameters())
    assert all(p.grad is not None for p in student.parameters())


def test_a_student_learns_the_teachers_distribution():
    spec = qwen3_shaped(vocab_size=12, context_length=8, d_model=16, layers=1, heads=2)
    student, teacher = spec.initialize(seed=0), spec.initialize(seed=1, embed_std=1.0)
    generator = torch.Generator().manual_seed(0)
    torch.nn.init.normal_(teacher.unembed.weight, generator=generator)
    loss_fn, losses = DistillationLoss(teacher, DistillationSpec()), []
    optimizer = torch.optim.Adam(student.parameters(), lr=1e-2)
    for _ in range(60):
        tokens_BT = torch.randint(12, (8, 8), generator=generator)
        loss, _ = loss_fn(student, Batch(tokens_BT, tokens_BT))
        optimizer.zero_grad()
        (loss / tokens_BT.numel()).backward()
        optimizer.step()
        losses.append(loss.item() / tokens_BT.numel())
    assert losses[-1] < 0.3 * losses[0]
