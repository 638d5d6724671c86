"""From labelled texts to a classifier, with a bag of words in the same table."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infer.tiny_run import make_run
from underhood.align.classify import DELIMITER, ClassifierSpec, encode_texts
from underhood.cli.main import main
from underhood.core.errors import UserError
from underhood.data.labelled import read_labelled
from underhood.infer.load import load
from underhood.recipes.classification import baselines, classify_model, load_classifier, rates_of
from underhood.recipes.finetune import default_rate
from underhood.recipes.finetune_spec import ClassifySpec


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return make_run(tmp_path / "base-run", stages=("base",))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    draw, rows = random.Random(0), []
    for number in range(120):
        word = "changed" if number % 2 else "mutable"
        others = draw.sample(["list", "items", "sequence", "holds", "more", "emoji"], 4)
        rows.append(f"the {word} {' '.join(others)} {number}\t{'yes' if number % 2 else 'no'}\n")
    path = tmp_path / "marks.tsv"
    path.write_text("".join(rows))
    return path


@pytest.mark.parametrize(("how", "rank"), [("head", 0), ("head", 4), ("token", 0)])
def test_classifier_learns_and_loads_with_the_same_answers(base: Path, data: Path, tmp_path: Path, how: Any, rank: int):
    spec = ClassifySpec(
        model=str(base),
        data=(str(data),),
        how=how,
        lora_rank=rank,
        epochs=8,
        lr=0.01,  # type: ignore[arg-type]
    )
    log, work = classify_model(spec, tmp_path / "out")
    done = work()
    log.close()
    assert (done.learnt_from, done.tested_on, done.labels) == (96, 24, ("no", "yes"))
    ours, words, commonest = done.rows
    assert ours.accuracy > 0.9
    assert words.accuracy == 1.0, "one word tells the classes apart"
    assert commonest.accuracy == pytest.approx(0.5, abs=0.05)
    assert ours.low < ours.accuracy <= ours.high or ours.accuracy == 1
    again = load_classifier(tmp_path / "out")
    examples = read_labelled(data)
    actual = again.predict([first.text for first in examples])
    assert all(sum(first.values()) == pytest.approx(1, abs=1e-5) for first in actual)
    right = sum(max(first, key=first.__getitem__) == mark.label for first, mark in zip(actual, examples, strict=True))
    assert right > 0.9 * len(examples)
    assert load(tmp_path / "out").spec == load(base).spec


def test_words_and_head_learn_faster_than_blocks_unless_a_rate_is_given(base: Path):
    spec = ClassifySpec(model="x", data=("y",))
    classifier = ClassifierSpec(labels=("a", "b")).build(load(base).model.requires_grad_(True))

    def rates(spec: ClassifySpec, rank: int) -> dict[str, float]:
        built = rates_of(spec, 16, rank).build(classifier)
        names_of = {id(parameter): name for name, parameter in classifier.named_parameters()}
        actual = {names_of[id(p)]: group["lr"] for group in built.param_groups for p in group["params"]}
        assert actual.keys() == dict(classifier.named_parameters()).keys()
        names = ("head.bias", "model.embed.weight", "model.blocks.0.mixer.query.weight", "model.norm.weight")
        return {name: actual[name] for name in names}

    slow = default_rate(16, False) / 4
    assert list(rates(spec, 0).values()) == [1e-2, 2e-2, slow, slow]
    assert list(rates(spec, 8).values()) == [1e-2, *[default_rate(16, True)] * 3]
    assert set(rates(replace(spec, lr=0.5), 0).values()) == {0.5}


def test_classify_command_teaches_and_labels(
    base: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    words = ["classify", str(base), "--data", str(data), "--epochs", "8", "--lr", "0.01", "--out", "marks"]
    assert main([*words, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in report["rows"]] == [
        "base-run, a head",
        "bag of words, logistic regression",
        "always the commonest label",
    ]
    assert main(["classify", "marks", "--text", "the changed list", "the mutable list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[0] for line in lines] == ["yes", "no"]
    assert main(["classify", str(base), "--text", "x"]) == 2
    assert "is not a classifier" in capsys.readouterr().err
    assert main([*words[:-1], "other", "--text", "x"]) == 2


def test_baselines_without_scikit_learn_say_so(monkeypatch: pytest.MonkeyPatch):
    import sys

    from underhood.data.labelled import Labelled

    monkeypatch.setitem(sys.modules, "sklearn.feature_extraction.text", None)
    examples = [Labelled(f"x {n}", "ab"[n % 2], "") for n in range(10)]
    rows, notes = baselines(examples, examples)
    assert [row.name for row in rows] == ["always the commonest label"]
    assert "scikit-learn" in notes[0]


def test_a_folder_without_a_classifier_is_explained(base: Path):
    with pytest.raises(UserError, match="no classifier"):
        load_classifier(base)


def test_mistake_in_the_data_leaves_nothing_in_the_way_of_the_corrected_command(
    base: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    good = data.read_text()
    out = tmp_path / "new" / "out"
    data.write_text(good + "one more column\tthan\tthe others\n")
    words = ["classify", str(base), "--data", str(data), "--out", str(out), "--epochs", "1"]
    assert main(words) == 2
    assert "another number of columns" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
    data.write_text(good)
    assert main(words) == 0
    assert out.is_dir()


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Both words are in every pair: only which text has which tells the labels apart."""
    draw, lines = random.Random(1), ["premise\thypothesis\tlabel\n"]
    for number in range(160):
        words = ["changed", "mutable"]
        first, second = words if number % 2 else words[::-1]
        others = draw.sample(["list", "items", "sequence", "holds", "more", "emoji"], 2)
        lines.append(f"the {first} {others[0]} {number}\ta {second} {others[1]}\t{'yes' if number % 2 else 'no'}\n")
    path = tmp_path / "pairs.tsv"
    path.write_text("".join(lines))
    return path


def test_pairs_of_texts_are_told_apart_by_which_text_says_what(
    base: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "out"
    words = ["classify", str(base), "--data", str(pairs), "--out", str(out), "--text-column", "premise"]
    more = ["--second-column", "hypothesis", "--epochs", "10", "--lr", "0.01", "--pool", "last", "--json"]
    assert main([*words, *more]) == 0
    result = json.loads(capsys.readouterr().out)
    ours = result["rows"][0]
    assert ours["accuracy"] > 0.9
    given = ["the changed list\ta mutable emoji", "the mutable list\ta changed emoji"]
    assert main(["classify", str(out), "--text", *given, "--json"]) == 0
    answers = [json.loads(line)["label"] for line in capsys.readouterr().out.splitlines()]
    assert answers == ["yes", "no"]
    assert main(["classify", str(out), "--text", "only one text"]) == 2
    assert "a tab between" in " ".join(capsys.readouterr().err.split())


def test_a_long_pair_is_cut_where_it_is_longer(base: Path):
    tokenizer = load(base).tokenizer
    spec = ClassifierSpec(labels=("a", "b"), pairs=True)
    delimiter = tokenizer.encode(DELIMITER)
    long, short = ("the list of items " * 9).strip(), "more emoji"
    ids_long, ids_short = tokenizer.encode(long), tokenizer.encode(short)
    room = len(ids_short) + len(delimiter) + len(ids_short) + 3
    kept = ids_long[: len(ids_short) + 3]
    for first, second, expected in (
        (long, short, [*kept, *delimiter, *ids_short]),
        (short, long, [*ids_short, *delimiter, *kept]),
        (short, short, [*ids_short, *delimiter, *ids_short]),
    ):
        assert encode_texts(tokenizer, spec, [f"{first}\t{second}"], room) == [expected]
    [row] = encode_texts(tokenizer, spec, [f"{long}\t{long}"], room)
    assert len(row) == room
