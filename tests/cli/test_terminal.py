"""The terminal's look: readable numbers, plain lines without control codes, one live line per stage."""

from __future__ import annotations

import io
import re

import pytest

from underhood.cli.event_text import beginning, ending, measured
from underhood.cli.progress import StageProgress, share_line, step_line, steps_line
from underhood.core.runlog import RunLog
from underhood.ui.terminal import console, next_commands, table


class FakeTerminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _ordinary_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def follow(stream: io.StringIO, *, steps: int = 20, seconds_per_step: float = 1.0) -> str:
    """What a data stage and a pretraining of `steps` steps write, with a clock that we turn."""
    now, log = [0.0], RunLog(None)
    with StageProgress(log, console(stream), every=10, clock=lambda: now[0]):
        log.event("data", "start", source="pydocs")
        log.event("data", "end", seconds=3.21, documents=670, bytes=2310482)
        for step in range(1, steps + 1):
            now[0] += seconds_per_step
            log.event("pretrain", "step", step=step, steps=steps, loss=2.5, tokens_per_second=41234.0, utilisation=0.63)
        log.event("pretrain", "skip", step=3, reason="the loss was not finite")
    return stream.getvalue()


def test_plain_progress_has_no_control_codes_and_few_lines():
    text = follow(io.StringIO())
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", text)
    assert text.splitlines() == [
        "data      source pydocs",
        "data      done in 3.2 s · documents 670 · bytes 2,310,482",
        "pretrain    5%  train 2.500 nats/token  41.2k tok/s  63% of peak",
        "pretrain   55%  train 2.500 nats/token  41.2k tok/s  63% of peak  0:09 left",
        "pretrain  100%  train 2.500 nats/token  41.2k tok/s  63% of peak  0:00 left",
        "pretrain  step 3 made no update: the loss was not finite",
    ]


def test_no_color_makes_a_terminal_plain(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NO_COLOR", "1")
    assert follow(FakeTerminal()) == follow(io.StringIO())
    assert "\x1b" not in follow(FakeTerminal())


def test_terminal_redraws_one_line_that_ends_readable():
    text = follow(FakeTerminal())
    assert text.count("\x1b[2K") >= 20, "each step should redraw the live line"
    lasting = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text.rsplit("\x1b[2K", 1)[1])
    assert "pretrain  100%" in lasting


def test_terminal_redraws_at_most_ten_times_a_second():
    fast = follow(FakeTerminal(), steps=1000, seconds_per_step=0.001)
    assert fast.count("train 2.500") <= 20


def count(stream: io.StringIO, *, seconds: float) -> str:
    """What a file of 3 MB, read in three pieces that take so long each, writes."""
    now, log = [0.0], RunLog(None)
    with StageProgress(log, console(stream), every=10, clock=lambda: now[0]):
        tell = log.counter("export", "reading the model")
        for done in range(4):
            tell(done << 20, 3 << 20)
            now[0] += seconds
    return stream.getvalue()


def test_counted_work_is_a_live_line_that_goes_and_plain_lines_only_where_it_takes_long():
    assert count(io.StringIO(), seconds=1) == ""
    assert count(io.StringIO(), seconds=10).splitlines() == [
        "export     33%  reading the model  1.05 MB of 3.15 MB  0:20 left",
        "export     67%  reading the model  2.10 MB of 3.15 MB  0:10 left",
    ]
    text = count(FakeTerminal(), seconds=1)
    assert "reading the model  2.10 MB of 3.15 MB  0:01 left" in text
    assert "reading" not in text.rsplit("\x1b[2K", 1)[1]


def test_progress_leaves_the_log_when_its_block_fails():
    log = RunLog(None)
    with pytest.raises(KeyboardInterrupt), StageProgress(log, console(io.StringIO())):
        raise KeyboardInterrupt
    assert log.listeners == []


def test_step_line_of_everything_fits_80_columns_and_narrows_from_the_least_needed():
    event = {
        "step": 9,
        "steps": 9,
        "loss": 4.0,
        "bits_per_byte": 2.1,
        "tokens_per_second": 41234.0,
        "utilisation": 0.63,
    }
    whole = step_line("pretrain", event, 725.0)
    assert whole == "pretrain  100%  train 2.10 bits/byte  41.2k tok/s  63% of peak  12:05 left"
    assert step_line("pretrain", event, 725.0, 62) == "pretrain  100%  train 2.10 bits/byte  41.2k tok/s  12:05 left"
    both = step_line("pretrain", event, 725.0, 80, {"loss": 4.2, "bits_per_byte": 2.25})
    assert both == "pretrain  100%  train 2.10 · held out 2.25 bits/byte  41.2k tok/s  12:05 left"
    assert len(both) <= 80
    answers = step_line("sft", {"step": 1, "steps": 4, "loss": 1.5}, None, 80, {"loss": 1.75, "answer_accuracy": 0.5})
    assert answers == "sft        25%  train 1.500 · held out 1.750 nats/token"
    assert step_line("pretrain", event, 3840.0, 10) == "pretrain  100%  1 h 04 left"


def test_samples_are_told_in_two_lines_after_their_prompt_and_held_out_loss_in_the_stages_line():
    stream = io.StringIO()
    log = RunLog(None)
    with StageProgress(log, console(stream), every=0.0):
        log.event("pretrain", "sample", step=0, share=0.0, prompt="os.path.join(a)\n", text="\x00\n" + 60 * "word ")
        log.event("pretrain", "eval", step=1, loss=3.0, bits_per_byte=1.5)
        log.event("pretrain", "step", step=1, steps=2, loss=2.0, bits_per_byte=1.0)
        log.event("pretrain", "sample", step=2, share=1.0, prompt="os.path.join(a)\n", text="Join.")
        log.event("pretrain", "best", step=1, last_step=2, loss=3.0, last_loss=3.5)
        log.event("pretrain", "end", seconds=1.0, tokens=9, loss=2.0)
    lines = [line.rstrip() for line in stream.getvalue().splitlines()]
    assert lines[0] == "pretrain  after “os.path.join(a)” it writes"
    assert lines[1].startswith("   0%     · ⏎ word")
    assert lines[2].startswith("          word")
    assert lines[2].endswith("…")
    assert "train 1.00 · held out 1.50 bits/byte" in lines[3]
    assert lines[4] == " 100%     Join."
    assert lines[5] == "pretrain  kept the weights of step 1, the best on held-out text (loss 3.000;"
    assert lines[6] == "          3.500 at step 2)"
    assert lines[-1] == "pretrain  done in 1 s · 9 tokens · train 2.000 · held out 3.000 nats/token"
    assert all(len(line) <= 80 for line in lines)


def test_training_on_pairs_is_told_by_how_many_are_right():
    stream = io.StringIO()
    log = RunLog(None)
    figures = {"reward": 0.2, "preference_accuracy": 0.75, "reward_margin": 0.4}
    with StageProgress(log, console(stream)):
        log.event("reward", "step", step=2, steps=2, loss=0.5, **figures)
        log.event("reward", "eval", step=2, preference_accuracy=0.72, reward_margin=0.3)
        log.event("reward", "end", seconds=1.0, tokens=9, loss=0.5)
    lines = [line.rstrip() for line in stream.getvalue().splitlines()]
    assert lines[0] == "reward    100%  train 0.500 · 75% of pairs right"
    assert lines[-1] == "reward    done in 1 s · 9 tokens · train 0.500 · 72% of held-out pairs right"


def test_events_of_a_build_are_told_in_words():
    digest = "4850d7dc6ab5" + 52 * "0"
    data = {"documents": 678, "bytes": 2310482, "kept": 670, "dropped": {"empty": 1, "duplicate": 7}, "digest": digest}
    tokens = {"vocab_size": 4096, "bytes_per_token": 3.351, "train_tokens": 640123, "held_out_tokens": 55321}
    plan = {"parameters": 3340000, "reason": "150 s are left for training."}
    tuned = {"steps": 1, "trained_parameters": 4_884_480, "lora_rank": 16, "prompts": 36}
    told = [
        beginning({"stage": "data", "kind": "start", "data": "pydocs"}),
        ending({"stage": "data", "kind": "end", "seconds": 3.21, "name": "pydocs"} | data),
        beginning({"stage": "tokenizer", "kind": "start", "vocab_size": 4096}),
        ending({"stage": "tokenizer", "kind": "end", "seconds": 4.0} | tokens),
        ending({"stage": "plan", "kind": "end", "seconds": 5.0, "model": {"d_model": 256}} | plan),
        beginning({"stage": "sft", "kind": "start", "steps": 1200, "seconds_planned": 64.7}),
        beginning({"stage": "dpo", "kind": "start"} | tuned),
        ending({"stage": "sft", "kind": "end", "seconds": 61.0, "tokens": 1200000, "loss": 2.5}),
        measured({"stage": "eval", "kind": "eval", "model": "base", "bits per byte": 1.7014, "x": 0.61, "y": 0.2}),
    ]
    assert told == [
        "reading pydocs",
        "done in 3.2 s · 678 documents, 2.31 MB · left out 8 (1 empty, 7 duplicate) · digest 4850d7dc6ab5",
        "learning 4,096 tokens",
        "done in 4 s · 4,096 tokens of 3.35 bytes on average · the text is 640 k of them to train on, 55.3 k held out",
        "done in 5 s · 3.34 M parameters. 150 s are left for training.",
        "1,200 steps, about 1 min 05 s",
        "1 step · 4.88 M parameters learn, LoRA of rank 16 · prompts 36",
        "done in 1 min 01 s · 1.20 M tokens · train 2.500",
        "base: bits per byte 1.7 · x 0.61",
    ]


def test_event_with_other_facts_is_told_too():
    assert beginning({"stage": "data", "kind": "start", "source": "x"}) == "source x"
    assert ending({"stage": "data", "kind": "end", "seconds": 1.0, "documents": 3}) == "done in 1 s · documents 3"


def test_step_line_survives_a_loss_that_is_not_finite():
    log, seen = RunLog(None), []
    log.listeners.append(seen.append)
    log.event("pretrain", "step", step=1, steps=2, loss=float("nan"))
    assert step_line("pretrain", seen[0], None) == "pretrain   50%"


def test_markup_in_a_users_text_is_printed_as_it_stands():
    stream = io.StringIO()
    out = console(stream)
    out.print(table(["prompt", "loss"], [["[bold]a[/bold] :smile:", 1.23456]]))
    next_commands(out, {"underhood chat 'runs/[x]'": "talk to it"})
    assert stream.getvalue().splitlines() == [
        "prompt                   loss",
        "[bold]a[/bold] :smile:  1.235",
        "",
        "  underhood chat 'runs/[x]'  talk to it",
    ]


def steps(stream: io.StringIO, *, seconds: float) -> str:
    """What a task of four steps that take so long each writes."""
    now = [0.0]
    with steps_line(console(stream), "Reading checkpoints", clock=lambda: now[0]) as tell:
        for done in range(1, 5):
            now[0] += seconds
            tell(done, 4)
    return stream.getvalue()


def test_steps_of_less_than_a_second_say_nothing_and_longer_ones_how_long_is_left():
    assert steps(io.StringIO(), seconds=0.24) == ""
    assert "Reading" not in steps(FakeTerminal(), seconds=0.24)
    assert steps(io.StringIO(), seconds=4).splitlines() == [
        "Reading checkpoints  1 of 4  0:12 left",
        "Reading checkpoints  4 of 4  0:00 left",
    ]
    live = steps(FakeTerminal(), seconds=4)
    assert [f"{done} of 4" in live for done in range(1, 5)] == [True] * 4
    assert "Reading" not in live.rsplit("\x1b[2K", 1)[1]


def test_a_share_of_bytes_is_told_with_speed_and_time_left():
    now, stream = [0.0], io.StringIO()
    with share_line(console(stream), "Compressing", 40_000_000, clock=lambda: now[0]) as tell:
        for quarter in range(1, 5):
            now[0] += 6
            tell(quarter / 4)
    assert stream.getvalue().splitlines() == [
        "Compressing   50%  1.67 MB/s  0:12 left",
        "Compressing  100%  1.67 MB/s  0:00 left",
    ]
