"""Supervised fine-tuning: learns the answers, and only the answers."""

from __future__ import annotations

from collections.abc import Callable

import torch

from underhood.align.sft import SFTLoss
from underhood.core.runlog import RunLog
from underhood.data.batch import IGNORE, Batch
from underhood.models.decoder import Decoder, qwen3_shaped
from underhood.train.loop import FitSpec, fit
from underhood.train.loss import next_token_loss
from underhood.train.optim import MuonAdamWSpec

END = 19


def model() -> Decoder:
    spec = qwen3_shaped(vocab_size=20, context_length=8, d_model=16, layers=1, heads=2, d_ff=32)
    return spec.initialize(seed=0)


def conversations(step: int) -> Batch:
    """Four letters, of which the second is to be repeated in capitals; then the end, then padding."""
    question = torch.randint(9, (6, 4), generator=torch.Generator().manual_seed(step))
    answer = 9 + question[:, 1:2]
    end, padding = torch.full((6, 1), END), torch.zeros(6, 2, dtype=torch.int64)
    row = torch.cat([question, answer, end, padding], dim=1)
    targets = row[:, 1:].clone()
    targets[:, :3] = targets[:, 5:] = IGNORE
    return Batch(row[:, :-1], targets, torch.tensor([0, 1, 2, 3, 4, -1, -1]).repeat(6, 1))


def everything(step: int) -> Batch:
    """The same rows with a loss on the question too: the ablation."""
    batch = conversations(step)
    targets = batch.targets.clone()
    targets[:, :3] = batch.tokens[:, 1:4]
    return Batch(batch.tokens, targets, batch.positions)


def test_sft_loss_is_the_summed_next_token_loss_of_the_answers():
    tuned, batch = model(), conversations(0)
    loss, metrics = SFTLoss()(tuned, batch)
    assert (batch.target_count, batch.token_count) == (12, 6 * 5), "padding is not read"
    torch.testing.assert_close(loss / 12, next_token_loss(tuned, batch))
    assert 0 <= metrics["answer_accuracy"] <= 12


def question_loss(tuned: Decoder) -> float:
    batch = everything(999)
    targets = batch.targets.clone()
    targets[:, 3:] = IGNORE
    with torch.no_grad():
        return float(next_token_loss(tuned, Batch(batch.tokens, targets, batch.positions)))


def tune(batches: Callable[[int], Batch]) -> Decoder:
    tuned = model()
    spec = FitSpec(steps=150)
    fit(tuned, batches, SFTLoss(), MuonAdamWSpec(lr=0.02).build(tuned), spec, stage="sft", log=RunLog(None))
    return tuned


def test_sft_learns_answers_and_their_end_but_not_to_ask():
    tuned = tune(conversations)
    with torch.no_grad():
        _, metrics = SFTLoss()(tuned, conversations(10_000))
    assert metrics["answer_accuracy"] > 0.95 * 12
    assert question_loss(tuned) >= question_loss(model()), "nobody taught it how questions go on"


def test_sft_with_a_loss_on_questions_learns_to_ask_and_answers_worse():
    asks, answered = tune(everything), tune(conversations)
    assert question_loss(asks) < question_loss(model()) - 0.5
    with torch.no_grad():
        losses = [float(next_token_loss(tuned, conversations(10_000))) for tuned in (asks, answered)]
    assert losses[0] > losses[1]
