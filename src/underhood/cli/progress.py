"""Progress in the terminal: one live line per running stage; elsewhere an occasional plain line."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from underhood.cli.event_text import beginning, ending, measured, sample_lines
from underhood.core.runlog import RunLog
from underhood.recipes.stages.display import best_weights
from underhood.recipes.stages.registry import find_stage
from underhood.ui import formatting
from underhood.ui.terminal import WIDTH

STAGE_WIDTH = 10
_BITS = ("bits_per_byte", "bits/byte", 2)


def stage_style(stage: str) -> str:
    """A training stage keeps its colour everywhere (terminal, report, pages); the others have none."""
    record = find_stage(stage)
    return record.terminal_colour if record else ""


@contextmanager
def share_line(
    out: Console, what: str, size: int, *, every: float = 10.0, clock: Callable[[], float] = time.monotonic
) -> Iterator[Callable[[float], None]]:
    """One live line for a task of which a growing share is done: ``Compressing  41 %  0:12 left``.

    Gives what is to be told the share, 0 to 1. Elsewhere than in a terminal a line is written every `every` seconds,
    so that quick work says nothing.

    Args:
        size: bytes of the whole, for the speed that is shown.
    """
    with _quiet_line(out, 0.1 if out.is_terminal else every, every, clock) as show:

        def tell(share: float) -> None:
            show(lambda took: f"{what} {share:5.0%}  {formatting.size(share * size / took, ' ')}/s{_left(took, share)}")

        yield tell


@contextmanager
def steps_line(
    out: Console,
    what: str,
    *,
    after: float = 1.0,
    every: float = 10.0,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Callable[[int, int], None]]:
    """One live line for a task of a few steps: ``Reading checkpoints  7 of 20  0:12 left``.

    Gives what is to be told the steps that are done, and all. Work of less than `after` seconds says nothing. Elsewhere
    than in a terminal a line is written every `every` seconds from then on.
    """
    with _quiet_line(out, after, every, clock) as show:

        def tell(done: int, total: int) -> None:
            show(lambda took: f"{what}  {done:,} of {total:,}{_left(took, done / max(total, 1))}")

        yield tell


@contextmanager
def _quiet_line(
    out: Console, after: float, every: float, clock: Callable[[], float]
) -> Iterator[Callable[[Callable[[float], str]], None]]:
    """A live line in a terminal, plain lines elsewhere; gives what shows a line made from the seconds since the start.

    Args:
        after: seconds before the first line.
        every: seconds between plain lines; the live one changes ten times a second at most.
    """
    begun = clock()
    due = begun + after
    live = Live(console=out, auto_refresh=False, transient=True) if out.is_terminal else None

    def show(line: Callable[[float], str]) -> None:
        nonlocal due
        now = clock()
        if now < due:
            return
        due = now + (0.1 if live else every)
        if live is None:
            out.print(Text(line(now - begun)), soft_wrap=True)
        else:
            live.update(Text(line(now - begun)), refresh=True)

    with live or nullcontext():
        yield show


def _left(took: float, share: float) -> str:
    return f"  {_clock(took / share * (1 - share))} left" if share > 0 else ""


SHARE_BETWEEN_ANSWERS = 0.125
"""Of the steps, between two sampled answers that are shown."""


class StageProgress:
    """Shows the events of a run log as they come; use it as a context manager around the work.

    ::

        with StageProgress(log, console()):
            build(...)

    In a terminal every running stage owns one live line that ends as a summary; elsewhere a line is written when a
    stage starts and ends, and every `every` seconds between. Keys read from ``step`` events beside those that
    `core.runlog` lists: ``bits_per_byte``, ``utilisation`` (share of the measured hardware limit, 0 to 1) and
    ``seconds_left``; missing ones are not shown, and time left is estimated from the steps done.

    Args:
        every: seconds between plain lines; in a terminal the live line is redrawn at most ten times a second.
        clock: seconds that never go back; a test gives its own.
    """

    def __init__(self, log: RunLog, out: Console, *, every: float = 10.0, clock: Callable[[], float] = time.monotonic):
        self.log, self.out, self.clock = log, out, clock
        self.plain = not out.is_terminal
        self.every = every if self.plain else 0.1
        self._lines: dict[str, Text] = {}
        self._first: dict[str, tuple[float, int]] = {}
        self._shown: dict[str, float] = {}
        self._held_out: dict[str, Mapping[str, Any]] = {}
        self._prompted: set[str] = set()
        self._answer_shown: dict[str, float] = {}
        self._live = None if self.plain else Live(console=out, auto_refresh=False, transient=True)

    def __enter__(self) -> StageProgress:
        self.log.listeners.append(self)
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Also after an error or Ctrl-C: the last live lines stay readable above whatever is printed next."""
        self.log.listeners.remove(self)
        if self._live is not None:
            self._live.update(Text(""))
            self._live.stop()
            for line in self._lines.values():
                self.out.print(line)

    def __call__(self, event: Mapping[str, Any]) -> None:
        stage, kind = str(event["stage"]), event["kind"]
        if kind == "step":
            self._step(stage, event)
        elif kind == "start":
            self._say(stage, beginning(event), style="bold")
        elif kind == "end":
            self._lines.pop(stage, None)
            self._say(stage, ending(event) + held_out_words(self._held_out.pop(stage, {})))
            self._redraw()
        elif kind == "eval" and "step" in event and find_stage(stage) is not None:
            self._held_out[stage] = event
        elif kind == "eval":
            self._say(stage, measured(event))
        elif kind == "sample" and "reward" in event:
            self._scored_answer(stage, event)
        elif kind == "sample":
            self._sample(stage, event)
        elif kind == "best":
            self._say(stage, best_weights(event))
        elif kind == "note":
            self._say(stage, str(event["text"]))
        elif kind == "skip":
            self._say(stage, f"step {event['step']:,} made no update: {event['reason']}")
        elif kind == "count":
            self._count(stage, event)

    def _step(self, stage: str, event: Mapping[str, Any]) -> None:
        now, step, steps = self.clock(), int(event["step"]), int(event["steps"])
        first_time, first_step = self._first.setdefault(stage, (now, step))
        left = event.get("seconds_left")
        if left is None and step > first_step:
            left = (now - first_time) / (step - first_step) * (steps - step)
        line = step_line(stage, event, left, self.out.width, self._held_out.get(stage))
        self._lines[stage] = Text(line, style=stage_style(stage))
        if now - self._shown.get(stage, float("-inf")) < self.every and step < steps:
            return
        self._shown[stage] = now
        if self.plain:
            self.out.print(self._lines[stage], soft_wrap=True)
        self._redraw()

    def _count(self, stage: str, event: Mapping[str, Any]) -> None:
        """A live line while something is counted; elsewhere only what takes longer than `every` gets lines."""
        now, done, total = self.clock(), int(event["done"]), int(event["total"])
        work = f"{stage} {event['text']}"
        if done >= total:
            for state in (self._lines, self._first, self._shown):
                state.pop(work, None)
            self._redraw()
            return
        first_time, first_done = self._first.setdefault(work, (now, done))
        if now - self._shown.setdefault(work, now if self.plain else float("-inf")) < self.every:
            return
        left = (now - first_time) / (done - first_done) * (total - done) if done > first_done else None
        self._shown[work] = now
        self._lines[work] = Text(count_line(stage, event, left))
        if self.plain:
            self.out.print(self._lines.pop(work), soft_wrap=True)
        self._redraw()

    def _sample(self, stage: str, event: Mapping[str, Any]) -> None:
        """What the model wrote, in one or two lines; its prompt once, before the first."""
        if stage not in self._prompted:
            self._prompted.add(stage)
            self._say(stage, f"after “{' '.join(str(event['prompt']).split())}” it writes")
        first, *more = sample_lines(event, self.out.width - STAGE_WIDTH)
        for label, line in ((f"{event['share']:5.0%}", first), *(("", line) for line in more)):
            self.out.print(Text(f"{label:<{STAGE_WIDTH}}", style="dim") + Text(line), soft_wrap=True)

    def _scored_answer(self, stage: str, event: Mapping[str, Any]) -> None:
        """A prompt of reinforcement learning with a sampled answer and its reward; of many steps only a few."""
        share = float(event["share"])
        if share < self._answer_shown.get(stage, -1.0) + SHARE_BETWEEN_ANSWERS:
            return
        self._answer_shown[stage] = share
        prompt = textwrap.shorten(" ".join(str(event["prompt"]).split()), self.out.width - STAGE_WIDTH - 14)
        first, *more = sample_lines(event, self.out.width - STAGE_WIDTH)
        for label, line in (
            (f"{share:5.0%}", f"reward {event['reward']:.3g} · {prompt}"),
            ("", first),
            *(("", m) for m in more),
        ):
            self.out.print(Text(f"{label:<{STAGE_WIDTH}}", style="dim") + Text(line), soft_wrap=True)

    def _redraw(self) -> None:
        if self._live is not None:
            self._live.update(Text("\n").join(self._lines.values()), refresh=True)

    def _say(self, stage: str, text: str, style: str = "") -> None:
        """A lasting line, above the live ones, wrapped under itself."""
        for index, line in enumerate(textwrap.wrap(text, self.out.width - STAGE_WIDTH) or [""]):
            name = Text(f"{stage if index == 0 else '':<{STAGE_WIDTH}}", style=style or stage_style(stage))
            self.out.print((name + Text(line)) if line else name, soft_wrap=True)


def step_line(
    stage: str,
    event: Mapping[str, Any],
    seconds_left: float | None,
    width: int = WIDTH,
    held_out: Mapping[str, Any] | None = None,
) -> str:
    """The progress of one stage in one line; where it does not fit, the least needed figures are left out.

    Args:
        held_out: the last measurement on held-out data.
    """
    parts: list[tuple[int, str]] = [(0, f"{event['step'] / max(event['steps'], 1):4.0%}")]  # (what goes first, text)
    name, unit, digits = ("loss", "nats/token", 3) if event.get("bits_per_byte") is None else _BITS
    if event.get("preference_accuracy") is not None:
        parts.append((1, f"train {event['loss']:.3f} · {event['preference_accuracy']:.0%} of pairs right"))
    elif event.get("reward") is not None:
        kl = "" if event.get("kl") is None else f" · KL {event['kl']:.3f} nats"
        parts.append((1, f"reward {event['reward']:.2f}{kl}"))
    elif event.get(name) is not None:
        train = f"train {event[name]:.{digits}f}"
        other = None if held_out is None else held_out.get(name)
        parts.append((1, f"{train} {unit}" if other is None else f"{train} · held out {other:.{digits}f} {unit}"))
    if event.get("tokens_per_second") is not None:
        parts.append((3, f"{formatting.count(event['tokens_per_second'], '')} tok/s"))
    if event.get("utilisation") is not None:
        parts.append((4, f"{event['utilisation']:.0%} of peak"))
    if seconds_left is not None:
        parts.append((0, f"{_clock(max(seconds_left, 0))} left"))
    line = f"{stage:<{STAGE_WIDTH}}" + "  ".join(text for _, text in parts)
    while len(line) > width and any(rank for rank, _ in parts):
        parts.remove(max(parts))
        line = f"{stage:<{STAGE_WIDTH}}" + "  ".join(text for _, text in parts)
    return line


def held_out_words(event: Mapping[str, Any]) -> str:
    """What a stage's last line says of held-out data, from the last measurement on it."""
    if event.get("preference_accuracy") is not None:
        return f" · {event['preference_accuracy']:.0%} of held-out pairs right"
    return "" if event.get("loss") is None else f" · held out {event['loss']:.3f} nats/token"


def count_line(stage: str, event: Mapping[str, Any], seconds_left: float | None) -> str:
    """The progress of something counted, in one line."""
    if event["unit"] == "bytes":
        amount = f"{formatting.size(event['done'], ' ')} of {formatting.size(event['total'], ' ')}"
    else:
        amount = f"{event['done']:,} of {event['total']:,} {event['unit']}"
    line = f"{stage:<{STAGE_WIDTH}}{event['done'] / max(event['total'], 1):4.0%}  {event['text']}  {amount}"
    return line if seconds_left is None else f"{line}  {_clock(seconds_left)} left"


def _clock(seconds: float) -> str:
    """Time left, short: ``2:05`` (minutes and seconds), from an hour on ``1 h 04``."""
    whole = round(seconds)
    return f"{whole // 60}:{whole % 60:02d}" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60:02d}"
