"""The command: help at once, mistakes in one line, the right exit codes."""

from __future__ import annotations

import errno
import importlib
import inspect
import os
import subprocess
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass, is_dataclass
from pathlib import Path

import pytest

from underhood.cli import main as cli
from underhood.cli.options import help_page, options_of
from underhood.cli.train_stage import args_of
from underhood.core.errors import UserError
from underhood.recipes.stages.registry import all_stages, find_stage

ALL_VERBS = [verb for group in cli.VERBS.values() for verb in group]


def run_command(*words: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "underhood", *words], capture_output=True, text=True, timeout=120, **options
    )  # type: ignore[call-overload]


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes a verb ``probe`` that runs the given function."""

    @dataclass(frozen=True)
    class Args:
        """A probe."""

        number: int = 1
        """A number."""

    def install(run: Callable[[object], int]) -> None:
        module = types.SimpleNamespace(Args=Args, run=run)
        monkeypatch.setitem(sys.modules, "underhood.cli.probe", module)
        monkeypatch.setitem(cli.VERBS, "Probes", {"probe": "Probes."})

    return install


def raising(error: BaseException) -> Callable[[object], int]:
    def run(_: object) -> int:
        raise error

    return run


def test_help_names_every_verb_with_its_purpose_in_80_columns(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["--help"]) == 0
    page = capsys.readouterr().out
    assert max(map(len, page.splitlines())) <= 80
    for verbs in cli.verbs().values():
        for name, purpose in verbs.items():
            assert f"  {name:<12}  {purpose}\n" in page


def test_help_and_package_import_nothing_heavy():
    program = (
        "import sys, underhood; from underhood.cli.main import main; main(['--help']); "
        "heavy = {'torch', 'numpy', 'rich', 'argparse', 'tiktoken', 'scipy'} & set(sys.modules); "
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ALL_VERBS)
def test_verb_module_keeps_the_contract(name: str):
    module = importlib.import_module(f"underhood.cli.{cli.MODULES.get(name, name)}")
    assert is_dataclass(module.Args)
    assert module.Args.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert list(inspect.signature(module.run).parameters) == ["args"]
    lines = Path(module.__file__ or "").read_text(encoding="utf-8").count("\n")
    assert lines <= 150, f"cli/{name}.py has {lines} lines: what it does belongs on a lower floor"


@pytest.mark.parametrize("name", [*ALL_VERBS, *(stage.name for stage in all_stages())])
def test_verb_help_explains_every_option_in_80_columns(name: str):
    stage = find_stage(name)
    if stage is None:
        args = importlib.import_module(f"underhood.cli.{cli.MODULES.get(name, name)}").Args
    else:
        args = args_of(stage)
    page = help_page(args, f"underhood {name}")
    assert max(map(len, page.splitlines())) <= 80
    for option in options_of(args):
        assert option.help.endswith("."), f"--{option.name} needs a docstring that ends with a full stop"


def test_unknown_verb_names_the_nearest():
    done = run_command("verison")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "underhood: unknown command verison; did you mean version?\n"


def test_unknown_option_names_the_nearest():
    done = run_command("version", "--jsno")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "underhood version: unknown option --jsno; did you mean --json?\n"


def test_module_and_script_give_the_same_version():
    script = subprocess.run([Path(sys.executable).with_name("underhood"), "version"], capture_output=True, text=True)
    assert script.returncode == 0
    assert script.stdout == run_command("version").stdout


def test_user_error_is_one_line_and_exit_2(verb: Callable[..., None], capsys: pytest.CaptureFixture[str]):
    verb(raising(UserError("the folder is empty", fix="Put text into it")))
    assert cli.main(["probe"]) == 2
    assert capsys.readouterr().err == "error: the folder is empty. Put text into it.\n"


def test_interrupt_is_a_short_line_and_exit_130(verb: Callable[..., None], capsys: pytest.CaptureFixture[str]):
    verb(raising(KeyboardInterrupt()))
    assert cli.main(["probe"]) == 130
    assert capsys.readouterr().err.strip() == "Stopped."


def test_full_disk_is_one_line_and_exit_2(verb: Callable[..., None], capsys: pytest.CaptureFixture[str]):
    verb(raising(OSError(errno.ENOSPC, "whatever", "runs/x/events.jsonl")))
    assert cli.main(["probe"]) == 2
    assert capsys.readouterr().err == "error: runs/x/events.jsonl: No space left on device.\n"


@pytest.mark.parametrize("bug", [RuntimeError("a bug"), OSError(errno.EIO, "a broken disk")])
def test_bug_keeps_its_traceback_and_asks_for_a_report(
    bug: Exception, verb: Callable[..., None], capsys: pytest.CaptureFixture[str]
):
    verb(raising(bug))
    with pytest.raises(type(bug)):
        cli.main(["probe"])
    assert "please report" in capsys.readouterr().err


def test_reader_that_leaves_early_is_no_error():
    command = f"{sys.executable} -c 'import sys; from underhood.cli.main import main; sys.exit(main([\"version\"]))'"
    # The reader is gone before anything is written; the shell hands out the writer's exit code.
    script = f"set -o pipefail; (sleep 0.3; exec {command}) | true"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    assert done.returncode == 141


@pytest.mark.parametrize("words", [["--help"], ["build", "--help"]], ids=" ".join)
def test_reader_that_leaves_early_causes_no_traceback(words: list[str]):
    read, write = os.pipe()
    os.close(read)  # as `head` does once it has seen enough
    try:
        done = subprocess.run(
            [sys.executable, "-m", "underhood", *words], stdout=write, stderr=subprocess.PIPE, text=True, timeout=60
        )
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (141, "")
