"""Mistakes at the commands that align, judge and distil models: exit code 2, and a line that says how to mend them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from infer.tiny_run import make_run
from underhood.cli.main import main
from underhood.core.config import to_json
from underhood.core.toml import toml_text
from underhood.recipes.spec import BuildSpec

RECORDS = {
    "prompts.jsonl": {"prompt": "1+1=", "answer": "2"},
    "pairs.jsonl": {"prompt": "1+1=", "chosen": "2", "rejected": "3"},
    "chats.jsonl": {"prompt": "1+1=", "response": "2"},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that can be trained on files, one without a model, a fine-tuned model, and files."""
    folder = tmp_path_factory.mktemp("mistakes")
    make_run(folder / "run", stages=("base", "sft"))
    (folder / "begun").mkdir()
    (folder / "begun" / "run.toml").write_text(toml_text(to_json(BuildSpec())))
    shutil.copytree(folder / "run", folder / "tuned")
    (folder / "tuned" / "finetune.toml").write_text("")
    (folder / "tuned" / "run.toml").unlink(missing_ok=True)
    for name, record in RECORDS.items():
        (folder / name).write_text(json.dumps(record) + "\n")
    return folder


def complaint(words: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(words.split()) == 2
    output = capsys.readouterr().err
    assert "Traceback" not in output
    return output.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "phrases"),
    [
        # a model that has no stages
        (
            "dpo tuned",
            ["tuned holds a fine-tuned model, not a run with stages", "underhood dpo tuned --data FILE trains it"],
        ),
        ("reward tuned", ["underhood reward tuned --data FILE trains it"]),
        ("grpo tuned", ["underhood grpo tuned --data FILE --reward REWARD trains it", "build --from"]),
        ("ppo tuned --steps 2", ["underhood ppo tuned --data FILE --reward REWARD trains it"]),
        ("grpo tuned --reward number", ["takes verifiable or model", "with --data FILE --reward REWARD it trains any"]),
        ("dpo tuned --lora-rank 4", ["unknown option --lora-rank", "with --data FILE it trains any model"]),
        # options left out
        ("ppo run --data prompts.jsonl", ["--reward missing", "usage: underhood ppo MODEL"]),
        ("distill run run", ["--data missing"]),
        ("best-of run --data prompts.jsonl --out best.jsonl", ["--reward missing"]),
        ("reward run --data pairs.jsonl --score pairs.jsonl", ["--data trains and --score scores"]),
        # a run without what it takes
        *(
            (f"{verb} begun", ["begun has no finished sft model", f"{verb} starts from", "underhood sft begun"])
            for verb in ("dpo", "grpo", "ppo", "reward")
        ),
        ("dpo begun --data pairs.jsonl", ["begun has no model yet", "underhood build --out begun --resume"]),
        ("distill begun run --data chats.jsonl", ["begun has no model yet"]),
        ("best-of begun --data prompts.jsonl --reward number --out best.jsonl", ["begun has no model yet"]),
        ("reward run --score pairs.jsonl", ["there is no reward model in run", "underhood reward RUN"]),
        ("ppo run --data prompts.jsonl --reward run", ["there is no reward model in run", "underhood reward RUN"]),
        ("ppo run --data prompts.jsonl --reward numbr", ["there is no reward 'numbr'", "Did you mean number?"]),
        ("ppo nowhere --data prompts.jsonl --reward number", ["there is no run at nowhere", "There are"]),
        # a file that is not there
        ("dpo run --data pears.jsonl", ["can't read pears.jsonl: no such file", "Did you mean pairs.jsonl?"]),
        ("reward run --data pears.jsonl", ["Did you mean pairs.jsonl?"]),
        ("reward judge --score pears.jsonl", ["there is no reward model in judge"]),
        ("ppo run --data prompt.jsonl --reward number", ["Did you mean prompts.jsonl?"]),
        ("grpo run --data prompt.jsonl --reward number", ["Did you mean prompts.jsonl?"]),
        ("best-of run --data prompt.jsonl --reward number --out best.jsonl", ["Did you mean prompts.jsonl?"]),
        ("distill run run --data chat.jsonl", ["Did you mean chats.jsonl?"]),
        # a file of another kind
        ("dpo run --data prompts.jsonl", ["prompts.jsonl line 1 holds no judged answers", '"chosen"']),
        ("reward run --data prompts.jsonl", ["holds no judged answers", '"ranking"']),
        ("distill run run --data prompts.jsonl", ["prompts.jsonl line 1"]),
        ("grpo run --data pairs.jsonl --reward exact", ["line 1 has no 'answer' for the reward exact"]),
    ],
)
def test_mistake_is_named_with_how_to_mend_it(
    words: str, phrases: list[str], made: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(made)
    before = [*made.rglob("*")]
    line = complaint(words, capsys)
    for phrase in phrases:
        assert phrase in line
    left = [path for path in made.rglob("*") if path not in before and path.name != "events.jsonl"]
    assert not left, "something was left behind"
