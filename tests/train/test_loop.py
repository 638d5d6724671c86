"""The training loop: resumes exactly, stops politely, and does not learn from nonsense."""

from __future__ import annotations

import itertools
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_training import counting_batch, digest, small_model, train
from torch import Tensor, nn

from underhood.core.checkpoint import newest, read_checkpoint
from underhood.core.errors import UserError
from underhood.core.runlog import RunLog, read_events
from underhood.data.batch import Batch
from underhood.models.decoder import Decoder
from underhood.train.loop import FitSpec, LossFn, fit
from underhood.train.loss import next_token_loss_sum
from underhood.train.optim import AdamWSpec, MuonAdamWSpec
from underhood.train.schedule import ScheduleSpec
from underhood.train.stopping import Interrupted

STEPS = 9
TOKENS = 4 * 8


def heard(log: RunLog) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    log.listeners.append(events.append)
    return events


@pytest.mark.parametrize("stop", range(1, STEPS))
def test_fit_resumed_from_any_step_is_bit_identical(tmp_path: Path, stop: int):
    whole, result = train(None, FitSpec(steps=STEPS))

    def interrupt(done: int) -> None:
        if done == stop:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted) as caught:
        train(tmp_path, FitSpec(steps=STEPS), on_step=interrupt)
    assert (caught.value.stage, caught.value.step) == ("test", stop)
    assert [path.name for path in tmp_path.iterdir()] == [f"step-{stop:08d}"]
    resumed, rest = train(tmp_path, FitSpec(steps=STEPS))
    assert digest(resumed) == digest(whole)
    assert (rest.steps, rest.tokens) == (STEPS - stop, (STEPS - stop) * TOKENS)
    assert rest.loss == result.loss


def test_fit_resumed_differs_when_batches_do_not_follow_the_step(tmp_path: Path):
    """The ablation: batches drawn in order of asking make a resumed run another run."""

    def in_order_of_asking() -> Callable[[int], Batch]:
        calls = itertools.count()
        return lambda step: counting_batch(next(calls))

    whole, _ = train(None, FitSpec(steps=STEPS), batches=in_order_of_asking())
    with pytest.raises(Interrupted):
        train(
            tmp_path,
            FitSpec(steps=STEPS),
            batches=in_order_of_asking(),
            on_step=lambda done: os.kill(os.getpid(), signal.SIGTERM) if done == 4 else None,
        )
    resumed, _ = train(tmp_path, FitSpec(steps=STEPS), batches=in_order_of_asking())
    assert digest(resumed) != digest(whole)


def test_fit_of_a_finished_run_changes_nothing(tmp_path: Path):
    whole, _ = train(tmp_path, FitSpec(steps=STEPS))
    again, result = train(tmp_path, FitSpec(steps=STEPS))
    assert digest(again) == digest(whole)
    assert (result.steps, result.tokens) == (0, 0)


def test_fit_counts_tokens_over_all_processes_and_logs_every_step(tmp_path: Path):
    log = RunLog(None)
    events = heard(log)
    train(tmp_path, FitSpec(steps=4, save_every=3, keep=9), log=log)
    train(tmp_path, FitSpec(steps=6, log_every=4), log=log)
    steps = [event for event in events if event["kind"] == "step"]
    assert [(event["step"], event["tokens"]) for event in steps] == [
        *((number, number * TOKENS) for number in (1, 2, 3, 4)),
        (6, 6 * TOKENS),  # neither 4 nor 8 comes again; the last step is always told
    ]
    assert [event["step"] for event in events if event["kind"] == "save"] == [3, 4, 6]
    path = newest(tmp_path)
    assert path is not None
    saved = read_checkpoint(path)
    assert (saved.step, saved.state["tokens"], saved.state["stage"]) == (6, 6 * TOKENS, "test")
    assert all(event["tokens_per_second"] > 0 and event["seconds_left"] >= 0 for event in steps)
    assert steps[-1]["seconds_left"] == 0


def test_fit_logs_metrics_per_target_and_the_share_of_the_hardware():
    def with_accuracy(model: Decoder, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        return next_token_loss_sum(model, batch)[0], {"answer_accuracy": batch.target_count / 2}

    log = RunLog(None)
    events = heard(log)
    train(None, FitSpec(steps=1), log=log, loss_fn=with_accuracy, flops_per_token=100.0, peak_flops=1000.0)
    assert events[0]["answer_accuracy"] == 0.5
    assert events[0]["targets"] == TOKENS
    assert events[0]["utilisation"] == pytest.approx(events[0]["tokens_per_second"] / 10)


def sometimes_broken(broken: set[int], value: float, in_gradient: bool = False) -> LossFn[Batch]:
    calls = itertools.count()

    def loss_fn(model: Decoder, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        loss, metrics = next_token_loss_sum(model, batch)
        if next(calls) not in broken:
            return loss, metrics
        if in_gradient:  # a finite loss with an infinite slope: √x at 0
            return loss + (next(model.parameters()) * 0).sum().sqrt(), metrics
        return loss * value, metrics

    return loss_fn


@pytest.mark.parametrize(
    ("value", "in_gradient"), [(math.nan, False), (math.inf, False), (-math.inf, False), (1.0, True)]
)
def test_fit_makes_no_update_from_a_loss_that_is_not_finite(value: float, in_gradient: bool):
    log = RunLog(None)
    events = heard(log)
    weights: list[str] = []
    model = small_model()
    fit(
        model,
        counting_batch,
        sometimes_broken({2, 4}, value, in_gradient),
        MuonAdamWSpec().build(model),
        FitSpec(steps=6),
        stage="test",
        log=log,
        on_step=lambda done: weights.append(digest(model)),
    )
    skipped = [event for event in events if event["kind"] == "skip"]
    assert [event["step"] for event in skipped] == [3, 5]
    assert all("gradient norm" in event["reason"] for event in skipped)
    same = [number + 1 for number in range(1, 6) if weights[number] == weights[number - 1]]
    assert same == [3, 5]
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())


def test_fit_gives_up_after_so_many_bad_steps_in_a_row_with_advice(tmp_path: Path):
    log = RunLog(None)
    events = heard(log)
    spec = FitSpec(steps=20, give_up_after=3, save_every=2)
    with pytest.raises(UserError, match=r"not finite 3 steps in a row \(last at step 9\).*learning rate"):
        train(tmp_path, spec, log=log, loss_fn=sometimes_broken({1, 2, 4, *range(6, 20)}, math.nan))
    assert [event["step"] for event in events if event["kind"] == "skip"] == [2, 3, 5, 7, 8, 9]
    path = newest(tmp_path)
    assert path is not None
    assert read_checkpoint(path).step == 8


def test_fit_clips_the_gradient_to_its_norm():
    """A plain gradient step shows the clipped gradient itself; the logged norm is the one before clipping."""
    for scale, clip in ((1e4, 0.5), (1e-4, 0.5)):
        model, log = small_model(), RunLog(None)
        before = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
        events = heard(log)
        spec = FitSpec(steps=1, clip=clip, schedule=ScheduleSpec(warmup=0, decay=0))

        def scaled(model: Decoder, batch: Batch, scale: float = scale) -> tuple[Tensor, dict[str, float]]:
            return next_token_loss_sum(model, batch)[0] * scale, {}

        fit(
            model,
            counting_batch,
            scaled,
            torch.optim.SGD(model.parameters(), lr=1.0),
            spec,
            stage="t",
            log=log,
        )
        moved = float((nn.utils.parameters_to_vector(model.parameters()).detach() - before).norm())
        assert moved == pytest.approx(min(clip, events[0]["grad_norm"]), rel=1e-3)
        assert (events[0]["grad_norm"] > clip) == (scale > 1)


def test_fit_follows_the_schedule():
    rates: list[float] = []

    class Recorder(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:
            rates.append(self.param_groups[0]["lr"])

    schedule = ScheduleSpec(warmup=0.3, decay=0.5)
    train(None, FitSpec(steps=10, schedule=schedule), optimizer=lambda model: Recorder(model.parameters(), lr=1.0))
    assert rates == [schedule.lr_factor(step, 10) for step in range(10)]


def test_fit_refuses_a_checkpoint_of_another_model(tmp_path: Path):
    train(tmp_path, FitSpec(steps=1))
    with pytest.raises(UserError, match="saved optimiser state does not belong"):
        train(tmp_path, FitSpec(steps=2), optimizer=AdamWSpec().build)


def test_fit_leaves_modes_and_signal_handlers_as_they_should_be():
    before = signal.getsignal(signal.SIGINT)
    modes: list[bool] = []
    model = small_model().eval()
    fit(
        model,
        counting_batch,
        next_token_loss_sum,
        AdamWSpec().build(model),
        FitSpec(steps=1),
        stage="t",
        log=RunLog(None),
        on_step=lambda done: modes.append(model.training),
    )
    assert modes == [True]
    assert not model.training
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("change", [{"steps": 0}, {"log_every": 0}, {"give_up_after": 0}, {"keep": 0}])
def test_fit_spec_refuses_counts_below_one(change: dict[str, int]):
    with pytest.raises(ValueError, match="must be at least 1, got 0"):
        FitSpec(**({"steps": 1} | change))


SCRIPT = """
import sys, time
from pathlib import Path
import torch
from small_training import digest, train
from underhood.core.runlog import RunLog
from underhood.train.loop import FitSpec
from underhood.train.stopping import Interrupted
torch.set_num_threads(1)
folder, slow = Path(sys.argv[1]), sys.argv[2] == "slow"

def tell(done):
    if slow:
        print(done, flush=True)
        time.sleep(0.05)

try:
    model, _ = train(folder / "checkpoints", FitSpec(steps=40), log=RunLog(folder / "events.jsonl"), on_step=tell)
    print("digest", digest(model))
except Interrupted as stopped:
    print("stopped", stopped.step)
    sys.exit(130)
"""


def test_fit_ctrl_c_saves_and_another_process_goes_on(tmp_path: Path):
    def start(speed: str, folder: Path = tmp_path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(folder), speed],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (Path(__file__).parent, *sys.path)))},
        )

    first = start("slow")
    assert first.stdout is not None
    while first.stdout.readline().strip() != "3":
        assert first.poll() is None
    first.send_signal(signal.SIGINT)
    output = first.stdout.read().split()
    assert first.wait(timeout=60) == 130
    step = int(output[output.index("stopped") + 1])
    assert 3 <= step < 40
    assert newest(tmp_path / "checkpoints") == tmp_path / "checkpoints" / f"step-{step:08d}"

    second = start("fast")
    output, _ = second.communicate(timeout=60)
    assert second.returncode == 0
    # A process of its own, too: what earlier tests have set in this one can change last digits.
    whole, _ = start("fast", tmp_path / "whole").communicate(timeout=60)
    assert output.split() == whole.split()
    assert whole.startswith("digest")
    steps = [event["step"] for event in read_events(tmp_path / "events.jsonl") if event["kind"] == "step"]
    assert steps == list(range(1, 41))
