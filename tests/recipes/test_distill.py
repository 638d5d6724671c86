"""Distillation from the command to a run that chats: three methods, resumption, and what can't be distilled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from infer.tiny_run import TEXT, make_run, tiny_model
from underhood.cli.main import main
from underhood.core.checkpoint import module_tensors, write_checkpoint
from underhood.core.config import to_json
from underhood.core.errors import UserError
from underhood.core.files import sha256_of
from underhood.core.runlog import read_events
from underhood.infer.load import load
from underhood.recipes import training
from underhood.recipes.distill import ANSWERS_FILE, Distilled, distill_model, same_tokens
from underhood.recipes.finetune import finetune_model
from underhood.recipes.finetune_spec import DistillSpec, FinetuneSpec
from underhood.recipes.open_run import open_run
from underhood.text.bpe import train_bpe

QUICK: dict[str, Any] = {"epochs": 6.0, "batch_size": 2, "lr": 0.02, "context_length": 96, "answer_tokens": 12}


def write_chat(path: Path, answer: str) -> Path:
    turns = (
        [{"role": "user", "content": f"item {n}"}, {"role": "assistant", "content": answer.format(n % 2)}]
        for n in range(40)
    )
    path.write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in turns))
    return path


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A teacher that has learnt to say "changed", a student that has not, and questions with other answers."""
    folder = tmp_path_factory.mktemp("models")
    student = make_run(folder / "student", stages=("base",))
    taught = FinetuneSpec(
        model=str(student), data=str(write_chat(folder / "taught.jsonl", "changed")), **without_answers(QUICK)
    )
    log, work = finetune_model(taught, folder / "teacher")
    work()
    log.close()
    return {
        "student": make_run(folder / "other", stages=("x", "base")),
        "teacher": folder / "teacher",
        "data": write_chat(folder / "data.jsonl", "The list {}"),
    }


def without_answers(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name != "answer_tokens"}


def spec_of(models: dict[str, Path], **settings: Any) -> DistillSpec:
    named = {"teacher": str(models["teacher"]), "model": str(models["student"]), "data": str(models["data"])}
    return DistillSpec(**{**named, **QUICK, **settings})


def distilled(spec: DistillSpec, out: Path) -> Distilled:
    log, work = distill_model(spec, out)
    done = work()
    log.close()
    return done


@pytest.mark.parametrize(
    "ways",
    [
        {"lora_rank": 0, "epochs": 3.0},
        *(
            pytest.param(ways, marks=pytest.mark.slow)
            for ways in ({"lora_rank": 8}, {"divergence": "jsd"}, {"temperature": 2.0, "label_weight": 0.1})
        ),
    ],
)
def test_soft_labels_bring_the_student_to_the_teacher(models: dict[str, Path], tmp_path: Path, ways: dict[str, Any]):
    done = distilled(spec_of(models, **ways), tmp_path / "out")
    steps = [event for event in read_events(tmp_path / "out" / "events.jsonl") if event["kind"] == "step"]
    assert steps[-1]["soft_loss"] < 0.5 * steps[0]["soft_loss"]
    assert steps[-1]["teacher_agreement"] > steps[0]["teacher_agreement"]
    assert set(done.teacher) == {"validation", "test"}
    assert done.teacher_parameters == done.parameters
    loaded = load(tmp_path / "out")
    assert (loaded.stage, loaded.step) == ("distill", done.steps)
    assert isinstance(loaded.chat("item 3", max_tokens=8, temperature=0.0), str)
    assert not [name for name, _ in loaded.model.named_parameters() if "lora" in name]
    assert json.loads((tmp_path / "out" / "results.json").read_text())["method"] == "soft"
    opened = open_run(tmp_path / "out")
    assert opened.models == ["distill"]
    assert isinstance(opened.spec, DistillSpec)


@pytest.mark.slow
def test_sequence_level_distillation_teaches_the_teachers_answers(models: dict[str, Path], tmp_path: Path):
    out = tmp_path / "out"
    done = distilled(spec_of(models, method="sequence"), out)
    lines = [json.loads(line) for line in (out / ANSWERS_FILE).read_text().splitlines()]
    assert len(lines) > 20
    assert {line["messages"][-1]["content"] for line in lines} == {"changed"}
    assert load(out).chat("item 31", max_tokens=8, temperature=0.0) == "changed"
    assert done.steps > 0


@pytest.mark.slow
def test_on_policy_distillation_lowers_the_divergence_on_the_students_own_answers(
    models: dict[str, Path], tmp_path: Path
):
    spec = spec_of(models, method="on-policy", divergence="forward-kl", steps=40, answer_tokens=6, batch_size=4)
    distilled(spec, tmp_path / "out")
    steps = [event for event in read_events(tmp_path / "out" / "events.jsonl") if event["kind"] == "step"]
    first, last = (sum(step["soft_loss"] for step in some) for some in (steps[:4], steps[-4:]))
    assert last < 0.5 * first


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings", [{"method": "soft", "lora_rank": 4}, {"method": "on-policy"}, {"method": "sequence"}]
)
def test_an_interrupted_distillation_goes_on_to_the_same_model(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
):
    spec = spec_of(models, save_every=3, steps=8, **settings)
    distilled(spec, tmp_path / "whole")

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
        distilled(spec, tmp_path / "cut")
    monkeypatch.undo()
    distilled(spec, tmp_path / "cut")
    notes = [event["text"] for event in read_events(tmp_path / "cut" / "events.jsonl") if event["kind"] == "note"]
    assert "resumed at step 3" in notes
    whole, cut = (load(tmp_path / name).model for name in ("whole", "cut"))
    for mine, other in zip(whole.parameters(), cut.parameters(), strict=True):
        assert torch.equal(mine, other)


@pytest.mark.slow
def test_other_tokenizers_are_told_and_only_texts_cross_them(models: dict[str, Path], tmp_path: Path):
    other = tmp_path / "other"
    other.mkdir()
    tokenizer = train_bpe([*reversed(TEXT), "Entirely different words make different merges here."], vocab_size=290)
    assert not same_tokens(load(models["teacher"]).tokenizer, tokenizer)
    tokenizer.save(other / "tokenizer.json")
    (other / "run.toml").write_text("")
    model = tiny_model(tokenizer, seed=5)
    state = {
        "spec": to_json(model.spec, tagged=True),
        "model": "base",
        "order": 0,
        "chats": False,
        "tokenizer": sha256_of(other / "tokenizer.json"),
    }
    write_checkpoint(other / "checkpoints" / "base", 1, {"model": module_tensors(model)}, state)
    for method in ("soft", "on-policy"):
        with pytest.raises(UserError, match="different tokenizers") as error:
            distilled(spec_of(models, model=str(other), method=method), tmp_path / "out")
        assert "--method sequence" in str(error.value)
        assert not (tmp_path / "out").exists()
    done = distilled(spec_of(models, model=str(other), method="sequence"), tmp_path / "out")
    assert done.teacher == {}


def test_a_teacher_whose_answers_are_all_cut_is_told(models: dict[str, Path], tmp_path: Path):
    with pytest.raises(UserError, match="no answer to learn from") as error:
        distilled(spec_of(models, method="sequence", answer_tokens=1), tmp_path / "out")
    assert "reached the limit" in str(error.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"jsd_beta": 1.0}, "the ends left out"),
        ({"method": "on-policy", "label_weight": 0.5}, "the data's own answers"),
        ({"samples": 3}, "samples above 1"),
        ({"answer_tokens": 0}, "at least 1"),
    ],
)
def test_impossible_settings_are_named(models: dict[str, Path], settings: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        spec_of(models, **settings)


def test_the_command_prints_teacher_and_student(
    models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    words = ["distill", str(models["teacher"]), str(models["student"]), "--data", str(models["data"]), "--steps", "2"]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    assert "teacher" in capsys.readouterr().out
    assert main([*words, "--out", str(tmp_path / "json"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 2
    assert main([*words, "--out", str(tmp_path / "bad"), "--label-weight", "1", "--method", "sequence"]) == 2
