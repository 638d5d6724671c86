"""Residual dropout by hooks: the right share, the same mean, nothing in evaluation, exact when resumed."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from small_training import counting_batch, digest, small_model, train
from torch import nn

from underhood.models.decoder import Decoder
from underhood.train.dropout import ResidualDropout
from underhood.train.held_out import HeldOut
from underhood.train.loop import FitSpec, fit
from underhood.train.loss import next_token_loss_sum
from underhood.train.optim import MuonAdamWSpec
from underhood.train.stopping import Interrupted


def lively_model() -> Decoder:
    """A model whose sublayers all add something: fresh ones begin with zeros."""
    model = small_model()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model.train()


def test_dropout_leaves_out_its_share_of_each_sublayer_and_keeps_the_mean():
    model = lively_model()
    block: Any = model.blocks[0]
    seen: list[torch.Tensor] = []
    dropout = ResidualDropout(0.25, seed=3)
    with dropout.applied(model):
        dropout.begin(0)
        block.feedforward.register_forward_hook(lambda module, inputs, output: seen.append(output))
        tokens = torch.randint(24, (200, 8))
        model(tokens)
    dropped = seen[0]
    zeros = float((dropped == 0).float().mean())
    assert zeros == pytest.approx(0.25, abs=0.02)
    model.eval()
    whole: list[torch.Tensor] = []
    block.feedforward.register_forward_hook(lambda module, inputs, output: whole.append(output))
    with dropout.applied(model):
        model(tokens)
    assert float((whole[0] == 0).float().mean()) < 0.001


def test_dropout_is_a_function_of_seed_and_batch_and_leaves_no_trace():
    model = lively_model()
    tokens = counting_batch(0).tokens
    plain = model(tokens)
    dropout = ResidualDropout(0.3, seed=1)
    outputs = []
    with dropout.applied(model):
        for number in (5, 6, 5):
            dropout.begin(number)
            outputs.append(model(tokens))
    assert torch.equal(outputs[0], outputs[2])
    assert not torch.equal(outputs[0], outputs[1])
    assert torch.equal(model(tokens), plain)
    with ResidualDropout(0.0, seed=1).applied(model):
        assert torch.equal(model(tokens), plain)


def dropped_training(folder: Path | None, **options: Any) -> nn.Module:
    model, dropout = small_model(), ResidualDropout(0.2, seed=7)
    optimizer = MuonAdamWSpec(matrix_lr=0.02, lr=5e-3).build(model)
    held_out = HeldOut(batches=[counting_batch(99)], loss_fn=next_token_loss_sum, evaluations=3, keep_best=True)
    from underhood.core.runlog import RunLog

    with dropout.applied(model):
        batches = dropout.batches(counting_batch)
        shared = {"stage": "test", "log": RunLog(None), "checkpoints": folder, "held_out": held_out}
        fit(model, batches, next_token_loss_sum, optimizer, FitSpec(steps=9), **shared, **options)
    return model


def test_fit_with_dropout_resumed_is_bit_identical_and_differs_from_one_without(tmp_path: Path):
    whole = dropped_training(None)

    def interrupt(done: int) -> None:
        if done == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        dropped_training(tmp_path, on_step=interrupt)
    assert digest(dropped_training(tmp_path)) == digest(whole)  # type: ignore[arg-type]
    assert digest(train(None, FitSpec(steps=9))[0]) != digest(whole)  # type: ignore[arg-type]
