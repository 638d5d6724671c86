"""Terminal view of ``underhood reproduce``: one live line per running milestone, then its table and small plots."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.text import Text

from underhood.cli.claims import print_claims, summary_lines
from underhood.core.figures import figure_from_json
from underhood.core.milestone import Milestone
from underhood.core.trial import Listener
from underhood.curriculum.reproduce import failures
from underhood.curriculum.results import Result
from underhood.ui.formatting import minutes
from underhood.ui.terminal_charts import charts

EVERY = 10.0
"""Seconds between lines where the output is not a terminal."""


class Progress:
    """Live lines of what is running; elsewhere than in a terminal an occasional plain line. A context manager."""

    def __init__(self, out: Console):
        self.out, self.plain = out, not out.is_terminal
        self._lines: dict[str, str] = {}
        self._begun: dict[str, float] = {}
        self._shown: dict[str, float] = {}
        self._live = None if self.plain else Live(console=out, auto_refresh=False, transient=True)

    def __enter__(self) -> Progress:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.update(Text(""))
            self._live.stop()

    def of(self, name: str) -> Listener:
        """A listener for one milestone."""

        def told(share: float, what: str) -> None:
            self.tell(name, share, what)

        return told

    def tell(self, name: str, share: float, what: str) -> None:
        now = time.monotonic()
        begun = self._begun.setdefault(name, now)
        left = f", {minutes((now - begun) * (1 / share - 1) / 60, ' ')} left" if share > 0.02 else ""
        self._lines[name] = f"{name}  {share:4.0%}  {what}{left}"
        if now - self._shown.get(name, begun if self.plain else float("-inf")) < (EVERY if self.plain else 0.1):
            return
        self._shown[name] = now
        if self.plain:
            self.out.print(self._lines[name], soft_wrap=True)
        else:
            self._redraw()

    def done(self, name: str, words: str) -> None:
        """A lasting line; the live one goes."""
        self._lines.pop(name, None)
        self.out.print(f"{name}  {words}", soft_wrap=True)
        self._redraw()

    def _redraw(self) -> None:
        if self._live is not None:
            lines = [line[: self.out.width] for line in self._lines.values()]
            self._live.update(Text("\n".join(lines)), refresh=True)


def show(out: Console, milestone: Milestone, result: Result, file: Path | None, page: Path | None = None) -> None:
    """What one milestone found: the table, what others say of it, the figures, and its file."""
    out.print(f"{milestone.title} ({milestone.year})", style="bold")
    out.print(milestone.question, style="dim")
    out.print()
    print_claims(out, milestone, result)
    for line in summary_lines(result):
        out.print(line)
    if any(claim.paper for claim in milestone.claims):
        out.print("paper: v read in the source, r from memory, c computed from what it prints", style="dim")
    for oracle in result["oracles"]:
        detail = f" ({oracle['detail']})" if oracle["detail"] else ""
        out.print(f"{'Confirmed' if oracle['agrees'] else 'NOT CONFIRMED'}: {oracle['name']}{detail}")
    for ablation in result["ablations"]:
        fell = [claim["key"] for claim in ablation["claims"] if claim["without"]["verdict"] == "does not hold here"]
        if ablation["sound"]:
            word = "fails" if len(fell) == 1 else "fail"
            out.print(f"Without {ablation['key']} ({ablation['removes']}): {', '.join(fell)} {word}.")
    charts(out, [figure_from_json(figure) for figure in result["figures"]])
    out.print()
    for problem in failures(result):
        out.print(f"Something is wrong: {problem}", style="bold")
    for note in result["notes"]:
        out.print(note)
    took = minutes(result["minutes_with_ablations"], " ")
    seeds = len(result["seeds"])
    out.print(f"{seeds} seed{'s' if seeds > 1 else ''}, {took}" + (f" → {file}" if file else ""), style="dim")
    if page is not None:
        out.print(f"As a page: {page}", style="dim")
