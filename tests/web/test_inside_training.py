"""The page's views of training beside each checkpoint opened by itself, and models that share what need not be read."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from inside_payload import decoded, family, subject_of
from tiny_run import make_run, tiny_model

from underhood.core.checkpoint import module_tensors, read_checkpoint, write_checkpoint
from underhood.core.errors import UserError
from underhood.infer.load import load
from underhood.inspect.induction import induction_scores
from underhood.inspect.lens import logit_lens
from underhood.inspect.trace import trace
from underhood.web.inside import subjects
from underhood.web.inside.routes import start_facts
from underhood.web.inside.subjects import InsideModels
from underhood.web.inside.views import view

PROMPT = "The list is a"
STEPS = [0, 2, 5]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_run(tmp_path_factory.mktemp("runs") / "tiny")
    state = read_checkpoint(folder / "checkpoints" / "base" / "step-00000010").state
    for step in STEPS:
        model = tiny_model(load(folder).tokenizer, 50 + step)
        tensors = {name: tensor.half() for name, tensor in module_tensors(model).items()}
        write_checkpoint(folder / "snapshots" / "base", step, {"model": tensors}, state, keep=100)
    return folder


def checkpoints(models: InsideModels) -> dict[str, Path]:
    """The folder of each checkpoint by its name on the page."""
    [run] = {choice.run for choice in models.choices.values()}
    assert run is not None
    steps = {f"base@{step}": run / "snapshots" / "base" / f"step-{step:08d}" for step in STEPS}
    last = {stage: run / "checkpoints" / stage / "step-00000010" for stage in ("base", "sft", "dpo")}
    return steps | last


@pytest.mark.parametrize("position", [1, -1])
def test_training_has_the_probabilities_and_the_lens_of_each_checkpoint(run: Path, position: int):
    models = InsideModels.open(run)
    subject = models.subject("dpo", PROMPT)
    facts, arrays = decoded(view(subject, "training", {"position": position}).to_bytes())
    assert facts["ids"] == list(checkpoints(models))
    last = load(run).next(PROMPT, k=1)[0]
    followed = [*subject.ids[1:], last.id]
    assert facts["followed"][-1] == last.piece
    token = followed[position]
    for number, path in enumerate(checkpoints(models).values()):
        alone = load(path)
        with torch.no_grad():
            shares_TV = alone.decoder(torch.tensor([subject.ids]))[0].softmax(dim=-1)
        expected_T = [float(shares_TV[at, id]) for at, id in enumerate(followed)]
        assert np.allclose(arrays["probabilities"][number], expected_T, atol=1e-6)
        lens = logit_lens(alone, trace(alone, PROMPT), positions=[position], k=alone.decoder.vocab_size)
        for layer in range(len(lens.ids)):
            at = lens.ids[layer, 0].tolist().index(token)
            share = float(lens.probabilities[layer, 0, at])
            assert arrays["lens"][number, layer] == pytest.approx(share, abs=1e-6)
            more = int((lens.probabilities[layer, 0] > share).sum())
            assert abs(int(arrays["ranks"][number, layer]) - more - 1) <= 1  # rounding may swap equals
    assert np.ptp(arrays["probabilities"][:, -1]) > 1e-4


def test_training_induction_has_the_scores_of_each_checkpoint(run: Path):
    models = InsideModels.open(run)
    subject = models.subject("dpo", PROMPT)
    facts, arrays = decoded(view(subject, "training_induction", {}).to_bytes())
    length = min(50, (subject.model.context_length - len(load(run).prompt_ids(""))) // 2)
    for number, path in enumerate(checkpoints(models).values()):
        alone = induction_scores(load(path), length=length)
        assert np.allclose(arrays["scores"][number], alone.induction, atol=1e-3)
        assert facts["saved"][number] == pytest.approx(alone.first_loss - alone.second_loss, abs=1e-5)
    assert len({round(each, 4) for each in facts["saved"]}) > 1


def test_a_model_without_a_run_has_no_training(tmp_path: Path):
    subject = subject_of(family("gpt2", tmp_path))
    for name, given in (("training", {"position": 1}), ("training_induction", {})):
        with pytest.raises(UserError, match="no checkpoints of its training"):
            view(subject, name, given)
    assert start_facts(InsideModels.of(subject.loaded, "gpt2"), "a")["models"][0]["run"] is None


def test_models_of_a_run_share_their_tokenizer_and_not_their_weights(run: Path, monkeypatch: pytest.MonkeyPatch):
    models = InsideModels.open(run)
    assert models.first == "dpo"
    monkeypatch.setattr(subjects, "load", lambda *_: pytest.fail("a checkpoint was opened as a whole"))
    opened = {name: models.model(name) for name in ("dpo", *checkpoints(models))}
    monkeypatch.undo()
    assert len({id(each.tokenizer) for each in opened.values()}) == 1
    for choice, path in checkpoints(models).items():
        alone, own = load(path), opened[choice]
        for name, tensor in alone.model.state_dict().items():
            assert torch.equal(own.model.state_dict()[name], tensor), (choice, name)
        assert (own.stage, own.step, own.chats, own.path) == (alone.stage, alone.step, alone.chats, alone.path)
        assert not any(parameter.requires_grad for parameter in own.model.parameters())
    assert len({next(each.model.parameters()).data_ptr() for each in opened.values()}) == len(opened)


def test_runs_beside_each_other_keep_their_own_checkpoints(run: Path, tmp_path: Path):
    other = tmp_path / "other"
    shutil.copytree(run, other)
    models = InsideModels.open(run, beside=[other])
    own = [choice.id for choice in models.of_run(run)]
    assert own == list(checkpoints(InsideModels.open(run)))
    assert [choice.id for choice in models.of_run(other)] == [f"other:{id}" for id in own]
    beside = models.subject("other:dpo", PROMPT)
    assert view(beside, "training", {"position": 0}).facts["ids"] == [f"other:{id}" for id in own]
    assert [each["run"] for each in start_facts(models, PROMPT)["models"]] == [0] * len(own) + [1] * len(own)
