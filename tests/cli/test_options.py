"""Options: every type, every mistake in one line, and a TOML file under the command line."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from underhood.cli.options import HelpRequested, Positional, UsageError, help_page, parse
from underhood.core.errors import UserError


@dataclass(frozen=True)
class Shape:
    width: int = 4
    layers: int = 2


@dataclass(frozen=True)
class Sampling:
    seed: int = 0
    """Seed of the random numbers."""


@dataclass(frozen=True)
class Args(Sampling):
    """Turns text into a model.

    The second paragraph tells more about it and is long enough that it cannot possibly fit into one line of a page.
    """

    run: Positional[Path] = field(kw_only=True)
    """Folder of the run."""

    minutes: float = 5.0
    """How long it may take."""

    out: Path | None = None
    """Where to."""

    chat: bool = False
    """Talks afterwards."""

    cache: bool = True
    """Computes everything anew."""

    stage: Literal["base", "sft", "dpo"] = "dpo"
    """Which model."""

    stop: tuple[str, ...] = ()
    """Texts that end the answer, with ``code`` in it."""

    shape: Shape = Shape()
    """The model, in a config file only."""

    config: Path | None = None
    """A TOML file with any of these."""


def read(*words: str) -> Args:
    return parse(Args, words, prog="underhood build")


def complaint(*words: str) -> str:
    with pytest.raises(UsageError) as caught:
        read(*words)
    message = str(caught.value)
    assert "\n" not in message
    return message.removeprefix("underhood build: ").replace("(underhood build --help)", "(… --help)")


def test_options_of_every_type_are_read():
    words = [
        "r",
        "--minutes=2",
        "--out",
        "o",
        "--chat",
        "--no-cache",
        "--stage",
        "sft",
        "--stop",
        "a",
        "b",
        "--seed",
        "7",
    ]
    assert read(*words) == Args(
        run=Path("r"), minutes=2.0, out=Path("o"), chat=True, cache=False, stage="sft", stop=("a", "b"), seed=7
    )


def test_options_left_out_keep_their_defaults():
    assert read("r") == Args(run=Path("r"))


@given(st.floats(allow_nan=False), st.integers(), st.lists(st.text(alphabet="xyz -é", min_size=1)))
def test_options_round_trip_any_value(minutes: float, seed: int, stop: list[str]):
    stop = [word for word in stop if not word.startswith("-")]
    actual = read("r", f"--minutes={minutes!r}", f"--seed={seed}", *(["--stop", *stop] if stop else []))
    assert (actual.minutes, actual.seed, actual.stop) == (minutes, seed, tuple(stop))


def test_negative_number_and_prompt_with_a_dash_are_values():
    assert read("r", "--minutes", "-1.5").minutes == -1.5
    assert read("- a list item").run == Path("- a list item")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["r", "--minuts", "3"], "unknown option --minuts; did you mean --minutes?"),
        (["--minuts=3", "r"], "unknown option --minuts; did you mean --minutes?"),
        (["r", "--min", "3"], "unknown option --min; did you mean --minutes?"),
        (["r", "--zzzz"], "unknown option --zzzz; underhood build --help lists what there is"),
        (["r", "--no-minutes"], "unknown option --no-minutes; did you mean --minutes?"),
        (["r", "--shape", "x"], "unknown option --shape; did you mean --stage?"),
        ([], "RUN missing; usage: underhood build RUN [options]"),
        (["r", "--minutes"], "--minutes needs a value (… --help)"),
        (["r", "--minutes", "x"], "--minutes takes a number, got 'x' (… --help)"),
        (["r", "--seed", "1.5"], "--seed takes a whole number, got '1.5' (… --help)"),
        (
            ["r", "--stage", "dpi"],
            "--stage takes base or sft or dpo, got 'dpi'; did you mean dpo? (… --help)",
        ),
        (["r", "--chat=3"], "--chat takes no value (… --help)"),
        (["r", "q"], "unexpected argument 'q' (… --help)"),
    ],
)
def test_usage_mistake_is_one_clear_line(words: list[str], message: str):
    assert complaint(*words) == message


def test_whole_numbers_may_be_written_as_people_do():
    assert read("r", "--seed", "1e6").seed == read("r", "--seed", "1_000_000").seed == 1_000_000


def test_validation_of_the_class_is_a_usage_mistake():
    @dataclass(frozen=True)
    class Strict:
        minutes: float = 1.0

        def __post_init__(self) -> None:
            if self.minutes <= 0:
                raise ValueError("--minutes must be above 0")

    with pytest.raises(UsageError, match=r"^underhood x: --minutes must be above 0$"):
        parse(Strict, ["--minutes", "-1"], prog="underhood x")


def test_help_page_shows_docs_defaults_and_inherited_options():
    page = help_page(Args, "underhood build")
    assert max(map(len, page.splitlines())) <= 80
    assert page.startswith("usage: underhood build RUN [options]\n\nTurns text into a model.\n\nThe second")
    for line in [
        "RUN                   Folder of the run.",
        "--seed N              Seed of the random numbers. [0]",
        "--minutes NUMBER      How long it may take. [5]",
        "--out PATH            Where to.",
        "--no-cache            Computes everything anew.",
        "--stage base|sft|dpo  Which model. [dpo]",
        "--stop TEXT …         Texts that end the answer, with code in it.",
    ]:
        assert f"  {line}\n" in page
    assert "--shape" not in page


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Decides things.

    Attributes:
        rows, steps: counts of a kind
            that fills two lines.
        name: what ``it`` is called.

    Raises:
        Nothing: at all.
    """

    rows: int = 1
    steps: int = 2
    name: str = "a"
    """The string under the field wins."""


def test_help_reads_the_attributes_section_too():
    page = help_page(Recipe, "underhood x")
    assert page.split("\n\n")[1:-1] == ["Decides things."]
    for flag in ("--rows N     ", "--steps N    "):
        assert f"  {flag}Counts of a kind that fills two lines. [" in page
    assert "  --name TEXT  The string under the field wins. [a]" in page
    assert "Nothing" not in page


def test_help_puts_first_what_the_class_says_and_the_rest_under_a_heading():
    @dataclass(frozen=True)
    class Long(Sampling):
        """Does things."""

        FIRST: ClassVar = ("steps",)
        REST: ClassVar = "Seldom needed"

        steps: int = 2
        """How many."""

    first, rest = help_page(Long, "underhood x").split("\n\nSeldom needed:\n\n")
    assert first.endswith("  --steps N   How many. [2]\n  -h, --help  Shows this page.")
    assert rest == "  --seed N    Seed of the random numbers. [0]"


def test_help_word_anywhere_asks_for_help():
    with pytest.raises(HelpRequested):
        read("r", "--minutes", "--help")


@pytest.fixture
def recipe(tmp_path: Path):
    def write(text: str) -> Path:
        path = tmp_path / "recipe.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_config_file_sets_what_the_command_line_does_not(recipe):
    path = recipe('run = "r"\nminutes = 2\nchat = true\nstage = "base"\nstop = ["x"]\n[shape]\nwidth = 8\n')
    assert read("--config", str(path), "--no-chat", "--minutes", "3") == Args(
        run=Path("r"), minutes=3.0, chat=False, stage="base", stop=("x",), shape=Shape(width=8), config=path
    )


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("minuts = 3", "unknown key 'minuts' in {path}. Did you mean minutes?"),
        ("[shape]\nwidht = 3", "did you mean width?"),
        ("minutes = true", "minutes in {path} has the wrong value; expected a number, got True"),
        ("minutes = '3'", "minutes in {path} has the wrong value; expected a number, got '3'"),
        ("out = 3", "out in {path} has the wrong value; expected a path, got 3"),
        ("chat = 1", "chat in {path} has the wrong value; expected true or false, got 1"),
        ("stop = 'x'", "stop in {path} has the wrong value; expected a list of values, each a text, got 'x'"),
        ("stage = 'foo'", "stage in {path} has the wrong value; expected base or sft or dpo, got 'foo'"),
        ("seed = 1.5", "seed in {path} has the wrong value; expected a whole number, got 1.5"),
        ("minutes =", "{path} is not TOML: "),
    ],
)
def test_config_mistake_is_one_clear_line(recipe, text: str, fragment: str):
    path = recipe(text)
    with pytest.raises(UserError) as caught:
        read("r", "--config", str(path))
    assert fragment.format(path=path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_config_file_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(UserError, match="there is no file"):
        read("r", "--config", str(tmp_path / "none.toml"))
    with pytest.raises(UserError, match="is a folder"):
        read("r", "--config", str(tmp_path))


def test_positionals_may_stand_behind_options():
    from underhood.cli import generate

    args = parse(generate.Args, ["runs/demo", "--seed", "1", "The list"], prog="underhood generate")
    assert (args.run, args.seed, args.prompt) == (Path("runs/demo"), 1, "The list")
