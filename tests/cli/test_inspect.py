"""The command ``underhood inspect`` on a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_run import make_run

from underhood.cli.main import main
from underhood.infer.load import load

PROMPT = "The list is a"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "tiny")


@pytest.mark.parametrize(
    "words",
    [
        ["--view", "lens"],
        ["--view", "attention", "--layer", "1"],
        ["--view", "parts"],
        ["--view", "patch", "--against", "The cafe is a", "--answer", "a", "--other", "e"],
        ["--view", "attribution"],
        ["--view", "attribution", "--answer", "a", "--other", "e", "--position", "2"],
        ["--view", "ablate", "--ablation", "mean"],
        ["--view", "steer", "--toward", "The list", "--against", "A cafe", "--layer", "1", "--strength", "3"],
    ],
)
def test_every_view_fits_into_80_columns(words: list[str], run: Path, capsys: pytest.CaptureFixture[str]):
    prompt = PROMPT if "patch" not in words else same_length(run)
    assert main(["inspect", str(run), prompt, *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 4
    assert max(map(len, lines)) <= 80


def same_length(run: Path) -> str:
    """A prompt of as many tokens as the other one."""
    loaded = load(run)
    wanted = len(loaded.prompt_ids("The cafe is a"))
    prompt = "The list is a"
    while len(loaded.prompt_ids(prompt)) < wanted:
        prompt += " a"
    assert len(loaded.prompt_ids(prompt)) == wanted
    return prompt


def test_json_has_the_model_s_own_numbers(run: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["inspect", str(run), PROMPT, "--json"]) == 0
    last = json.loads(capsys.readouterr().out)["layers"][-1]
    expected = load(run).next(PROMPT, k=5)
    assert [share for _, share in last["tokens"]] == pytest.approx([token.probability for token in expected], abs=1e-4)
    assert [piece for piece, _ in last["tokens"]] == [token.piece for token in expected]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--view", "soul"], "expected lens, attention, parts, patch, compare"),
        (["--view", "patch"], "Give the other one with --against"),
        (["--position", "99"], "has no token 99"),
        (["--view", "attention", "--layer", "9"], "--layer is out of range; expected 0 to 1, got 9"),
        (["--view", "attention", "--layer", "-1"], "--layer is out of range; expected 0 to 1, got -1"),
        (["--view", "patch", "--against", PROMPT + " list"], "expected equally many"),
        (["--view", "compare", "--against", PROMPT + " list"], "expected equally many"),
        (["--view", "loss"], "--view loss needs --through"),
        (["--view", "parts", "--answer", "a", "--other", "a"], "--other is the same token as --answer"),
        (["--view", "attribution", "--answer", "a", "--other", "a"], "--other is the same token as --answer"),
        (
            ["--view", "steer", "--toward", "a", "--against", "b", "--strength", "nan"],
            "expected a finite number",
        ),
        (["--view", "lense"], "probes. Did you mean lens?\n"),
        (
            ["--view", "words", "--words", ""],
            "'' has no token; expected one token, most often with the blank before it.\n",
        ),
        (["--view", "parts", "--answer", "two tokens at least"], "expected one token"),
        (["--top", "0"], "--top is out of range"),
        (["--view", "ablate", "--ablation", "half"], "no ablation 'half'; expected zero or mean"),
        (["--view", "steer", "--toward", "a"], "--view steer needs two texts"),
        (["--view", "steer", "--toward", "a", "--against", "b", "--layer", "7"], "expected 0 to 2, got 7"),
        (["--view", "attribution", "--replacement", "several tokens"], "--replacement 'several tokens' is"),
    ],
)
def test_mistakes_end_with_one_sentence(words: list[str], message: str, run: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["inspect", str(run), PROMPT, *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_json_of_attribution_has_methods_and_curves(run: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["inspect", str(run), PROMPT, "--view", "attribution", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert len(values["methods"]) == 4
    for method in values["methods"]:
        assert len(method["values"]) == len(values["pieces"]) == method["counts"][-1]
        assert method["deletion"][0] == pytest.approx(values["score"], abs=1e-4)


def test_json_of_ablation_has_every_head(run: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["inspect", str(run), PROMPT, "--view", "ablate", "--json", "--top", "3"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert [len(row) for row in values["heads"]] == [2, 2]
    assert len(values["neurons"]) == 3


def test_json_of_steering_has_the_plain_text_too(run: Path, capsys: pytest.CaptureFixture[str]):
    words = ["--view", "steer", "--toward", "The list", "--against", "A cafe", "--strength", "9", "--json"]
    assert main(["inspect", str(run), PROMPT, *words]) == 0
    texts = json.loads(capsys.readouterr().out)["texts"]
    assert list(texts) == ["0.0", "9.0", "-9.0"]
    assert texts["0.0"] != texts["9.0"]
