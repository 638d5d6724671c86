"""Views of ``underhood inspect`` on representations: 80 columns, and the numbers of the library."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hf_peers import save_peer
from tiny_run import TEXT, make_run

from underhood.cli.main import main
from underhood.infer.load import load
from underhood.inspect.corpus_values import token_windows
from underhood.inspect.default_training import PROBE_CHARACTERS
from underhood.inspect.induction import induction_scores
from underhood.inspect.probe_tasks import TASKS, probe_task
from underhood.inspect.probes import probe_layers
from underhood.inspect.similarity import linear_cka, stream_values
from underhood.inspect.trace import trace
from underhood.inspect.trajectory import token_paths
from underhood.inspect.word_ranks import word_ranks

PROMPT = "The list is a mutable list of items"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "tiny")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("text") / "text.txt"
    file.write_text("\n\n".join(f"{sentence} {number}" for number in range(40) for sentence in TEXT), encoding="utf-8")
    return file


def printed(words: list[str], run: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["inspect", str(run), PROMPT, *words]) == 0
    return capsys.readouterr().out


def values(words: list[str], run: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    return json.loads(printed([*words, "--json"], run, capsys))


@pytest.mark.parametrize(
    "words",
    [
        ["--view", "words", "--words", "a", "b"],
        ["--view", "path"],
        ["--view", "path", "--against", "The cafe is a"],
        ["--view", "factors", "--layer", "1"],
        ["--view", "induction"],
    ],
)
def test_views_of_a_prompt_fit_into_80_columns(words: list[str], run: Path, capsys: pytest.CaptureFixture[str]):
    lines = printed(words, run, capsys).splitlines()
    assert len(lines) > 4
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("task", list(TASKS))
def test_probes_fit_into_80_columns_and_have_the_library_s_numbers(
    task: str, run: Path, text: Path, capsys: pytest.CaptureFixture[str]
):
    words = ["--view", "probes", "--task", task, "--text", str(text)]
    lines = printed(words, run, capsys).splitlines()
    assert max(map(len, lines)) <= 80
    shown = values(words, run, capsys)
    loaded = load(run)
    windows = token_windows(loaded, [text.read_text(encoding="utf-8")[:PROBE_CHARACTERS]])
    expected = probe_task(task, loaded, windows)
    results = probe_layers(loaded, windows, expected.labels(windows))
    assert shown["classes"] == list(expected.classes)
    assert [row["layer"] for row in shown["layers"]] == [0, 1, 2]
    for name in ("accuracy", "control", "untrained"):
        assert [row[name] for row in shown["layers"]] == pytest.approx([getattr(each, name) for each in results])
    best = max(results, key=lambda each: each.selectivity)
    assert shown["best"] == best.site
    recorded = trace(loaded, PROMPT, [best.site])
    [labels] = expected.labels([recorded.ids])
    assert [answer["position"] for answer in shown["answers"]] == [
        n for n, each in enumerate(labels) if each is not None
    ]
    for answer in shown["answers"]:
        named = int(best.probe.scores(recorded[best.site])[answer["position"]].argmax())
        assert answer["probe"] == expected.classes[named]
        assert answer["true"] == expected.classes[labels[answer["position"]] or 0]


@pytest.mark.parametrize(
    "words", [["--view", "similarity"], ["--view", "tuned"], ["--view", "features", "--layer", "1"]]
)
def test_views_of_a_text_fit_into_80_columns(
    words: list[str], run: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    words = [*words, "--text", str(text)] + ["--trained", str(tmp_path / "trained")] * ("similarity" not in words)
    lines = printed(words, run, capsys).splitlines()
    assert len(lines) > 4
    assert max(map(len, lines)) <= 80
    if "similarity" not in words:
        assert printed(words, run, capsys).splitlines() == lines  # from the file


def test_experts_of_a_prompt_and_of_a_text(tmp_path: Path, text: Path, capsys: pytest.CaptureFixture[str]):
    from underhood.core.checkpoint import module_tensors, write_checkpoint
    from underhood.core.config import to_json
    from underhood.core.files import sha256_of
    from underhood.models.hub_weights import load_decoder

    folder = make_run(tmp_path / "mixture", stages=("base",))
    save_peer("mixtral", tmp_path / "peer")
    mixture = load_decoder(tmp_path / "peer")
    spec = type(mixture.spec)(
        **{**vars(mixture.spec), "vocab_size": load(folder).spec.vocab_size},
    )
    model = spec.initialize(seed=0)
    state = {"spec": to_json(spec, tagged=True), "model": "base", "order": 0, "chats": False}
    state |= {"tokenizer": sha256_of(folder / "tokenizer.json")}
    write_checkpoint(folder / "checkpoints" / "base", 20, {"model": module_tensors(model)}, state)
    for words in ([], ["--text", str(text)]):
        lines = printed(["--view", "experts", *words], folder, capsys).splitlines()
        assert max(map(len, lines)) <= 80
        shares = values(["--view", "experts", *words], folder, capsys)["load"]
        assert [sum(row) for row in shares] == pytest.approx([1.0, 1.0])


def test_json_has_the_library_s_numbers(run: Path, text: Path, capsys: pytest.CaptureFixture[str]):
    loaded = load(run)
    recorded = trace(loaded, PROMPT)
    ranks = word_ranks(loaded, recorded, ["a", "b"], position=2)
    shown = values(["--view", "words", "--words", "a", "b", "--position", "2"], run, capsys)
    assert shown["ranks"] == ranks.ranks.tolist()
    paths = token_paths(recorded, positions=[-1])
    assert torch.allclose(torch.tensor(values(["--view", "path"], run, capsys)["points"]), paths.points, atol=1e-4)
    scores = induction_scores(loaded, length=values(["--view", "induction"], run, capsys)["length"])
    assert values(["--view", "induction"], run, capsys)["induction"] == scores.induction.tolist()
    beside = ["--view", "similarity", "--compare", str(run), "--text", str(text)]
    streams = stream_values(loaded, [text.read_text(encoding="utf-8")])
    assert values(beside, run, capsys)["values"][0][1] == pytest.approx(linear_cka(streams[0], streams[1]), abs=1e-6)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--view", "experts"], "has no experts"),
        (["--view", "probes", "--task", "words"], "no probe task 'words'"),
        (["--view", "features"], "Name its file with --trained"),
        (["--view", "words", "--words", "two tokens"], "expected one token"),
        (["--view", "factors", "--layer", "9"], "--layer is out of range; expected 0 to 1, got 9"),
        (["--view", "tuned", "--trained", "/dev/null/folder/lens"], "can't write /dev/null/folder/lens"),
        (["--view", "features", "--trained", "/dev/null/folder/features"], "Name another file with --trained"),
    ],
)
def test_mistakes_end_with_a_sentence(words: list[str], message: str, run: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["inspect", str(run), PROMPT, *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
