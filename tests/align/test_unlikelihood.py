"""The loss on what an answer has said before, against the sets of the paper written out one by one."""

from __future__ import annotations

import math

import pytest
import torch

from underhood.align.sft import SFTLoss
from underhood.align.unlikelihood import answers_of, repetition_loss
from underhood.data.batch import IGNORE, Batch
from underhood.models.decoder import qwen3_shaped


def by_hand(logp: torch.Tensor, targets: list[int], answers: list[int]) -> float:
    total = 0.0
    for index, target in enumerate(targets):
        earlier = {targets[j] for j in range(index) if answers[j] == answers[index]} - {target}
        total += sum(-math.log(1 - math.exp(float(logp[index, token]))) for token in earlier)
    return total / len(targets)


@pytest.mark.parametrize("seed", range(5))
def test_repetition_loss_matches_sets_written_out(seed: int):
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(6, (40,), generator=generator)  # few tokens: many repetitions
    answers = torch.randint(4, (40,), generator=generator).sort().values
    logp = torch.randn(40, 6, generator=generator, dtype=torch.float64).log_softmax(dim=-1)
    assert float(repetition_loss(logp, targets, answers)) == pytest.approx(
        by_hand(logp, targets.tolist(), answers.tolist()), rel=1e-9
    )


def test_one_answer_says_nothing_about_another():
    logp = torch.full((2, 3), -math.log(3))
    assert float(repetition_loss(logp, torch.tensor([0, 1]), torch.tensor([0, 1]))) == 0
    assert float(repetition_loss(logp, torch.tensor([0, 1]), torch.tensor([0, 0]))) == pytest.approx(
        -math.log(2 / 3) / 2
    )


def test_a_certain_repetition_costs_a_finite_amount():
    logp = torch.tensor([[0.0, -torch.inf], [0.0, -torch.inf]], requires_grad=True)
    loss = repetition_loss(logp, torch.tensor([0, 1]), torch.tensor([0, 0]))
    loss.backward()
    assert math.isfinite(float(loss.detach()))
    assert logp.grad is not None
    assert bool(logp.grad.isfinite().all())


def test_answers_are_told_apart_by_row_and_by_text():
    positions = torch.tensor([[0, 1, 2, 0, 1, 2], [0, 1, 2, 3, 4, -1]])
    targets = torch.tensor([[IGNORE, 5, 5, IGNORE, 5, 5], [5, 5, IGNORE, 5, 5, IGNORE]])
    answers = answers_of(Batch(targets.clamp(min=0), targets, positions)).tolist()
    assert len(answers) == 8
    groups = [answers[:2], answers[2:4], answers[4:]]
    assert all(len(set(group)) == 1 for group in groups)
    assert len({group[0] for group in groups}) == 3


def test_training_with_it_makes_repetition_less_likely_than_without():
    """The ablation: the same steps on the same answers, weight 0 and weight 5."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(16, (8, 13), generator=generator)
    batch = Batch(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous(), torch.arange(12)[None].expand(8, -1))

    def repetition_after(weight: float) -> float:
        shape = qwen3_shaped(vocab_size=16, context_length=12, d_model=32, layers=2, heads=2)
        model = shape.initialize(seed=0, embed_std=0.1)
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
        loss_fn = SFTLoss(unlikelihood=weight)
        for _ in range(25):
            optimizer.zero_grad()
            (loss_fn(model, batch)[0] / batch.target_count).backward()
            optimizer.step()
        with torch.no_grad():
            logp = model(batch.tokens).flatten(0, 1).log_softmax(dim=-1)
            return float(repetition_loss(logp, batch.targets.flatten(), answers_of(batch)))

    assert repetition_after(5.0) < 0.8 * repetition_after(0.0)
