"""Commands of a run refuse a published model in one sentence, and runs and exports are named after the model."""

from __future__ import annotations

from pathlib import Path

import pytest
from export_run import export_run

from underhood.cli.main import main
from underhood.core.toml import toml_text
from underhood.infer.model_table import FOLDER_VARIABLE
from underhood.recipes.export.export import export
from underhood.recipes.published_run import model_stem, names_published

ALSO_OF_A_FILE = ["dpo", "grpo", "ppo", "reward"]
RUN_COMMANDS = ["pretrain", "sft", "tokenizer", "report", *ALSO_OF_A_FILE]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published")
    return export(export_run(folder / "run"), "gguf", dtype="q8_0", out=folder / "tiny.gguf").path


@pytest.fixture
def names(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A model by its file, its folder, a name of the user's table, the Hub's name, and an adapter."""
    monkeypatch.chdir(tmp_path)
    table = tmp_path / "models"
    table.mkdir()
    (table / "models.toml").write_text(toml_text({"mine": {"path": str(file)}, "far": {"path": "hf:toys/toy"}}))
    monkeypatch.setenv(FOLDER_VARIABLE, str(table))
    export(file.parent / "run", out=tmp_path / "folder")
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    return {"file": str(file), "folder": "folder", "name": "mine", "far": "far", "hub": "hf:a/b", "adapter": "adapter"}


@pytest.mark.parametrize("command", RUN_COMMANDS)
@pytest.mark.parametrize("kind", ["file", "folder", "name", "far", "hub", "adapter"])
def test_command_of_a_run_refuses_a_published_model_in_a_sentence(
    command: str, kind: str, names: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(tmp_path.rglob("*"))
    assert main([command, names[kind]]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    if command in ALSO_OF_A_FILE:
        assert f"{names[kind]} is a published model, not a run. underhood {command} {names[kind]} --data FILE" in error
        assert "trains it, build --from makes a run of it" in error
    else:
        assert f"{names[kind]} is a published model, not a run. underhood finetune trains it, build --from" in error
    assert sorted(tmp_path.rglob("*")) == before


def test_what_is_no_model_is_not_called_one(tmp_path: Path) -> None:
    for name in ("nothing", "nothing.gguf"):
        assert not names_published(tmp_path / name)
    assert not names_published(tmp_path)


@pytest.mark.parametrize(
    ("model", "stem"),
    [
        ("models/tiny.Q4_1.gguf", "tiny.Q4_1"),
        ("smollm2", "smollm2"),
        ("hf:owner/name", "name"),
        ("hf:owner/name@v1", "name"),
        ("runs/notes/", "notes"),
    ],
)
def test_model_stem_is_the_name_without_folder_suffix_and_revision(model: str, stem: str) -> None:
    assert model_stem(model) == stem


def test_export_of_a_file_or_a_name_leaves_the_place_of_the_file_alone(
    file: Path, names: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = sorted(file.parent.iterdir())
    for model, words, path in (
        (names["name"], ["--format", "gguf"], "export/mine-f16.gguf"),
        (names["file"], [], "export/tiny-hf"),
    ):
        assert main(["export", model, *words]) == 0
        assert capsys.readouterr().out == f"{path}\n"
        assert (tmp_path / path).exists()
    assert sorted(file.parent.iterdir()) == there


def test_finetune_and_classify_name_their_run_without_the_suffix(
    file: Path, names: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    marks = [f"{word} is {['bad', 'good'][n % 2]}, number {n}\t{n % 2}" for n, word in enumerate(["This", "That"] * 10)]
    (tmp_path / "marks.tsv").write_text("\n".join(marks))
    chats = [f'{{"prompt": "What is {n}?", "response": "It is {n}."}}' for n in range(12)]
    (tmp_path / "chats.jsonl").write_text("\n".join(chats))
    assert main(["classify", str(file), "--data", "marks.tsv", "--epochs", "1"]) == 0, capsys.readouterr().err
    assert main(["finetune", str(file), "--data", "chats.jsonl", "--steps", "1"]) == 0, capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["tiny-chats", "tiny-marks"]


@pytest.mark.parametrize("words", [["classify", "nowhere", "--text", "x"]])
def test_missing_classifier_is_called_missing(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(words) == 2
    assert "there is no run at nowhere" in capsys.readouterr().err
