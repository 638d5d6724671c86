"""Views over the checkpoints of a run, beside each checkpoint opened by itself."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import pytest
import torch
import torch.nn.functional as F
from tiny_run import make_run, tiny_model

import underhood
from underhood.core.checkpoint import module_tensors, newest, read_checkpoint, write_checkpoint
from underhood.core.config import to_json
from underhood.core.errors import UserError
from underhood.infer.load import LoadedModel
from underhood.inspect.induction import induction_scores
from underhood.inspect.lens import logit_lens
from underhood.inspect.probes import probe_layers
from underhood.inspect.through_training import TraceView, checkpoint_models, saved_models, through_training
from underhood.inspect.trace import Trace, trace
from underhood.inspect.training_views import (
    induction_view,
    lens_view,
    logits_view,
    loss_view,
    pattern_view,
    probability_view,
    probe_view,
    rank_view,
)
from underhood.models.decoder import Decoder

Value = TypeVar("Value")

PROMPT = "The list is a"
SNAPSHOTS = [0, 1, 3, 6]


def add_snapshot(run: Path, stage: str, step: int, seed: int) -> None:
    """A snapshot as `recipes.film` keeps them: weights alone, in float16."""
    state = read_checkpoint(run / "checkpoints" / stage / "step-00000010").state
    loaded = underhood.load(run, stage)
    model = tiny_model(loaded.tokenizer, seed)
    tensors = {name: tensor.half() for name, tensor in module_tensors(model).items()}
    facts = state | {"stage": "pretrain", "step": step, "snapshot": True}
    write_checkpoint(run / "snapshots" / stage, step, {"model": tensors}, facts, keep=1 << 20)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_run(tmp_path_factory.mktemp("runs") / "tiny")
    for seed, step in enumerate(SNAPSHOTS):
        add_snapshot(folder, "base", step, 100 + seed)
    add_snapshot(folder, "dpo", 2, 200)
    return folder


def test_checkpoints_come_in_the_order_of_training(run: Path):
    labels = [(saved.stage, saved.step) for saved in saved_models(run)]
    base = [("base", step) for step in (*SNAPSHOTS, 10)]
    assert labels == [*base, ("sft", 10), ("dpo", 2), ("dpo", 10)]
    assert [saved.step for saved in saved_models(run, ["dpo"])] == [2, 10]
    assert saved_models(run)[1].label == "base 1"


def test_values_are_those_of_each_checkpoint_by_itself(run: Path):
    history = through_training(run, PROMPT, logits_view())
    assert len(history) == 8
    for checkpoint, logits_TV in history:
        alone = underhood.load(checkpoint.path)
        assert torch.equal(logits_TV, trace(alone, PROMPT, ["logits"])["logits"])
    assert history.stacked().shape[0] == 8
    assert not torch.equal(history.values[0], history.values[1])


def test_stage_and_template_are_the_checkpoint_s_own(run: Path):
    stages = [(saved.step, loaded.stage, loaded.chats) for saved, loaded in checkpoint_models(run)]
    assert stages[0] == (0, "base", False)
    assert stages[-1] == (10, "dpo", True)


def test_twenty_checkpoints_need_one_model_and_one_reading_of_the_prompt(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = make_run(tmp_path / "run", stages=("base",))
    for number in range(19):
        add_snapshot(folder, "base", number if number < 10 else number + 1, number)
    built, read = [], []
    build, prompt_ids = Decoder.__init__, LoadedModel.prompt_ids
    monkeypatch.setattr(Decoder, "__init__", lambda self, spec: (built.append(1), build(self, spec))[1])
    monkeypatch.setattr(LoadedModel, "prompt_ids", lambda self, text: (read.append(1), prompt_ids(self, text))[1])
    told: list[tuple[int, int]] = []
    history = through_training(folder, PROMPT, lens_view(), progress=lambda done, total: told.append((done, total)))
    assert len(history) == 20
    assert (len(built), len(read)) == (1, 1)
    assert told == [(number, 20) for number in range(1, 21)]


def test_a_stage_of_another_shape_gets_a_model_of_its_own(tmp_path: Path):
    folder = make_run(tmp_path / "run", stages=("base",))
    loaded = underhood.load(folder)
    other = tiny_model(loaded.tokenizer, 5, context=64)
    state = read_checkpoint(loaded.path).state | {"spec": to_json(other.spec, tagged=True), "order": 1}
    write_checkpoint(folder / "checkpoints" / "sft", 3, {"model": module_tensors(other)}, state)
    history = through_training(folder, PROMPT, logits_view())
    assert torch.equal(history.values[1], trace(underhood.load(folder, "sft"), PROMPT, ["logits"])["logits"])


def test_ready_made_views_say_what_the_views_of_one_model_say(run: Path):
    loaded = underhood.load(run)
    ids = loaded.prompt_ids(PROMPT)
    recorded = trace(loaded, PROMPT, ["residual", "query", "key", "logits"])
    lens = logit_lens(loaded, recorded, positions=[-1])

    def last(view: TraceView[Value]) -> Value:
        return through_training(run, PROMPT, view, stages=["dpo"]).values[-1]

    assert torch.equal(last(rank_view(int(lens.ids[-1, 0, 0]))), lens.ranks[:, 0])
    assert torch.equal(last(lens_view([-1])).ids, lens.ids)
    patterns = last(pattern_view([(1, 0), (0, 1)]))
    assert torch.equal(patterns, torch.stack([recorded.pattern(1)[0], recorded.pattern(0)[1]]))
    logits_TV = recorded["logits"]
    expected = F.cross_entropy(logits_TV[:-1], torch.tensor(ids[1:]), reduction="none")
    assert torch.allclose(last(loss_view()), expected, atol=1e-5)
    wanted = logits_TV[2].log_softmax(dim=-1)[[5, 9]]
    assert torch.allclose(last(probability_view([5, 9], position=2)), wanted, atol=1e-5)


def test_induction_and_probes_are_those_of_each_checkpoint(run: Path):
    scores = through_training(run, PROMPT, induction_view(length=8), stages=["dpo"])
    alone = induction_scores(underhood.load(run), length=8)
    assert torch.equal(scores.values[-1].induction, alone.induction)
    assert not torch.equal(scores.values[0].induction, alone.induction)
    generator = torch.Generator().manual_seed(0)
    windows = torch.randint(0, 200, (20, 12), generator=generator).tolist()
    labels = [[id % 2 for id in window] for window in windows]
    probes = through_training(run, PROMPT, probe_view(windows, labels, sites=["residual.1"]), stages=["dpo"])
    [expected] = probe_layers(underhood.load(run), windows, labels, sites=["residual.1"])
    assert probes.values[-1][0].accuracy == expected.accuracy


def test_any_function_is_a_view(run: Path):
    def norm_of_the_end(loaded: LoadedModel, recorded: Trace) -> float:
        return float(recorded[f"residual.{len(loaded.decoder.blocks)}"].norm())

    history = through_training(run, PROMPT, norm_of_the_end)
    assert history.stacked().shape == (8,)
    assert len(set(history.values)) == 8


def test_a_trained_run_has_become_less_surprised(tiny_run: Path):
    history = through_training(tiny_run, "The list is a list", loss_view(), stages=["base"])
    assert len(history) >= 2
    assert history.values[-1].mean() < history.values[0].mean()


def test_history_shows_itself(run: Path):
    history = through_training(run, "<b>list</b>", rank_view(3))
    assert repr(history) == f"<8 checkpoints of {run}, base 0 to dpo 10>"
    page = history._repr_html_()
    assert "base 3" in page
    assert "&lt;b&gt;" in page
    assert "<b>list" not in page


@pytest.mark.parametrize(
    ("stages", "message"),
    [(["rlhf"], "has no rlhf model"), (["sft"], "one checkpoint .sft 10.")],
)
def test_what_is_missing_is_explained(stages: list[str], message: str, run: Path):
    with pytest.raises(UserError, match=message):
        through_training(run, PROMPT, lens_view(), stages=stages)


def test_runs_without_snapshots_are_told_what_to_do(tmp_path: Path):
    folder = make_run(tmp_path / "run", stages=("base",))
    with pytest.raises(UserError, match="Build it again"):
        through_training(folder, PROMPT, lens_view())
    with pytest.raises(UserError, match="no run at"):
        through_training(tmp_path / "nothing", PROMPT, lens_view())


def test_published_models_have_no_training(smollm2_gguf: Path):
    with pytest.raises(UserError, match="no checkpoints of its training"):
        saved_models(smollm2_gguf)


def test_damaged_snapshots_are_named(run: Path, tmp_path: Path):
    folder = make_run(tmp_path / "run", stages=("base",))
    add_snapshot(folder, "base", 1, 3)
    damaged = newest(folder / "snapshots" / "base")
    assert damaged is not None
    with (damaged / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xff")
    with pytest.raises(UserError, match="damaged"):
        through_training(folder, PROMPT, lens_view())
