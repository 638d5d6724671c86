"""``underhood generate`` and ``underhood chat`` as a user meets them: arguments, pipes and a terminal."""

from __future__ import annotations

import io
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_run import make_run

import underhood
from underhood.cli.main import main
from underhood.core.errors import UserError
from underhood.infer.load import load
from underhood.infer.opening import open_draft
from underhood.text.bpe import train_bpe
from underhood.ui.terminal import visible

Result = tuple[int, str, str]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("place") / "demo")


@pytest.fixture
def cli(run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Calls a verb on the run with the given standard input, as a pipe would."""

    def call(verb: str, *words: str, stdin: str | bytes = "", folder: Path | None = None) -> Result:
        data = stdin.encode() if isinstance(stdin, str) else stdin
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))
        code = main([verb, str(folder or run), *words])
        out, err = capsys.readouterr()
        return code, out, err

    return call


SMALL = ("--max-tokens", "8", "--seed", "1")


def test_generate_prints_only_the_text(cli: Callable[..., Result], run: Path) -> None:
    expected = underhood.load(run).generate("The list", max_tokens=8, seed=1)
    assert cli("generate", "The list", *SMALL) == (0, expected + "\n", "")
    assert cli("generate", *SMALL, stdin="The list\n") == (0, expected + "\n", "")
    assert cli("generate", "The list", *SMALL, "--stream") == (0, expected + "\n", "")
    base = underhood.load(run, "base").generate("The list", max_tokens=8, seed=1)
    assert cli("generate", "The list", *SMALL, "--stage", "base") == (0, base + "\n", "")
    assert base != expected


def test_generate_writes_the_same_text_with_guesses(cli: Callable[..., Result], run: Path) -> None:
    words = ("generate", "The list of the list of the list", "--max-tokens", "30", "--seed", "2", "--n", "2", "--json")
    _, plain, _ = cli(*words)
    for guessing in (
        ["--speculative", "ngram"],
        ["--speculative", str(run)],
        ["--speculative", str(run), "--stage", "base"],
    ):
        if "base" in guessing:
            _, plain, _ = cli(*words, "--stage", "base")
        _, out, _ = cli(*words, *guessing)
        actual, expected = json.loads(out)["completions"], json.loads(plain)["completions"]
        assert [first["text"] for first in actual] == [first["text"] for first in expected]
        counts = json.loads(out)["speculation"]
        assert 0 <= counts["accepted"] <= counts["drafted"]
        assert counts["passes"] + counts["accepted"] >= sum(first["tokens"] for first in actual)
    assert counts["drafted"] > 0


def test_draft_that_reads_other_tokens_is_refused(cli: Callable[..., Result], run: Path, tmp_path: Path) -> None:
    loaded = load(run)
    assert open_draft(run, [loaded]).vocab_size == loaded.spec.vocab_size
    others = train_bpe(["Something else: a word, and words; wording, swords."], vocab_size=loaded.tokenizer.vocab_size)
    with pytest.raises(UserError, match="reads other tokens"):
        open_draft(run, [loaded, replace(loaded, tokenizer=others)])
    code, _, err = cli("generate", "x", "--draft", str(tmp_path / "nobody"))
    assert (code, err.count("\n")) == (2, 1)


def test_generate_as_json_says_all(cli: Callable[..., Result]) -> None:
    code, out, err = cli("generate", "The", *SMALL, "--n", "3", "--json", "--top-k", "40", "--temperature", "1.5")
    report = json.loads(out)
    assert (code, err, out.count("\n")) == (0, "", 1)
    assert (report["stage"], report["prompt"], len(report["completions"])) == ("dpo", "The", 3)
    drawn = {"temperature": 1.5, "top_k": 40, "top_p": None, "min_p": 0.05, "seed": 1}
    plain = {"repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0, "logit_bias": []}
    assert report["sampling"] == drawn | plain
    assert len({completion["text"] for completion in report["completions"]}) == 3
    assert all(completion["tokens"] <= 8 and completion["logprob"] < 0 for completion in report["completions"])
    _, plain, _ = cli("generate", "The", *SMALL, "--n", "3", "--top-k", "40", "--temperature", "1.5")
    assert plain == "\n---\n".join(completion["text"] for completion in report["completions"]) + "\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("x", "--temperature", "-1"), "error: temperature is out of range; expected a number from 0 up, got -1.0."),
        (("x", "--n", "0"), "error: --n is out of range"),
        (("x", "--stream", "--n", "2"), "error: --stream prints one text"),
        (("x", "--max-tokens", "-3"), "error: max_tokens is out of range"),
        (("long " * 99,), "error: the prompt is longer than the model's context; expected at most 96 tokens"),
        (("x", "--tempature", "1"), "did you mean --temperature"),
        (("x", "--stage", "rlhf"), "has no rlhf model; expected base or sft or dpo"),
    ],
)
def test_generate_mistakes_cost_one_line_and_code_2(
    cli: Callable[..., Result], words: tuple[str, ...], message: str
) -> None:
    code, out, err = cli("generate", *words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_missing_runs_and_broken_input_are_named(cli: Callable[..., Result], run: Path) -> None:
    code, _, err = cli("generate", "x", folder=run.parent / "demi")
    assert (code, err.count("\n")) == (2, 1)
    assert f"Did you mean {run}?" in err
    for verb in ("generate", "chat"):
        code, out, err = cli(verb, stdin=b"abc \xff\xfe\n")
        assert (code, out) == (2, "")
        assert "standard input is not" in err


def test_chat_from_a_pipe_prints_one_answer_per_line(cli: Callable[..., Result], run: Path) -> None:
    talk = underhood.load(run).conversation()
    from underhood.infer.sample import SamplingSpec

    sampling = SamplingSpec(temperature=0)
    expected = ["".join(talk.reply(text, max_new_tokens=8, sampling=sampling)) for text in ("Hello", "And?")]
    code, out, err = cli("chat", *SMALL, "--temperature", "0", stdin="Hello\n\nAnd?\n")
    assert (code, err) == (0, "")
    assert out == "".join(answer + "\n" for answer in expected)


def test_chat_commands(cli: Callable[..., Result], run: Path, tmp_path: Path) -> None:
    saved, text = tmp_path / "talk.json", tmp_path / "talk.md"
    lines = [
        "/set temperature 0",
        "/set top-k 5",
        "/set min-p off",
        "/set",
        "/system Be short.",
        "/system",
        "Hello",
        "//etc",
        f"/save {saved}",
        f"/save {text}",
        "/stage sft",
        "/stage",
        "Again",
        "/reset",
        "/help",
        "/quit",
        "never said",
    ]
    code, out, err = cli("chat", *SMALL, stdin="\n".join(lines))
    assert code == 0
    for shown in (
        f"{'temperature':<18} 0.0",
        f"{'top-k':<18} 5",
        f"{'min-p':<18} off",
        f"{'max-tokens':<18} 8",
        "Be short.",
        "/save FILE",
    ):
        assert shown in out
    assert "sft; there are base, sft, dpo" in out
    assert [line for line in err.splitlines() if not line.startswith("[The conversation has outgrown")] == [
        "A new conversation.",
        f"Saved to {saved}.",
        f"Saved to {text}.",
        "Now the sft model.",
        "A new conversation.",
    ]
    record = json.loads(saved.read_text(encoding="utf-8"))
    assert [message["role"] for message in record["messages"]] == ["system", *("user", "assistant") * 2]
    assert record["messages"][3]["content"] == "/etc"
    plain = {"repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0, "logit_bias": []}
    drawn = {"temperature": 0.0, "top_k": 5, "top_p": None, "min_p": None, "seed": 1}
    assert record["sampling"] == drawn | plain
    assert text.read_text(encoding="utf-8").startswith("**system:** Be short.\n\n**user:** Hello\n\n**assistant:** ")
    assert max(map(len, [line for line in out.splitlines() if line.startswith("  /")])) <= 80


def test_chat_goes_on_with_another_stage_and_the_same_conversation(cli: Callable[..., Result], run: Path) -> None:
    from underhood.infer.sample import SamplingSpec

    greedy = SamplingSpec(temperature=0)
    talk = underhood.load(run, "dpo").conversation()
    first = "".join(talk.reply("Hello", max_new_tokens=8, sampling=greedy))
    other = underhood.load(run, "sft").conversation()
    other.messages = talk.messages
    two = "".join(other.reply("And?", max_new_tokens=8, sampling=greedy))
    _, out, _ = cli("chat", *SMALL, "--temperature", "0", stdin="Hello\n/stage sft\nAnd?\n")
    assert out == f"{first}\n{two}\n"


def test_chat_with_the_base_model_continues_text_and_says_so(cli: Callable[..., Result], run: Path) -> None:
    expected = underhood.load(run, "base").generate("The list", max_tokens=8, temperature=0)
    code, out, err = cli("chat", *SMALL, "--temperature", "0", "--stage", "base", stdin="The list\n")
    assert (code, out) == (0, expected + "\n")
    assert err == "The base model has not learnt to chat: it continues what you write.\n"


def test_chat_says_when_it_forgets(cli: Callable[..., Result]) -> None:
    code, _, err = cli("chat", *SMALL, stdin="some words to fill the context\n" * 4)
    assert code == 0
    assert "outgrown the model's context of 96 tokens" in err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/rest", "error: unknown command /rest. Did you mean /reset?"),
        ("/set temprature 1", "error: there is no setting 'temprature'. Did you mean temperature?"),
        ("/set top-p 3", "error: top_p is out of range"),
        ("/set top-k many", "error: top-k has the wrong value; expected a whole number or off, got 'many'."),
        ("/set max-tokens off", "error: max-tokens has the wrong value; expected a whole number, got 'off'."),
        ("/stage rlhf", "has no rlhf model; expected base or sft or dpo"),
        ("/save", "error: /save needs the name of a file"),
        ("/save /nowhere/at/all/x.json", "error: can't write /nowhere"),
        ("word " * 99, "error: the message is too long for the model"),
    ],
)
def test_chat_mistakes_in_a_pipe_end_it_with_code_2(cli: Callable[..., Result], line: str, message: str) -> None:
    if "nowhere" in line:
        line = "/save /dev/null/x.json"
        message = "error: can't write /dev/null"
    code, _, err = cli("chat", *SMALL, stdin=f"{line}\nHello\n")
    assert (code, err.count("\n")) == (2, 1)
    assert message in err


def test_output_of_a_model_cannot_steer_the_terminal() -> None:
    assert visible("a\x1b[2Jb\tc\n\x07\x9b\x7f\r") == "a␛[2Jb\tc\n␇␡␡␍"


class Terminal:
    """The program in a terminal of its own."""

    def __init__(self, *words: str):
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "underhood", *words],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=os.environ | {"TERM": "dumb"},
            start_new_session=True,
            # A shell's background jobs, this suite among them, ignore Ctrl-C, and what they start inherits that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
        )
        os.close(slave)
        self.shown = ""

    def wait_for(self, text: str, since: int = 0, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while text not in self.shown[since:]:
            if not select.select([self.master], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise AssertionError(f"never saw {text!r} in {self.shown[-2000:]!r}")
            try:
                self.shown += os.read(self.master, 4096).decode(errors="replace")
            except OSError as error:  # the program has gone
                raise AssertionError(f"it ended before showing {text!r}: {self.shown[-2000:]!r}") from error

    def type(self, text: str) -> int:
        os.write(self.master, text.encode())
        return len(self.shown)

    def close(self) -> int:
        code = self.process.wait(timeout=30)
        os.close(self.master)
        return code


def test_chat_in_a_terminal_ctrl_c_stops_the_answer_and_ctrl_d_leaves(tmp_path: Path) -> None:
    run = make_run(tmp_path / "demo", context=20_000)
    terminal = Terminal("chat", str(run), "--stage", "sft", "--max-tokens", "20000", "--temperature", "0")
    try:
        terminal.wait_for("\n> ")
        assert "The sft model of" in terminal.shown
        assert "/help lists the commands" in terminal.shown
        at = terminal.type("A list?\n")
        terminal.wait_for("\n", at)  # the echo of what was typed; it is writing now, and greedily it goes in circles
        time.sleep(0.5)
        terminal.process.send_signal(signal.SIGINT)
        terminal.wait_for("[stopped]", at)
        terminal.wait_for("\n> ", at)
        at = terminal.type("/nonsense\n")
        terminal.wait_for("unknown command /nonsense", at)
        terminal.wait_for("\n> ", at)
        time.sleep(0.5)  # now it waits for a line
        at = len(terminal.shown)
        terminal.process.send_signal(signal.SIGINT)
        terminal.wait_for("Ctrl-D or /quit leaves.", at)
        terminal.wait_for("\n> ", at)
        terminal.type("\x04")
        assert terminal.close() == 0
    finally:
        if terminal.process.poll() is None:
            terminal.process.kill()
