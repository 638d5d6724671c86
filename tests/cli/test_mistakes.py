"""A user's mistakes at ``underhood build``: exit code 2, one line that says what to do, nothing left behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tinyrun import underhood
from tinytext import write_notes
from underhood.cli.main import main

Mistake = Callable[..., str]


@pytest.fixture
def mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Mistake:
    """Builds with the given options in a new folder and returns the one line; nothing may be left of the run."""
    monkeypatch.chdir(tmp_path)

    def build(*words: str, verb: str = "build", out: str = "made/for/this") -> str:
        before = sorted(tmp_path.rglob("*"))
        location = ["--out", out] if verb == "build" else [out]
        assert main([verb, *location, *words]) == 2
        output = capsys.readouterr()
        assert output.err.count("\n") == 1, output.err
        assert "Traceback" not in output.err
        assert sorted(tmp_path.rglob("*")) == before, "something was left behind"
        return output.err.removesuffix("\n")

    return build


def lines(count: int) -> list[str]:
    return [
        '{"text": "' + f"Line {number} says how many lanterns hang in the harbour tonight. " * 3 + '"}'
        for number in range(count)
    ]


def test_empty_file(mistake: Mistake, tmp_path: Path):
    (tmp_path / "empty.txt").write_bytes(b"")
    assert mistake("--data", "empty.txt").startswith("error: empty.txt is empty")


def test_file_of_spaces(mistake: Mistake, tmp_path: Path):
    (tmp_path / "spaces.md").write_text(" \n\n\t\n" * 9000)
    assert "spaces.md is empty" in mistake("--data", "spaces.md")


def test_binary_file(mistake: Mistake, tmp_path: Path):
    (tmp_path / "picture.txt").write_bytes(bytes(range(256)) * 200)
    assert "picture.txt" in mistake("--data", "picture.txt")


def test_file_of_an_unknown_kind(mistake: Mistake, tmp_path: Path):
    (tmp_path / "talk.mp3").write_bytes(b"ID3" * 9000)
    line = mistake("--data", "talk.mp3")
    assert "talk.mp3" in line
    assert ".parquet" in line


def test_broken_json_line_is_named_by_number(mistake: Mistake, tmp_path: Path):
    broken = lines(400)
    broken[211] = '{"text": "never closed'
    (tmp_path / "lines.jsonl").write_text("\n".join(broken))
    assert "line 212" in mistake("--data", "lines.jsonl")


def test_missing_field_names_what_is_there(mistake: Mistake, tmp_path: Path):
    (tmp_path / "lines.jsonl").write_text("\n".join(lines(400)))
    line = mistake("--data", "lines.jsonl", "--text-field", "body")
    assert "body" in line
    assert "text" in line


def test_text_shorter_than_one_context(mistake: Mistake, tmp_path: Path):
    (tmp_path / "short.txt").write_text("Too short to learn from. " * 20)
    line = mistake("--data", "short.txt")
    assert "too short" in line
    assert "499 bytes" in line


def test_data_that_is_not_there_names_its_neighbour(mistake: Mistake, tmp_path: Path):
    write_notes(tmp_path / "notes")
    assert mistake("--data", "note").endswith("Did you mean notes?")
    assert mistake("--data", "pydoc").endswith("Did you mean 'pydocs'?")


def test_folder_below_a_file_can_not_be_written(mistake: Mistake, tmp_path: Path):
    (tmp_path / "file").write_text("x")
    assert mistake("--data", "pydocs", out="file/run").startswith("error: can't write file/run")
    assert mistake("--data", "pydocs", out="file").startswith("error: file is a file")


def test_read_only_place_can_not_be_written(mistake: Mistake):
    """/proc refuses folders even to root."""
    if not Path("/proc/self").exists():
        pytest.skip("needs a /proc file system")
    assert mistake("--data", "pydocs", out="/proc/self/run").startswith("error: can't make /proc/self/run")


def test_folder_with_other_things_is_left_alone(mistake: Mistake, tmp_path: Path):
    write_notes(tmp_path / "notes", documents=2)
    assert "notes is not empty" in mistake("--data", "notes", out="notes")


def test_folder_with_a_run_is_left_alone(mistake: Mistake, copy_of_tiny_run: Path):
    assert "already holds a run" in mistake("--data", "pydocs", out=str(copy_of_tiny_run))


def test_resuming_what_is_not_there_names_the_runs_beside_it(mistake: Mistake, copy_of_tiny_run: Path):
    line = mistake("--resume", out=str(copy_of_tiny_run.with_name("rum")))
    assert "there is no run in" in line
    assert "There are: run" in line


def test_resuming_with_other_settings_is_refused(mistake: Mistake, copy_of_tiny_run: Path):
    line = mistake("--resume", "--d-model", "64", out=str(copy_of_tiny_run))
    assert line.endswith("was begun with d-model 32; got 64. Leave it out to go on, or begin another run.")


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        (("--minuts", "3"), "unknown option --minuts; did you mean --minutes?"),
        (("--minutes", "0"), "minutes must be positive"),
        (("--vocab-size", "100"), "vocab_size must be at least 300"),
        (("--held-out", "1.5"), "held_out is a share"),
        (("--dtype", "float23"), "--dtype takes float32 or bfloat16"),
        (("--batch-size", "0"), "batch_size must be at least 1"),
        (("--device", "tpu"), "no device 'tpu' here; expected"),
        (("--d-model", "33", "--heads", "2"), "the model can't have these proportions"),
        (("--heads", "4", "--kv-heads", "3"), "the model can't have these proportions"),
        (("--config", "none.toml"), "there is no file none.toml"),
        (("--json", "--chat"), "--json prints one object"),
    ],
)
def test_bad_option_is_told_before_any_work(mistake: Mistake, words: tuple[str, ...], fragment: str):
    assert fragment in mistake(*words)


def test_unknown_key_of_a_config_file_names_the_nearest(mistake: Mistake, tmp_path: Path):
    (tmp_path / "recipe.toml").write_text("minutes = 1\nd_modle = 64\n")
    assert mistake("--config", "recipe.toml").endswith("unknown key 'd_modle' in recipe.toml. Did you mean d_model?")


def test_stage_verbs_say_what_is_missing_first(mistake: Mistake, tmp_path: Path):
    write_notes(tmp_path / "notes")
    for verb in ("sft", "dpo", "eval"):
        assert "there is no run in" in mistake(verb=verb, out="none")
    (tmp_path / "empty.txt").write_bytes(b"")
    for verb in ("pretrain", "tokenizer"):
        assert "empty.txt is empty" in mistake("--data", "empty.txt", verb=verb, out="run")
        assert "vocab_size must be at least" in mistake("--vocab-size", "20", verb=verb, out="run")
    assert "empty.txt is empty" in mistake("--data", "empty.txt", verb="tokenizer", out="t.json")


def test_mistake_reaches_the_shell_as_one_line_and_exit_code_2(tmp_path: Path):
    """The same through the installed command, where nothing of pytest is between."""
    (tmp_path / "broken.jsonl").write_text('{"text": "fine"}\n{"text": oops}\n')
    done = underhood("build", "--data", "broken.jsonl", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: broken.jsonl line 2 is not")
    assert done.stderr.count("\n") == 1
    assert sorted(file.name for file in tmp_path.iterdir()) == ["broken.jsonl"]
