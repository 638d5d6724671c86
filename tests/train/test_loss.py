"""The losses: the same number by both ways, and the right one."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from small_training import VOCAB, counting_batch, small_model
from torch import Tensor, nn

from underhood.data.batch import IGNORE, Batch
from underhood.models.decoder import Decoder
from underhood.train import cross_entropy as cross_entropy_module
from underhood.train.cross_entropy import cross_entropy, differentiate_in_place
from underhood.train.loss import SplitModel, next_token_loss, supervised


def random_model() -> Decoder:
    model = small_model()
    with torch.no_grad():
        model.unembed.weight.normal_(std=0.3, generator=torch.Generator().manual_seed(0))
    return model


def answers_only(batch: Batch) -> Batch:
    targets = batch.targets.clone()
    targets[:, :5] = IGNORE
    targets[1] = IGNORE  # a row without any target
    return Batch(batch.tokens, targets, torch.arange(8).expand(4, 8))


class Opaque(nn.Module):
    """A language model that does not show its parts."""

    def __init__(self, model: Decoder):
        super().__init__()
        self.inner, self.vocab_size, self.context_length = model, model.vocab_size, model.context_length

    def forward(self, tokens: Tensor, *, cache: None = None, positions: Tensor | None = None) -> Tensor:
        return self.inner(tokens, positions=positions)


def test_next_token_loss_of_an_untrained_model_is_log_v():
    assert float(next_token_loss(small_model(), counting_batch(0)).detach()) == pytest.approx(math.log(VOCAB))


@pytest.mark.parametrize("opaque", [False, True])
def test_supervised_loss_and_gradients_equal_next_token_loss(opaque: bool):
    batch = answers_only(counting_batch(0))
    whole, piece = random_model(), random_model()
    wrapped = Opaque(piece) if opaque else piece
    assert isinstance(wrapped, SplitModel) != opaque
    output = supervised(wrapped, batch)
    expected = next_token_loss(whole, batch)
    torch.testing.assert_close(output.nll_N().mean(), expected)
    output.nll_N().mean().backward()
    expected.backward()
    for p, q in zip(piece.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)


def test_supervised_unembeds_the_supervised_positions_only():
    model, batch = random_model(), answers_only(counting_batch(0))
    rows: list[int] = []
    model.unembed.register_forward_hook(lambda module, given, out: rows.append(out.numel() // VOCAB))
    output = supervised(model, batch)
    assert rows == [9]
    assert output.rows_N.tolist() == [0, 0, 0, 2, 2, 2, 3, 3, 3]
    assert output.targets_N.tolist() == batch.targets[batch.targets != IGNORE].tolist()


def test_next_token_loss_ignores_what_it_is_told_to():
    model, batch = random_model(), answers_only(counting_batch(0))
    changed = Batch(batch.tokens, batch.targets.clone(), batch.positions)
    log_p = F.log_softmax(model(batch.tokens), dim=-1)
    by_hand = [-float(log_p[b, t, batch.targets[b, t]].detach()) for b in (0, 2, 3) for t in (5, 6, 7)]
    assert float(next_token_loss(model, changed).detach()) == pytest.approx(sum(by_hand) / 9)


def test_losses_are_taken_in_fp32_of_bf16_logits_and_keep_float64():
    for kind, expected in ((torch.bfloat16, torch.float32), (torch.float64, torch.float64)):
        model = random_model().to(kind)
        assert next_token_loss(model, counting_batch(0)).dtype == expected
        assert supervised(model, counting_batch(0)).logits_NV.dtype == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 37, 300])
def test_cross_entropy_and_its_gradient_match_torch(monkeypatch, dtype: torch.dtype, rows: int):
    monkeypatch.setattr(cross_entropy_module, "CACHED_VALUES", 50 * rows)  # slices that do and don't divide the rows
    generator = torch.Generator().manual_seed(rows)
    ours = (5 * torch.randn(200, 50, generator=generator)).to(dtype).requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    targets = torch.randint(50, (200,), generator=generator)
    targets[::3] = IGNORE
    loss = cross_entropy(ours, targets)
    expected = F.cross_entropy(theirs.to(torch.promote_types(dtype, torch.float32)), targets, ignore_index=IGNORE)
    torch.testing.assert_close(loss, expected)
    (2 * loss).backward()
    (2 * expected).backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 37, 300])
def test_scores_become_their_gradient_matches_torch(monkeypatch, dtype: torch.dtype, rows: int):
    monkeypatch.setattr(cross_entropy_module, "CACHED_VALUES", 50 * rows)
    generator = torch.Generator().manual_seed(rows)
    theirs = (2 * torch.randn(200, 50, generator=generator)).to(dtype).requires_grad_()
    targets = torch.randint(50, (200,), generator=generator)
    targets[::2] = theirs[::2].argmax(-1)
    ours = theirs.detach().clone()
    location = ours.data_ptr()
    total, right = differentiate_in_place(ours, targets)
    expected = F.cross_entropy(theirs.to(torch.promote_types(dtype, torch.float32)), targets, reduction="sum")
    torch.testing.assert_close(total, expected.detach())
    assert right == int((theirs.argmax(-1) == targets).sum()) >= 100
    torch.testing.assert_close(ours, torch.autograd.grad(expected, theirs)[0])
    assert ours.data_ptr() == location


def test_of_equal_scores_the_first_is_the_likeliest():
    assert differentiate_in_place(torch.zeros(4, 9), torch.tensor([0, 3, 0, 8]))[1] == 2


def test_cross_entropy_survives_scores_that_overflow_exp():
    logits = torch.tensor([[1e4, -1e4, 0.0], [-1e30, 1e30, 0.0]], requires_grad=True)
    loss = cross_entropy(logits, torch.tensor([0, 0]))
    torch.testing.assert_close(loss, torch.tensor(1e30))
    loss.backward()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, torch.tensor([[0.0, 0.0, 0.0], [-0.5, 0.5, 0.0]]))


def test_cross_entropy_of_no_target_is_nan_as_in_torch():
    assert math.isnan(cross_entropy(torch.zeros(2, 3), torch.tensor([IGNORE, IGNORE])))
