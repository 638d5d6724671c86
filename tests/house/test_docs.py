"""Every command and every piece of Python in docs is executed as it is; for README see `test_readme.py`.

The rules, so that nobody has to guess why a page passes:

- Blocks run in the page's order. Fenced ``bash`` blocks run line by line in one empty folder per page, with this
  environment's ``underhood`` first on the path; each must exit with 0. A line ending in ``\\`` goes on in the next;
  what follows ``#`` is not run.
- ``make`` commands are asked what they would do (``make -n``), and the commands they would run must exist; `.ci/run`
  runs ``make run``, ``make test`` and ``make test-slow`` for real.
- ``underhood build`` is not repeated for every page: the shared small build (see tinyrun.py) takes the place of its
  result, and its options must parse. A folder ``notes`` with a small text is there for whatever reads it.
- ``underhood serve``, and ``underhood inspect`` where it serves a page, run until the page of the docs ends; what
  follows finds them answering.
- A command that reads what is typed (``chat``) gets one question and then the end of its input.
- Fenced ``python`` blocks run in the same folder, each in its own process, so that each can be pasted alone.
- Other fences (``text``, ``bat``, ``toml``) are shown, not run; the ``bat`` lines must name what the Makefile does.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from needs import REPOSITORY
from tinytext import write_notes
from underhood.cli import build
from underhood.cli.main import verbs
from underhood.cli.options import parse

PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BIN = Path(sys.executable).parent


def blocks(page: Path, language: str) -> list[str]:
    return [body for kind, body in FENCE.findall(page.read_text(encoding="utf-8")) if kind == language]


def commands(page: Path) -> list[str]:
    return commands_of("".join(blocks(page, "bash")))


def commands_of(block: str) -> list[str]:
    lines = block.replace("\\\n", " ").splitlines()
    bare = (shlex.join(shlex.split(line, comments=True)) if "|" not in line else line.strip() for line in lines)
    return [line for line in bare if line]


def execute(words: list[str], folder: Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(
        words, cwd=folder, input=stdin, env=environment, capture_output=True, text=True, timeout=240, check=False
    )


def check_make(command: str) -> None:
    done = execute(["make", "-n", *shlex.split(command)[1:]], REPOSITORY)
    assert done.returncode == 0, done.stderr
    if "check-gguf" in command:
        assert "benchmarks/check_gguf.py --run" in done.stdout
    elif "run" in command:
        assert re.search(r"underhood build --minutes [0-9.]+", done.stdout)
    else:
        assert "pytest" in done.stdout


def take_the_place_of_a_build(command: str, request: pytest.FixtureRequest, folder: Path) -> None:
    """Puts the shared small build where the command would have left its own."""
    args = parse(build.Args, shlex.split(command)[2:], prog="underhood build")
    out = folder / (args.out or Path("runs", build.default_name(args.data)))
    assert out.exists() == args.resume, f"{command}: {out}"
    if not out.exists():
        shutil.copytree(request.getfixturevalue("tiny_run"), out)


def opens_a_page(command: str) -> bool:
    """Whether it is ``underhood inspect`` without a view to print or a file to write."""
    words = shlex.split(command)
    printed = {"--view", "--json", "--html", "--through", "--compare"}
    return words[:2] == ["underhood", "inspect"] and not printed & set(words)


def serve_until_the_page_ends(command: str, request: pytest.FixtureRequest, folder: Path) -> None:
    """Starts the server and waits until it says where it answers."""
    words = [str(BIN / "underhood"), *shlex.split(command)[1:]]
    server = subprocess.Popen(words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def end() -> None:
        server.send_signal(signal.SIGINT)
        output, _ = server.communicate(timeout=60)
        assert server.returncode == 0, output

    request.addfinalizer(end)
    assert server.stdout is not None
    printed = [""]
    while "Page: http" not in printed[-1]:
        printed.append(server.stdout.readline())
        assert printed[-1], f"{command} ended:\n{''.join(printed)}"


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES[1:], ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_page_does_what_it_says(page: Path, tmp_path: Path, request: pytest.FixtureRequest):
    write_notes(tmp_path / "notes")
    for kind, block in FENCE.findall(page.read_text(encoding="utf-8")):
        for command in commands_of(block) if kind == "bash" else []:
            if command.startswith("make "):
                check_make(command)
            elif command.startswith("underhood build"):
                take_the_place_of_a_build(command, request, tmp_path)
            elif command.startswith("underhood serve") or opens_a_page(command):
                serve_until_the_page_ends(command, request, tmp_path)
            else:
                shell = ["bash", "-o", "pipefail", "-c", command]
                done = execute(shell, tmp_path, stdin="What does os.path.join do?\n")
                assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        if kind == "python":
            done = execute([sys.executable, "-c", block], tmp_path)
            assert done.returncode == 0, f"{block}\n{done.stderr}"


def test_readme_begins_with_the_two_commands_that_set_up_everything():
    assert commands(REPOSITORY / "README.md")[:2] == ["make run", "make test"]


def test_windows_lines_do_what_the_makefile_does():
    (block,) = blocks(REPOSITORY / "README.md", "bat")
    assert len(block.splitlines()) == 2
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    for words in ("-c constraints.txt", "underhood build --minutes"):
        assert words in block
        assert words in makefile


def test_architecture_maps_every_folder_of_the_house():
    page = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)/` \| (.+) \|$", page, re.MULTILINE)
    folders = {file.parent.name for file in (REPOSITORY / "src" / "underhood").glob("*/__init__.py")}
    assert {name for name, _ in rows} == folders


def test_docs_name_no_verb_that_does_not_exist():
    known = {name for group in verbs().values() for name in group} | {"COMMAND"}
    for page in PAGES:
        prose = FENCE.sub("", page.read_text(encoding="utf-8"))
        used = set(re.findall(r"`(?:\.venv/bin/)?underhood ([a-z][\w-]*)[^`]*`", prose))
        assert used <= known, f"{page.name} names {used - known}"


def test_every_file_that_pages_point_to_exists():
    for page in PAGES:
        prose = FENCE.sub("", page.read_text(encoding="utf-8"))  # code has brackets before parentheses too
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", prose):
            assert (page.parent / target).exists(), f"{page.name} points to {target}"
