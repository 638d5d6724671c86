"""Writes what README prints from a real run: transcripts, measured numbers, the picture of the pipeline.

    python tools/make_readme.py                          builds for five minutes in a temporary folder
    python tools/make_readme.py --folder /tmp/readme     keeps that folder, and uses the run that it holds

Each ``console`` block is a transcript: lines beginning with ``$`` are commands, and what they print replaces the rest.
Lines beginning with ``>`` are typed into the command above them, in a terminal.
The table below the heading "What to expect" holds the run's own numbers. The count of topics is that of
``underhood path --json``.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline_picture import pipeline_svg
from typed_session import typed_session
from underhood.ui import formatting

REPOSITORY = Path(__file__).resolve().parents[1]
CONSOLE = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MEASURED = re.compile(r"(?<=^## What to expect\n\n)(?:\|.*\n)*", re.MULTILINE)
TOPICS = re.compile(r"\d+(\s+)of(\s+)the(\s+)\d+(\s+)topics(\s[^.]*?)\d+(\s+)milestones")
RUN = "runs/pydocs"

Shell = Callable[..., str]


def shell_in(folder: Path) -> Shell:
    """A function that runs a command there as a user would, 80 columns wide, and returns what it prints.

    It takes the command and the lines to type into it, if any, and raises `RuntimeError` if the command fails.
    """
    environment = os.environ | {"COLUMNS": "80", "NO_COLOR": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    def run(command: str, *typed: str) -> str:
        if typed:
            return typed_session(command, typed, folder, environment)
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", command],
            cwd=folder,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,  # as a terminal shows both
        )
        if done.returncode:
            raise RuntimeError(f"{command}\n{done.stdout}")
        return "\n".join(line.rstrip() for line in done.stdout.strip("\n").splitlines())

    return run


def transcript(block: str, run: Shell) -> str:
    """The block with its commands run anew."""
    lines: list[str] = []
    for command, old in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE):
        lines += [f"$ {command}", *run(command, *re.findall(r"^> (.+)$", old, re.MULTILINE)).splitlines()]
    return "\n".join(lines) + "\n"


def count_topics(run: Shell) -> tuple[int, int, int]:
    """Topics built, all topics, and milestones."""
    path = json.loads(run("underhood path --json"))
    built = sum(bool(topic and topic["milestone"]) for topic in path["topics"].values())
    return built, len(path["topics"]), len(path["milestones"])


def value(summary: dict[str, Any], stage: str, name: str) -> float:
    """A measured value of one of the run's models."""
    [measured] = [entry for entry in summary["results"]["stages"] if entry["stage"] == stage]
    return next(entry["value"] for entry in measured["measurements"] if entry["name"] == name)


def measured_table(summary: dict[str, Any], run_bytes: int, environment_bytes: int) -> str:
    """What a build costs and gives, from the summary of one."""
    machine, last = summary["machine"], summary["results"]["stages"][-1]["stage"]
    xz = next(other["value"] for other in summary["results"]["baselines"] if other["name"] == "xz")
    share = {
        name: formatting.percent(value(summary, last, full))
        for name, full in {
            "right": "right answers, quoting",
            "parameters": "right parameters, quoting",
            "refuses": "refuses invented names, quoting",
            "memory": "right answers, closed book",
        }.items()
    }
    rows = {
        "Time": f"{formatting.duration(summary['seconds'])} where {summary['minutes']:g} minutes are asked for; "
        "installing takes a few minutes before the first build",
        "Hardware": f"any computer; here {machine['cores']} CPU cores ({machine['cpu']}), no GPU",
        "Memory": f"{summary['peak_memory_gb']:.1f} GB",
        "Disk": f"{formatting.size(environment_bytes)} for libraries with the test tools (more where pip installs "
        f"PyTorch with CUDA), {formatting.size(run_bytes)} for the run",
        "Model": f"{formatting.count(summary['parameters'])} parameters; "
        f"{value(summary, 'base', 'bits per byte'):.2f} bits per byte of unseen documentation "
        f"(xz, which has read the same text: {xz:.2f})",
        "It can": f"look up what a function does and name the source ({share['right']} right), list its "
        f"parameters ({share['parameters']}), say that there is no such function ({share['refuses']})",
        "It can't": f"answer from memory ({share['memory']} right), reason, or talk about anything else; "
        "[a real model](#a-real-model) does that",
    }
    lines = [f"| {name} | {text} |" for name, text in rows.items()]
    return "\n".join(["| | |", "| --- | --- |", *lines]) + "\n"


def folder_bytes(folder: Path) -> int:
    return sum(file.lstat().st_size for file in folder.rglob("*") if not file.is_dir())


def remade(page: str, folder: Path, run: Shell) -> str:
    """README with every transcript and number made anew from the run in `folder`."""
    built, topics, milestones = count_topics(run)
    counted = rf"{built}\g<1>of\g<2>the\g<3>{topics}\g<4>topics\g<5>{milestones}\g<6>milestones"
    page, places = TOPICS.subn(counted, page)
    summary = json.loads((folder / RUN / "summary.json").read_text(encoding="utf-8"))
    table = measured_table(summary, folder_bytes(folder / RUN), folder_bytes(Path(sys.prefix)))
    page, tables = MEASURED.subn(lambda _: table, page)
    if (places, tables) != (1, 1):
        raise ValueError(f"expected one count of topics and one table of numbers, got {places} and {tables}")
    return CONSOLE.sub(lambda match: f"```console\n{transcript(match[1], run)}```", page)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=5, help="how long to build, where there is no run yet")
    parser.add_argument("--folder", type=Path, help="where the commands run; a temporary folder if left out")
    parser.add_argument("--page", type=Path, default=REPOSITORY / "README.md", help="the page to write anew")
    parser.add_argument("--picture", type=Path, default=REPOSITORY / "docs" / "pipeline.svg")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        run = shell_in(folder)
        if not (folder / RUN).exists():
            print(run(shlex.join(["underhood", "build", "--minutes", f"{args.minutes:g}", "--out", RUN])), flush=True)
        page = remade(args.page.read_text(encoding="utf-8"), folder, run)
        args.page.write_text(page, encoding="utf-8")
        report = (folder / RUN / "report.html").read_text(encoding="utf-8")
        args.picture.write_text(pipeline_svg(report), encoding="utf-8")
    print(f"{args.page} and {args.picture} are written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
