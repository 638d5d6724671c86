"""`underhood translate`: trains on pairs, goes on after an interruption, translates, and says what is wrong."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from underhood.cli.main import main
from underhood.infer.translator import load_translator
from underhood.recipes.translation import train_translator
from underhood.recipes.translation_spec import TranslateSpec
from underhood.train import loop
from underhood.train.stopping import Interrupted

SIZES = ["--d-model", "16", "--layers", "1", "--heads", "2", "--batch-tokens", "400", "--dtype", "float32"]
WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pairs") / "pairs.tsv"
    lines = [f"{a} {b}\t{b} {a}" for a in WORDS for b in WORDS]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def trained(pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "swap"
    assert main(["translate", str(out), "--data", str(pairs), "--steps", "30", "--lr", "0.01", *SIZES]) == 0
    return out


def test_training_leaves_a_translator_and_what_it_measured(trained: Path) -> None:
    results = json.loads((trained / "results.json").read_text())
    assert results["learnt_from"] + results["tested_on"] == 100
    assert 0 <= results["low"] <= results["exact"] <= results["high"] <= 1
    assert results["signature"].startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert results["steps"] == 30
    assert not (trained / "training").exists()
    translator = load_translator(trained)
    texts = ["one two", "ten", "seven eight"]
    together = translator.translate(texts, n=2)
    for text, best in zip(texts, together, strict=True):
        assert translator.translate([text], n=2)[0][0].text == best[0].text
        assert best[0].score >= best[1].score


def test_texts_come_from_arguments_or_lines_of_standard_input(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["translate", str(trained), "one two", "three ten", "--beams", "2"]) == 0
    given = capsys.readouterr().out
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"one two\n\nthree ten\n")))
    assert main(["translate", str(trained), "--beams", "2"]) == 0
    assert capsys.readouterr().out == given
    assert main(["translate", str(trained), "one two", "--n", "3", "--json", "--penalty", "gnmt"]) == 0
    [line] = capsys.readouterr().out.splitlines()
    scores = [each["score"] for each in json.loads(line)["translations"]]
    assert scores == sorted(scores, reverse=True)
    assert len(scores) == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["RUN", "x" * 500], "not in the vocabulary|too long"),
        (["RUN", "one " * 200], "too long for this model"),
        (["RUN", " "], "the text is empty"),
        (["RUN", "one", "--n", "9"], "--n is out of range"),
        (["RUN", "one", "--beams", "0"], "beams|--n is out of range"),
        (["RUN", "one", "--data", "PAIRS"], "--data trains"),
        (["RUN", "--data", "PAIRS"], "other settings"),
        (["NOWHERE", "one"], "holds no translator"),
        (["NOWHERE", "--data", "missing.tsv"], "missing.tsv"),
        (["NOWHERE", "--data", "PAIRS", "--heads", "3"], "multiple of heads"),
        (["NOWHERE", "--data", "PAIRS", "--minutes", "0"], "minutes"),
    ],
)
def test_mistakes_end_with_code_2_and_a_sentence(
    trained: Path, pairs: Path, tmp_path: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    named = {"RUN": str(trained), "PAIRS": str(pairs), "NOWHERE": str(tmp_path / "nowhere")}
    assert main(["translate", *(named.get(word, word) for word in words)]) == 2
    error = capsys.readouterr().err
    assert re.search(message, " ".join(error.split()))
    assert "Traceback" not in error
    assert not (tmp_path / "nowhere").exists()


def test_interrupted_training_ends_as_one_that_was_not(
    pairs: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = TranslateSpec(
        data=(str(pairs),), steps=12, d_model=16, layers=1, heads=2, batch_tokens=400, dtype="float32", average=2
    )
    log, work = train_translator(spec, tmp_path / "whole")
    whole = work()
    real = loop.save_training_state

    def killed(*words: Any, **more: Any) -> Path:
        path = real(*words, **more)
        if words[3].step == 5:
            raise Interrupted("translate", 5)
        return path

    monkeypatch.setattr(loop, "save_training_state", killed)
    log, work = train_translator(spec, tmp_path / "stopped")
    with pytest.raises(Interrupted):
        work()
    log.close()
    monkeypatch.setattr(loop, "save_training_state", real)
    assert main(["translate", str(tmp_path / "stopped"), "one"]) == 2  # it is not ready
    _, work = train_translator(spec, tmp_path / "stopped")
    assert work().loss == pytest.approx(whole.loss, abs=1e-6)
    first, second = (load_translator(tmp_path / name).model.state_dict() for name in ("whole", "stopped"))
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor)
