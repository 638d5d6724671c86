"""Held-out loss during training: it only looks, it keeps the best weights, and a resumed training agrees."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from small_training import VOCAB, counting_batch, digest, small_model, train
from torch import Tensor, nn

from underhood.core.checkpoint import newest, read_checkpoint
from underhood.core.runlog import RunLog
from underhood.data.batch import Batch
from underhood.train.held_out import PATIENCE, WORSE, BestWeights, HeldOut
from underhood.train.loop import FitSpec
from underhood.train.loss import next_token_loss, next_token_loss_sum
from underhood.train.stopping import Interrupted

STEPS = 16


def descending_batch(step: int) -> Batch:
    """Rows that count downwards: what a model that learns to count upwards gets worse at."""
    start_B1 = torch.randint(VOCAB, (4, 1), generator=torch.Generator().manual_seed(1000 + step))
    row_BT = (start_B1 - torch.arange(9)) % VOCAB
    return Batch(row_BT[:, :-1], row_BT[:, 1:])


def misled(**options: Any) -> HeldOut:
    """Held-out data that training soon makes worse."""
    batches = [descending_batch(number) for number in range(2)]
    return HeldOut(batches=batches, loss_fn=next_token_loss_sum, **options)


def heard(log: RunLog) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    log.listeners.append(events.append)
    return events


def test_measure_is_the_mean_over_all_targets_of_all_batches():
    second = counting_batch(2)
    batches = [counting_batch(1), Batch(second.tokens[:1, :5], second.targets[:1, :5])]
    model = small_model().train()
    measured = HeldOut(batches=batches, loss_fn=next_token_loss_sum).measure(model)
    with torch.no_grad():
        sums = [float(next_token_loss(model.eval(), batch)) * batch.target_count for batch in batches]
    assert measured["loss"] == pytest.approx(sum(sums) / (32 + 5), rel=1e-5)


def test_fit_is_bit_identical_whether_it_is_watched_or_not():
    alone, _ = train(None, FitSpec(steps=STEPS))
    shares: list[tuple[int, float]] = []
    watched, _ = train(None, FitSpec(steps=STEPS), held_out=misled(), watch=lambda *now: shares.append(now))
    assert digest(watched) == digest(alone)
    assert shares == [(step, pytest.approx(step / STEPS)) for step in range(STEPS + 1)]
    assert watched.training is alone.training


def test_fit_measures_after_the_first_step_evenly_and_at_the_end():
    log = RunLog(None)
    events = heard(log)
    train(None, FitSpec(steps=12), held_out=misled(evaluations=4), log=log)
    assert [event["step"] for event in events if event["kind"] == "eval"] == [1, 3, 6, 9, 12]


def test_fit_ends_with_the_weights_of_the_lowest_held_out_loss():
    weights: list[str] = []
    log = RunLog(None)
    events = heard(log)

    class Remembering(HeldOut):
        def measure(self, model: nn.Module, device: Any = None) -> dict[str, float]:
            weights.append(digest(model))  # type: ignore[arg-type]
            return super().measure(model, device)

    shared = misled()
    held_out = Remembering(batches=shared.batches, loss_fn=shared.loss_fn, evaluations=STEPS, keep_best=True)
    model, _ = train(None, FitSpec(steps=STEPS), held_out=held_out, log=log)
    losses = [event["loss"] for event in events if event["kind"] == "eval"]
    best = losses.index(min(losses))
    assert best < STEPS - 1, "the test must overfit"
    assert digest(model) == weights[best]
    assert [event["step"] for event in events if event["kind"] == "best"] == [best + 1]


@pytest.mark.parametrize("stop", [2, 5, 9, 13])
def test_fit_with_best_weights_resumed_is_bit_identical(tmp_path: Path, stop: int):
    whole, _ = train(None, FitSpec(steps=STEPS), held_out=misled(keep_best=True))

    def interrupt(done: int) -> None:
        if done == stop:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        train(tmp_path, FitSpec(steps=STEPS), held_out=misled(keep_best=True), on_step=interrupt)
    resumed, _ = train(tmp_path, FitSpec(steps=STEPS), held_out=misled(keep_best=True))
    assert digest(resumed) == digest(whole)
    path = newest(tmp_path)
    assert path is not None
    assert not (path / "best.safetensors").exists(), "a finished checkpoint holds its weights once"


def test_fit_ends_early_once_the_best_is_long_past(tmp_path: Path):
    spec = FitSpec(steps=60, seconds=1e6)
    held_out = misled(evaluations=30, keep_best=True)
    log = RunLog(None)
    events = heard(log)
    _, result = train(tmp_path, spec, held_out=held_out, log=log, clock=iter(range(10**6)).__next__)
    losses = [event["loss"] for event in events if event["kind"] == "eval"]
    worse = [loss > WORSE * min(losses) for loss in losses]
    assert result.last_step < 60
    assert all(worse[-PATIENCE:])
    assert not any(all(worse[end - PATIENCE : end]) for end in range(losses.index(min(losses)) + PATIENCE, len(losses)))
    path = newest(tmp_path)
    assert path is not None
    state = read_checkpoint(path).state
    assert state["step"] == state["steps"] == result.last_step
    _, rest = train(tmp_path, spec, held_out=held_out)
    assert rest.steps == 0


def test_best_weights_are_copies_of_the_first_lowest():
    weights = {"w": torch.zeros(2)}
    best = BestWeights()
    for step, loss in ((1, 2.0), (2, 1.0), (3, 1.0), (4, 3.0)):
        weights["w"].fill_(step)
        best.add(step, loss, lambda: weights)
    assert best.step == 2
    assert best.tensors is not None
    kept: Tensor = best.tensors["w"]
    assert kept.tolist() == [2.0, 2.0]
