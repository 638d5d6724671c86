"""README: followed word for word in a fresh clone, re-made by its script, and true in what it counts."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from pathlib import Path

import pytest
from fresh_clone import follow, fresh_clone, start_and_stop

import make_readme
from needs import REPOSITORY, smollm2_gguf
from tinyrun import TINY
from tinytext import write_notes
from typed_session import typed_session
from underhood.ui import formatting

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
SCREEN = 85
"""Lines of a first screen, up to the rule above the reference."""
LONGER = ("--context-length", "256")
"""The questions of pydocs need a longer context than the small build of the other tests has."""
LINES = re.compile(r"^```(bash|console|python)\n(.*?)^```$|^\| \d+ \| `([^`]+)` \|", re.MULTILINE | re.DOTALL)


def steps(page: str) -> list[tuple[str, str]]:
    """What a page says to do, in order: ("shell", command) of blocks, transcripts and tables, ("python", program)."""
    todo = []
    for kind, body, in_table in LINES.findall(page):
        if kind == "python":
            todo.append(("python", body))
        elif kind == "console":
            todo += [("shell", line[2:]) for line in body.splitlines() if line.startswith("$ ")]
        else:
            lines = (in_table or body).splitlines()
            todo += [("shell", command) for line in lines if (command := without_comment(line))]
    return todo


def without_comment(line: str) -> str:
    return line.strip() if "|" in line else shlex.join(shlex.split(line, comments=True))


def test_steps_are_read_in_the_order_of_the_page():
    page = (
        "```bash\nmake run   # builds\n```\n| 1 | `a b` | c |\n```console\n$ d | e\nprinted\n```\n```python\nf()\n```\n"
    )
    assert steps(page) == [("shell", "make run"), ("shell", "a b"), ("shell", "d | e"), ("python", "f()\n")]


def shortened(command: str) -> str:
    """The command, but a build with the options that make it take seconds."""
    if command.startswith("underhood build --data"):
        return f"{command} {shlex.join(TINY)}"
    return command


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = fresh_clone(tmp_path_factory.mktemp("clone") / "underhood")
    write_notes(folder / "notes")  # the reader's own
    return folder


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_readme_followed_word_for_word_in_a_fresh_clone(clone: Path):
    smollm2_gguf()
    # `make run` and `make test` take these from the environment: a build of seconds, and the tests of one folder.
    variables = {"make run": shlex.join([*TINY, *LONGER]), "make test": "tests/grad"}
    done = set()
    for kind, words in steps(README):
        if kind == "shell" and words in variables and words in done:
            continue  # the first of the ten steps is the first command
        done.add(words)
        if kind == "python":
            follow(f"python -c {shlex.quote(words)}", clone)
        elif words.startswith("underhood serve"):
            start_and_stop(words, clone)
        elif words in variables:
            follow(words, clone, MINUTES="0.3", ARGS=variables[words], JOBS="1")
            if words == "make run":  # as it was built; later commands change it
                shutil.copytree(clone / "runs" / "pydocs", clone / "other" / "runs" / "pydocs")
        else:
            follow(shortened(words), clone)
    assert {"make run", "make test"} <= done
    check_that_the_script_makes_readme_anew(clone)


def check_that_the_script_makes_readme_anew(clone: Path) -> None:
    """In a folder of its own, with the clone's run: the same commands with new outputs, and the run's own numbers."""
    other = clone / "other"
    page, picture = other / "README.md", other / "pipeline.svg"
    shutil.copy(clone / "README.md", page)
    follow(f"python tools/make_readme.py --folder {other} --page {page} --picture {picture}", clone)
    made = page.read_text(encoding="utf-8")
    assert steps(made) == steps(README)
    summary = json.loads((other / "runs" / "pydocs" / "summary.json").read_text(encoding="utf-8"))
    assert f"{formatting.duration(summary['seconds'])} where" in made
    assert f"The dpo model of runs/pydocs, {summary['parameters']:,} parameters." in made
    assert made.count("\n> What does os.path.join do?\n") == 1
    assert "<svg " in picture.read_text(encoding="utf-8")


def test_readme_counts_the_topics_that_are_built():
    counts = make_readme.count_topics(make_readme.shell_in(REPOSITORY))
    match = make_readme.TOPICS.search(README)
    assert match is not None
    assert tuple(map(int, re.findall(r"\d+", match[0]))) == counts


def test_readme_shows_its_idea_on_one_screen():
    first, reference = README.split("\n---\n")
    assert first.count("\n") <= SCREEN
    assert "## Ten steps" in first
    assert "## Text of your own" in reference


def test_transcript_of_a_chat_holds_an_answer_with_its_source():
    [block] = [block for block in make_readme.CONSOLE.findall(README) if "underhood chat" in block]
    assert re.search(r"^> What does os.path.join do\?\n`os.path.join`: .+ \[1\]\n\[1\] .+$", block, re.MULTILINE)


def test_compress_transcript_shows_the_model_first():
    """The rows are sorted by size, so the claim that the model makes the text smallest is the order of the names."""
    [block] = [block for block in make_readme.CONSOLE.findall(README) if "underhood compress" in block]
    rows = re.findall(r"^(\S.*?) +[\d,]+ +(\d\.\d{3}) +[\d.]+%", block, re.MULTILINE)
    assert rows[0][0].startswith("pydocs (base)")
    assert {"gzip", "bz2", "xz"} <= {name for name, _ in rows}
    assert sorted(rows, key=lambda row: float(row[1])) == rows


def test_measured_table_says_what_the_summary_holds():
    measurement = {"bits per byte": 1.5, "right answers, quoting": 0.9, "right parameters, quoting": 0.8}
    measurement |= {"refuses invented names, quoting": 0.7, "right answers, closed book": 0.01}
    stages = [
        {"stage": stage, "measurements": [{"name": name, "value": value} for name, value in measurement.items()]}
        for stage in ("base", "dpo")
    ]
    summary = {
        "machine": {"cores": 2, "cpu": "Some CPU"},
        "minutes": 5.0,
        "seconds": 301.0,
        "peak_memory_gb": 0.83,
        "parameters": 1_115_392,
        "results": {"stages": stages, "baselines": [{"name": "xz", "value": 1.87}]},
    }
    table = make_readme.measured_table(summary, 41_000_000, 3_000_000_000)
    for words in ("5 min", "0.8 GB", "90 %", "80 %", "70 %", "1 %", "1.50 bits", "1.87", "Some CPU"):
        assert words in table.replace(formatting.NBSP, " "), words


def test_transcript_is_made_by_its_commands_and_what_is_typed():
    printed = {("echo a",): "a", ("chat", "Hello", "Bye"): "> Hello\nHi.\n> Bye\nYes."}
    block = "$ echo a\nold\n$ chat\n> Hello\nold\n> Bye\n"
    made = make_readme.transcript(block, lambda *words: printed[words])
    assert made == "$ echo a\na\n$ chat\n> Hello\nHi.\n> Bye\nYes.\n"
    assert make_readme.transcript(made, lambda *words: printed[words]) == made


def test_session_types_at_each_prompt_and_shows_what_a_terminal_shows(tmp_path: Path):
    program = (
        "for n in 1 2; do printf '\\n> '; read line; echo \"got $line\"; done; printf '\\n> '; read line || echo end"
    )
    (tmp_path / "ask.sh").write_text(program)
    shown = typed_session("bash ask.sh", ["one", "two"], tmp_path, os.environ)
    assert shown.splitlines() == ["> one", "got one", "", "> two", "got two", "", "> end"]


def test_session_that_ends_early_or_fails_is_an_error(tmp_path: Path):
    with pytest.raises(RuntimeError, match="ended before it asked"):
        typed_session("echo bye", ["one"], tmp_path, os.environ)
    with pytest.raises(RuntimeError, match="exit 3"):
        typed_session("printf '\\n> '; read line; exit 3", [], tmp_path, os.environ)
