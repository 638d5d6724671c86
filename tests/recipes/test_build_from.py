"""`underhood build --from MODEL`: a tiny published model through all stages, resumed, trained whole, and refused."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from published import make_published
from tinytext import write_notes
from underhood.align.adapter import load_adapter, names_of
from underhood.cli.main import main
from underhood.core.checkpoint import newest, read_checkpoint
from underhood.core.runlog import RunLog, read_events
from underhood.data.grounded import has_passage
from underhood.data.instruct import Example
from underhood.infer.load import load
from underhood.infer.tokenizer_files import load_tokenizer_files
from underhood.models.huggingface import FAMILIES
from underhood.recipes.evaluation import EvalSize
from underhood.recipes.export.export import export
from underhood.recipes.run import Run
from underhood.recipes.training_data import TEXT, UNFINISHED, read_stage_data, render_examples
from underhood.recipes.tuned_run import copy_tokenizer_files
from underhood.recipes.tuning_data import SHARES, in_proportion
from underhood.retrieve.retriever import open_retriever
from underhood.retrieve.template import TUNED
from underhood.text.chat import CHATML
from underhood.text.hf_chat_template import ForeignTemplate

QUICK = ("--minutes", "0.1", "--threads", "1", "--sft-steps", "6", "--context-length", "256")

pytestmark = pytest.mark.usefixtures("quick_measurements")


@pytest.fixture(scope="module")
def quick_measurements(quick_builds: None):
    """Few items are measured, and the speed of a training step is not timed."""
    size = EvalSize(
        questions=0, pairs=0, answers=2, grounded=2, held_out_tokens=600, answer_tokens=8, grounded_tokens=8
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("underhood.recipes.tuning_plan.tuning_speed", lambda *_: 5000.0)
        patch.setattr("underhood.recipes.evaluate_run.tuning_eval_size", lambda *_: size)
        patch.setattr("underhood.recipes.tuning_data.ANSWER_TOKENS", 6)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("from")
    make_published(folder / "model", "qwen2", context=512)
    write_notes(folder / "notes")
    return folder


def build(folder: Path, out: str, *words: str) -> int:
    here = Path.cwd()
    os.chdir(folder)
    try:
        return main(["build", "--out", out, *words])
    finally:
        os.chdir(here)


@pytest.fixture(scope="module")
def run(folder: Path, quick_measurements: None) -> Path:
    """The build that nobody interrupts."""
    assert build(folder, "run", "--from", "model", "--data", "notes", *QUICK) == 0
    return folder / "run"


def tensors(run: Path, model: str) -> dict[str, Tensor]:
    path = newest(run / "checkpoints" / model)
    assert path is not None
    return read_checkpoint(path).tensors("model")


def test_a_run_from_a_model_holds_it_as_it_was_and_as_it_is(run: Path, folder: Path):
    published, before = load(folder / "model"), load(run, "before")
    tokens = torch.arange(20)
    torch.testing.assert_close(before(tokens), published(tokens), rtol=0, atol=0)
    tuned = load(run)
    assert (tuned.stage, tuned.step, tuned.retrieval) == ("sft", 6, "tuned")
    assert not torch.equal(tuned(tokens), before(tokens))
    assert isinstance(tuned.template, ForeignTemplate)
    assert tuned.template.source == published.template.source  # type: ignore[union-attr]
    assert tuned.tokenizer.encode("os.path.join") == published.tokenizer.encode("os.path.join")
    retriever = open_retriever(tuned)
    assert retriever is not None
    assert retriever.template is TUNED


def test_the_adapters_beside_it_make_the_tuned_model_of_the_one_before(run: Path):
    model = load(run, "before").model
    load_adapter(model, run / "adapters" / "sft", names=names_of(run))
    tokens = torch.arange(30)[None]
    torch.testing.assert_close(model(tokens), load(run).model(tokens), rtol=1e-4, atol=1e-4)


def test_the_model_before_is_the_first_column_and_sft_is_compared_with_it(run: Path):
    summary = json.loads((run / "summary.json").read_text())
    table = summary["results"]
    assert [stage["stage"] for stage in table["stages"]] == ["before", "sft"]
    names = [{each["name"] for each in stage["measurements"]} for stage in table["stages"]]
    assert names[0] == names[1] >= {"bits per byte", "right answers, retrieval", "right answers, quoting"}
    assert {(each["before"], each["after"]) for each in table["comparisons"]} == {("before", "sft")}
    assert table["baselines"] == []
    assert [stage["stage"] for stage in json.loads((run / "plan.json").read_text())["plan"]["stages"]] == ["sft"]
    assert "--from model" in summary["command"]
    shown = [sample for sample in summary["samples"] if sample["kind"] == "chat"]
    assert all(set(sample["answers"]) == {"before", "sft"} for sample in shown)
    assert len(shown) == 2


def test_the_report_opens_and_speaks_of_both(run: Path):
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "Before" in page
    assert "fine-tuned from model" in page


def stop_at(patch: pytest.MonkeyPatch, stage: str, kind: str, step: int | None) -> None:
    original = RunLog.event

    def event(self: RunLog, *words: str, **fields: Any) -> dict[str, Any]:
        record = original(self, *words, **fields)
        if words == (stage, kind) and fields.get("step") == step:
            os.kill(os.getpid(), signal.SIGINT)
        return record

    patch.setattr(RunLog, "event", event)


@pytest.mark.parametrize(
    ("stage", "kind", "step"), [("tokenizer", "end", None), ("sft", "step", 3), ("eval", "start", None)]
)
def test_a_build_from_a_model_goes_on_to_the_same_weights(stage: str, kind: str, step: int | None, run: Path):
    out, before = f"stopped-{stage}-{kind}", signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.MonkeyPatch.context() as patch:
            stop_at(patch, stage, kind, step)
            assert build(run.parent, out, "--from", "model", "--data", "notes", *QUICK) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert build(run.parent, out, "--resume") == 0
    whole, resumed = tensors(run, "sft"), tensors(run.parent / out, "sft")
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    events = list(read_events(run.parent / out / "events.jsonl"))
    steps = [event["step"] for event in events if (event["stage"], event["kind"]) == ("sft", "step")]
    assert steps == [*range(1, 7)]


def test_all_weights_learn_with_rank_0(folder: Path):
    assert build(folder, "whole", "--from", "model", "--data", "notes", *QUICK, "--lora-rank", "0") == 0
    before, after = tensors(folder / "whole", "before"), tensors(folder / "whole", "sft")
    assert all(not torch.equal(before[name], after[name]) for name in before)
    assert not (folder / "whole" / "adapters").exists()


def test_continued_pretraining_and_preferences_are_stages_where_they_are_asked_for(folder: Path):
    words = ["--continue-pretraining", "--pretrain-steps", "2", "--dpo-steps", "2", "--lora-rank", "2"]
    assert build(folder, "all", "--from", "model", "--data", "notes", *QUICK, *words) == 0
    table = json.loads((folder / "all" / "summary.json").read_text())["results"]
    assert [stage["stage"] for stage in table["stages"]] == ["before", "base", "sft", "dpo"]
    compared = {(each["before"], each["after"]) for each in table["comparisons"]}
    assert compared >= {("before", "base"), ("base", "sft"), ("sft", "dpo")}
    assert len(table["baselines"]) > 2
    weights = [
        tensors(folder / "all", model)["blocks.0.mixer.query.weight"] for model in ("before", "base", "sft", "dpo")
    ]
    for earlier, later in itertools.pairwise(weights):
        assert not torch.equal(earlier, later)
        assert torch.linalg.matrix_rank(later - earlier, atol=1e-6) <= 2


def test_an_exported_run_is_the_model_of_its_family_again(run: Path, tmp_path: Path):
    folder = export(run, out=tmp_path / "hf").path
    tokens = torch.arange(20)
    torch.testing.assert_close(load(folder)(tokens), load(run)(tokens), rtol=1e-5, atol=1e-5)
    assert "fine-tuned to answer questions" in (folder / "README.md").read_text(encoding="utf-8")


def test_stages_of_the_run_are_commands_too(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    assert main(["sft", str(copy), "--restart", "--steps", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 3
    assert main(["sft", str(copy), "--steps", "5", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["before"] == 3
    assert main(["eval", str(copy), "--json"]) == 0
    assert [stage["stage"] for stage in json.loads(capsys.readouterr().out)["stages"]] == ["before", "sft"]
    assert main(["dpo", str(copy), "--steps", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model"] == "dpo"
    assert main(["eval", str(copy), "--json"]) == 0
    assert [stage["stage"] for stage in json.loads(capsys.readouterr().out)["stages"]] == ["before", "sft", "dpo"]


def test_a_build_from_a_run_of_ours_keeps_its_tokenizer(tiny_run: Path, folder: Path):
    shutil.copytree(tiny_run, folder / "ours")
    words = ["--from", "ours", "--data", "notes", "--minutes", "0.1", "--threads", "1", "--sft-steps", "2"]
    assert build(folder, "second", *words) == 0
    ours, second = load(folder / "ours"), load(folder / "second")
    assert second.tokenizer.encode("harbour") == ours.tokenizer.encode("harbour")
    assert second.retrieval == "tuned"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--from", "model", "--d-model", "64"], "--d-model is given by the model of --from"),
        (["--lora-rank", "4"], "--lora-rank only goes with --from"),
        (["--continue-pretraining"], "--continue-pretraining only goes with --from"),
        (["--from", "nowhere"], "nowhere"),
    ],
)
def test_what_does_not_fit_is_refused_and_leaves_nothing(
    words: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
):
    assert build(folder, "refused", "--data", "notes", "--minutes", "0.1", *words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (folder / "refused").exists()


def test_every_stretch_of_the_examples_has_the_mixture():
    pair = (Example((), "describe", "a"), Example((), "parameters", "a"))
    groups = {"contrasted": [pair], "unanswered": [(Example((), "unanswered", name),) for name in "bc"]}
    stream = in_proportion(groups | {"sentence": []}, seed=3)
    drawn = list(itertools.islice(stream, 3000))
    share = SHARES["contrasted"] / (SHARES["contrasted"] + SHARES["unanswered"])
    for stretch in (drawn[:1000], drawn[1000:]):
        expected = 2 * share / (2 * share + 1 - share)
        contrasted = [each.kind for each in stretch if each.kind != "unanswered"]
        assert len(contrasted) / len(stretch) == pytest.approx(expected, abs=0.06)
    kinds = [each.kind for each in drawn]
    assert all(kinds[n + 1] == "parameters" for n, kind in enumerate(kinds[:-1]) if kind == "describe")
    assert {each.function for each in drawn} == {"a", "b", "c"}


def test_plain_text_is_learnt_whole_and_without_the_template(run: Path):
    opened = Run.open(run)
    texts = [each for each in read_stage_data(run / "data").examples if each.kind == TEXT]
    assert len({each.answer for each in texts}) >= 3  # how many are drawn into so few examples is chance
    [rendered] = render_examples(opened.tokenizer, texts[:1], opened.template or CHATML)
    assert rendered.ids == [opened.end_id, *opened.tokenizer.encode(texts[0].answer)]
    assert all(rendered.mask)


def test_what_is_rehearsed_is_the_model_s_own_answer_and_its_missing_end_is_not_learnt(run: Path, folder: Path):
    opened = Run.open(run)
    template = opened.template
    assert template is not None
    published = load(folder / "model")
    talks = [each for each in read_stage_data(run / "data").examples if each.kind in ("talk", UNFINISHED)]
    assert talks
    end = template.stop_ids(opened.tokenizer)[0]
    for talk in [talk for talk in talks if not has_passage(talk)][:5]:
        answer = published.chat(talk.question, max_tokens=6, temperature=0.0)
        assert answer.strip() == talk.answer
        [rendered] = render_examples(opened.tokenizer, [talk], template)
        learnt = [id for id, mask in zip(rendered.ids, rendered.mask, strict=True) if mask]
        assert (learnt[-1] == end) == (talk.kind == "talk")


def test_the_tokenizer_of_a_gguf_file_is_kept_in_the_files_of_a_folder(smollm2_gguf: Path, tmp_path: Path):
    loaded = load(smollm2_gguf)
    copy_tokenizer_files(loaded, tmp_path)
    tokenizer, template, roles = load_tokenizer_files(tmp_path, loaded.spec.vocab_size)
    texts = ["What does `os.path.join` do?", "naïve café 12,345\n\n  spaces\t", "<|im_end|> typed", "日本語 🙂"]
    assert tokenizer.encode_batch(texts) == loaded.tokenizer.encode_batch(texts)
    assert tokenizer.special == loaded.tokenizer.special
    assert roles == loaded.roles
    talk = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    assert template is not None
    assert loaded.template is not None
    assert template.render(tokenizer, talk) == loaded.template.render(loaded.tokenizer, talk)
    assert names_of(tmp_path) == FAMILIES["llama"].names
