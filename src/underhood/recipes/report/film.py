"""Film of a training: what the model wrote while it learned, the samples of each stage's log in order."""

from __future__ import annotations

from dataclasses import dataclass

from underhood.recipes.report.run_reader import RecordedRun, logged_once
from underhood.recipes.stages.display import hue_of, title_of, trained_stages
from underhood.ui import formatting

LONGEST = 320
"""Characters of a sample that the page shows."""


@dataclass(frozen=True)
class Frame:
    """One sample: how far the stage was, its held-out loss by then in words, and the text."""

    share: str
    step: int
    held_out: str
    text: str


@dataclass(frozen=True)
class FilmStrip:
    """The samples of one stage, all after the same prompt."""

    stage: str
    title: str
    hue: str
    prompt: str
    frames: tuple[Frame, ...]


def film_strips(run: RecordedRun) -> list[FilmStrip]:
    """One strip for each stage that logged samples."""
    strips = []
    for stage in trained_stages():
        samples = logged_once(run.of(stage, "sample"))
        if not samples:
            continue
        evaluations = logged_once(run.of(stage, "eval"))
        frames = []
        for sample in samples:
            step = int(sample["step"])
            measured = [event for event in evaluations if event["step"] <= step]
            text = str(sample.get("text", "")).strip("\n")
            frames.append(
                Frame(
                    share=formatting.percent(float(sample.get("share") or 0.0)),
                    step=step,
                    held_out=_held_out(measured[-1]) if measured else "",
                    text=text if len(text) <= LONGEST else f"{text[:LONGEST]}…",
                )
            )
        prompt = str(samples[-1].get("prompt", "")).strip()
        strips.append(FilmStrip(stage, title_of(stage), hue_of(stage), prompt, tuple(frames)))
    return strips


def _held_out(event: dict[str, object]) -> str:
    bits, loss = event.get("bits_per_byte"), event.get("loss")
    if isinstance(bits, float):
        return f"{formatting.decimal(bits, 2)} bits per byte"
    return f"{formatting.decimal(loss, 2)} nats per token" if isinstance(loss, float) else ""
