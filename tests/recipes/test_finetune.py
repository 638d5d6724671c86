"""Fine-tuning a model on a file of conversations, from the command to a run that chats."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from infer.tiny_run import make_run
from underhood.align.adapter import load_adapter
from underhood.cli.main import main
from underhood.core.device import Device
from underhood.core.errors import UserError
from underhood.core.runlog import RunLog, read_events
from underhood.infer.load import load
from underhood.recipes import finetune, training
from underhood.recipes.finetune import Finetuned, default_rate, finetune_model
from underhood.recipes.finetune_spec import FinetuneSpec

QUICK: dict[str, Any] = {"epochs": 6.0, "batch_size": 2, "lr": 0.02, "context_length": 96}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return make_run(tmp_path / "base-run", stages=("base",))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "chat.jsonl"
    rows = [
        {"messages": [{"role": "user", "content": f"item {n}"}, {"role": "assistant", "content": "changed"}]}
        for n in range(40)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def tuned(spec: FinetuneSpec, out: Path) -> Finetuned:
    log, work = finetune_model(spec, out)
    done = work()
    log.close()
    return done


@pytest.mark.parametrize(
    "ways", [{"lora_rank": 0}, {"lora_rank": 8}, {"lora_rank": 8, "bits": 8}, {"lora_rank": 8, "bits": 4}]
)
def test_finetuning_teaches_the_answers_and_leaves_a_run_that_chats(
    base: Path, data: Path, tmp_path: Path, ways: dict[str, Any]
):
    spec = FinetuneSpec(model=str(base), data=str(data), **(QUICK | ways))
    done = tuned(spec, tmp_path / "out")
    assert done.form == "messages (role, content)"
    assert set(done.before) == {"validation", "test"}
    for name, before in done.before.items():
        assert done.after[name].loss < before.loss / 2
        assert done.after[name].tokens == before.tokens
    loaded = load(tmp_path / "out")
    assert (loaded.stage, loaded.step) == ("sft", done.steps)
    assert not [name for name, _ in loaded.model.named_parameters() if "lora" in name]
    assert isinstance(loaded.chat("item 3", max_tokens=8, temperature=0.0), str)
    assert (tmp_path / "out" / "adapter").exists() == (ways["lora_rank"] > 0)
    assert not (tmp_path / "out" / "training").exists()
    held_out = json.loads((tmp_path / "out" / "split.json").read_text())
    assert [len(held_out[name]) for name in ("train", "validation", "test")] == [34, 2, 4]
    share = done.trained_parameters / done.parameters
    assert (share == 1) == (ways["lora_rank"] == 0)


def test_the_adapter_on_the_base_is_the_folded_model(base: Path, data: Path, tmp_path: Path):
    tuned(FinetuneSpec(model=str(base), data=str(data), lora_rank=4, **QUICK), tmp_path / "out")
    model = load(base).model.requires_grad_(False)
    before = model(torch.arange(9)[None])
    load_adapter(model, tmp_path / "out" / "adapter")
    after = model(torch.arange(9)[None]).detach()
    assert float((after - before).abs().max()) > 0.1
    torch.testing.assert_close(after, load(tmp_path / "out").model(torch.arange(9)[None]), rtol=1e-3, atol=1e-3)


def test_an_interrupted_finetuning_goes_on_to_the_same_model(
    base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    spec = FinetuneSpec(model=str(base), data=str(data), lora_rank=4, save_every=3, steps=8, batch_size=2, lr=0.02)
    tuned(spec, tmp_path / "whole")

    class Stop(Exception):
        pass

    real = training.fit

    def stopping(*args: Any, **named: Any):
        def stop(done: int) -> None:
            if done == 5:
                raise Stop

        return real(*args, on_step=stop, **named)

    monkeypatch.setattr(training, "fit", stopping)
    with pytest.raises(Stop):
        tuned(spec, tmp_path / "cut")
    monkeypatch.undo()
    tuned(spec, tmp_path / "cut")
    notes = [event["text"] for event in read_events(tmp_path / "cut" / "events.jsonl") if event["kind"] == "note"]
    assert "resumed at step 3" in notes
    whole, cut = (load(tmp_path / name).model for name in ("whole", "cut"))
    for mine, other in zip(whole.parameters(), cut.parameters(), strict=True):
        assert torch.equal(mine, other)


def test_finetuning_refuses_what_it_would_spoil(base: Path, data: Path, tmp_path: Path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "letter.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty"):
        finetune_model(FinetuneSpec(model=str(base), data=str(data)), out)
    shutil.rmtree(out)
    finetune_model(FinetuneSpec(model=str(base), data=str(data)), out)
    with pytest.raises(UserError, match="other settings"):
        finetune_model(FinetuneSpec(model=str(base), data=str(data), seed=1), out)


def test_impossible_settings_are_named(base: Path, data: Path, tmp_path: Path):
    with pytest.raises(ValueError, match="needs a lora_rank"):
        FinetuneSpec(model="x", data="y", bits=8, lora_rank=0)
    with pytest.raises(UserError, match="longer than the model's"):
        tuned(FinetuneSpec(model=str(base), data=str(data), context_length=1000), tmp_path / "a")
    with pytest.raises(UserError, match="needs adapters"):  # so small a model would be trained whole
        tuned(FinetuneSpec(model=str(base), data=str(data), bits=8), tmp_path / "b")


def test_default_rates_meet_the_customary_ones():
    assert default_rate(4096, lora=True) == pytest.approx(2e-4)
    assert default_rate(4096, lora=False) == pytest.approx(2e-5)
    assert default_rate(256, lora=True) == pytest.approx(8e-4)


def test_run_log_tells_the_form_and_the_size(base: Path, data: Path, tmp_path: Path):
    log, work = finetune_model(FinetuneSpec(model=str(base), data=str(data), steps=1), tmp_path / "out")
    assert isinstance(log, RunLog)
    work()
    events = list(read_events(tmp_path / "out" / "events.jsonl"))
    assert any("40 conversations in the form messages" in event.get("text", "") for event in events)
    (start,) = (event for event in events if event["kind"] == "start")
    assert start["steps"] == 1


def test_mistake_in_the_data_leaves_nothing_in_the_way_of_the_corrected_command(
    base: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    good = data.read_text()
    data.write_text(good + '{"messages": 3}\n')
    words = ["finetune", str(base), "--data", str(data), "--out", str(tmp_path / "new" / "out"), "--steps", "2"]
    assert main(words) == 2
    assert "line 41" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
    data.write_text(good)
    assert main([*words, "--batch-size", "2"]) == 0


def test_mistake_empties_a_folder_that_was_there_and_keeps_it(base: Path, data: Path, tmp_path: Path):
    (tmp_path / "out").mkdir()
    data.write_text("nothing\n")
    with pytest.raises(UserError, match="line 1 is not JSON"):
        tuned(FinetuneSpec(model=str(base), data=str(data), **QUICK), tmp_path / "out")
    assert not any((tmp_path / "out").iterdir())


def test_mistake_later_on_keeps_what_was_trained(base: Path, data: Path, tmp_path: Path, monkeypatch):
    """A folder with a checkpoint is never taken back, whatever stops the second call."""
    spec = FinetuneSpec(model=str(base), data=str(data), **(QUICK | {"save_every": 2, "steps": 6}))
    monkeypatch.setattr("underhood.recipes.finetune.save_adapter", None)
    monkeypatch.setattr("underhood.recipes.finetune.write_model", None)
    with pytest.raises(TypeError):
        tuned(spec, tmp_path / "out")
    monkeypatch.undo()
    assert any((tmp_path / "out" / "training").iterdir())
    good = data.read_text()
    data.write_text("nothing\n")
    with pytest.raises(UserError, match="line 1 is not JSON"):
        tuned(spec, tmp_path / "out")
    data.write_text(good)
    assert tuned(spec, tmp_path / "out").steps == 6


def test_minutes_bound_the_training_and_the_schedule_ends_with_them(base: Path, data: Path, tmp_path: Path):
    spec = FinetuneSpec(model=str(base), data=str(data), epochs=1e6, minutes=0.03, batch_size=2, context_length=96)
    done = tuned(spec, tmp_path / "out")
    events = [event for event in read_events(tmp_path / "out" / "events.jsonl") if event["kind"] == "step"]
    assert 1 < done.steps == events[-1]["step"] == events[-1]["steps"] < 1e6
    assert events[-1]["lr_factor"] < 0.2
    (end,) = (event for event in read_events(tmp_path / "out" / "events.jsonl") if event["kind"] == "end")
    assert end["seconds"] < 10
    assert load(tmp_path / "out").step == done.steps


def test_steps_go_before_minutes(base: Path, data: Path, tmp_path: Path):
    assert tuned(FinetuneSpec(model=str(base), data=str(data), steps=3, minutes=60), tmp_path / "out").steps == 3


def test_dtype_reaches_the_products(base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    used: list[Device] = []
    real = training.fit

    def fit(*args: Any, **named: Any):
        used.append(named["device"])
        return real(*args, **named)

    monkeypatch.setattr(training, "fit", fit)
    monkeypatch.setattr(finetune, "faster_dtype", lambda name: "bfloat16")
    for number, dtype in enumerate(("float32", None)):
        spec = FinetuneSpec(model=str(base), data=str(data), steps=2, dtype=dtype, lora_rank=4)
        tuned(spec, tmp_path / str(number))
    assert [device.dtype for device in used] == ["float32", "bfloat16"]


def test_a_sample_of_the_held_out_conversations_is_scored(
    base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(finetune, "SCORED", 3)
    done = tuned(FinetuneSpec(model=str(base), data=str(data), steps=1, test=0.5), tmp_path / "out")
    whole = tuned(FinetuneSpec(model=str(base), data=str(data), steps=1, test=0.075), tmp_path / "three")
    assert done.before["test"].tokens == whole.before["test"].tokens  # every answer is as long
