from __future__ import annotations

import json
from pathlib import Path

import pytest
from export_run import export_run
from huggingface_hub import ModelCard
from made_run import summary

from underhood.core.errors import UserError
from underhood.evals.table import ResultsTable
from underhood.recipes.export.export import export
from underhood.recipes.finetune import finetune_model
from underhood.recipes.finetune_spec import FinetuneSpec


def test_card_says_data_evaluation_and_making_from_the_runs_own_summary(tmp_path: Path):
    run = export_run(tmp_path / "run")
    facts = summary()
    (run / "summary.json").write_text(json.dumps(facts), encoding="utf-8")
    text = export(run, stage="sft").card.read_text(encoding="utf-8")
    assert all(f"## {piece}\n" in text for piece in ("Data", "Evaluation", "How it was made", "Limits and licence"))
    table = ResultsTable.from_json(facts["results"])
    sft = next(stage for stage in table.stages if stage.stage == "sft")
    for measurement in sft.measurements:
        assert f"| {measurement.name} | {measurement.text()} | {measurement.n:,} |" in text
    assert facts["corpus"]["digest"] in text
    assert f"{facts['corpus']['train']['documents']:,} documents" in text
    assert facts["command"] in text
    assert "- sft: 420 steps" in text
    assert "- dpo:" not in text  # came after this model
    assert "Python Software Foundation License" in text


def test_card_of_a_run_without_records_admits_what_it_does_not_know(tmp_path: Path):
    text = export(export_run(tmp_path / "run"), "gguf").card.read_text(encoding="utf-8")
    assert "records nothing about its training text" in text
    assert "has not been evaluated" in text
    assert "No licence is stated" in text


@pytest.mark.parametrize("origin", ["with records", "without"])
def test_card_of_a_fine_tuned_model_says_on_what_and_what_it_changed(tmp_path: Path, origin: str):
    run, out, data = export_run(tmp_path / "run", stages=("base",)), tmp_path / "voice", tmp_path / "voice.jsonl"
    facts = summary()
    if origin == "with records":
        (run / "summary.json").write_text(json.dumps(facts), encoding="utf-8")
    data.write_text("".join(json.dumps({"prompt": f"item {n}", "response": "list"}) + "\n" for n in range(40)))
    settings = {"lora_rank": 4, "rslora": True, "steps": 3, "lr": 0.01, "context_length": 64, "stage": "base"}
    log, work = finetune_model(FinetuneSpec(model=str(run), data=str(data), **settings), out)
    done = work()
    log.close()
    text = export(out).card.read_text(encoding="utf-8")
    assert "fine-tuned on `voice.jsonl`: 34 conversations, with 2 to validate and 4 to test held out" in text
    assert "form is pairs" in text
    for name in ("validation", "test"):
        before, after = done.before[name], done.after[name]
        assert f"| {name} | {after.tokens:,} | {before.loss:.3f} | {after.loss:.3f} | " in text
        assert f" | {100 * before.accuracy:.1f} % | {100 * after.accuracy:.1f} % |" in text
    assert f"started from: `{run}`, its base model" in text
    assert f"LoRA of rank 4, alpha 8, rsLoRA, folded in ({done.trained_parameters:,} of {done.parameters:,}" in text
    assert "- sft: 3 steps of 4 rows of 64 tokens, learning rate 0.01, seed 0" in text
    assert (facts["corpus"]["digest"] in text) == (origin == "with records")
    assert ("is not recorded" in text) == (origin == "without")
    assert "sft: 420 steps" not in text  # that of the run's own fine-tuning, which this one does not start from
    assert "has not been evaluated" not in text
    (out / "results.json").write_text("{}")
    with pytest.raises(UserError, match="incomplete or damaged"):
        export(out, replace=True)


def test_front_matter_is_what_the_hub_reads(tmp_path: Path):
    run = export_run(tmp_path / "run")
    (run / "summary.json").write_text(json.dumps(summary()), encoding="utf-8")
    data = ModelCard.load(export(run).card).data.to_dict()
    assert data["library_name"] == "transformers"
    assert data["pipeline_tag"] == "text-generation"
    assert data["license"] == "other"


def test_python_in_the_card_runs_as_it_stands(tmp_path: Path):
    run = export_run(tmp_path / "run")
    for stage in ("base", "sft"):
        made = export(run, stage=stage)
        code = made.card.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
        exec(code.replace('"PATH"', repr(str(made.path))).replace("max_new_tokens=100", "max_new_tokens=3"), {})
