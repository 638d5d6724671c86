from __future__ import annotations

import json
from pathlib import Path

from export_run import export_run
from huggingface_hub import ModelCard
from made_run import summary

from underhood.evals.table import ResultsTable
from underhood.recipes.export.export import export


def test_card_says_data_evaluation_and_making_from_the_runs_own_summary(tmp_path: Path):
    run = export_run(tmp_path / "run")
    facts = summary()
    (run / "summary.json").write_text(json.dumps(facts), encoding="utf-8")
    text = export(run, stage="sft").card.read_text(encoding="utf-8")
    assert all(f"## {part}\n" in text for part in ("Data", "Evaluation", "How it was made", "Limits and licence"))
    table = ResultsTable.from_json(facts["results"])
    sft = next(stage for stage in table.stages if stage.stage == "sft")
    for one in sft.measurements:
        assert f"| {one.name} | {one.text()} | {one.n:,} |" in text
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
