"""The comparison as figures: bars of bits per byte, and a table with sizes, costs and the sources' own numbers."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from underhood.core.figures import Plot, Series
from underhood.curriculum import index, results
from underhood.curriculum.results import Result
from underhood.curriculum.years import STEM
from underhood.ui.formatting import count, decimal, duration, flops

COMMAND = f"underhood reproduce {STEM}"
READING = """
On a short text, counting wins. A 5-gram reads two megabytes in a second and keeps a million and a half counts; no
network comes up to it in a minute or two, and the neural n-gram of 2003 needs its mixture with counts to be better. A
file compressor needs least of all: documentation repeats itself, and xz copies from all of it. As long as texts and
machines were small, that was the state of the art.

Networks buy bits with computation. The last model, trained twice as long, is a tenth of a bit better and nearly level
with the 5-gram; a build of five minutes passes it. Counts get nothing from a longer training.

The order after a minute is not that of history. The LSTM is no better than the plain recurrent network, and GPT-2 is
behind the Transformer of 2017: at one learning rate and 800 steps the first steps decide, and the intervals of Llama
and of the recurrent networks are wide. The bag of vectors is the worst network by design: it gave up the hidden layer
to be fast. The largest step among the networks is not an architecture at all: a better optimiser, and first weights
that copy what followed the same token before.
"""
"""What the plot says, in words."""

BESIDE = (
    "The sources measured other texts in other units; their numbers are shown and not compared with ours. Training is "
    "one seed's: operations (three times those of the forward passes) and processor time."
)

HEAD = ("model", "what was new", "bits per byte", "parameters", "training", "the source's own number", "source")


def main_result(places: Sequence[Path]) -> Result | None:
    """The published result, or the user's own where none was published."""
    main = results.measurements(STEM, places).main
    return None if main is None else main[1]


def bars(result: Result) -> Plot:
    """Bits per byte of every model, with the best file compressor as a mark."""
    models = result["models"]
    packer, packed = min(result["compressors"].items(), key=lambda entry: entry[1])
    series = Series(
        "unseen documents",
        tuple(range(len(models))),
        tuple(model["mean"] for model in models),
        tuple(model["mean"] if model["low"] is None else model["low"] for model in models),
        tuple(model["mean"] if model["high"] is None else model["high"] for model in models),
    )
    return Plot(
        title="Seventy-five years of language models, on one text",
        x="model",
        y="bits per byte of unseen documents (less is better)",
        kind="bars",
        names=tuple(f"{model['year']} {model['name']}" for model in models),
        series=(series,),
        levels=((packed, packer),),
    )


def rows(result: Result) -> list[dict[str, Any]]:
    """Every model in words: bits with their interval, size, cost, source, and the milestone that explains it."""
    written = index.milestones()
    return [_words(model) | {"page": model["page"] if model["page"] in written else None} for model in result["models"]]


def _words(model: dict[str, Any]) -> dict[str, Any]:
    half = 0.0 if model["low"] is None else (model["high"] - model["low"]) / 2
    middle = statistics.median(model["seconds"])
    return {
        "year": model["year"],
        "name": model["name"],
        "idea": model["idea"],
        "bits": decimal(model["mean"], 3) + (f" ± {decimal(half, 3)}" if half else ""),
        "kept": f"{count(model['parameters'])}{'' if model['operations'] else ' counts'}",
        "cost": (f"{flops(model['operations'])}, " if model["operations"] else "") + duration(middle),
        "paper": model["paper"] + ("" if model["evidence"] == "verified" else f" ({model['evidence']})"),
        "source": model["source"],
    }


def facts(result: Result) -> str:
    """How it was measured, in a few sentences."""
    corpus, training = result["corpus"], result["training"]
    tokens = training["steps"] * training["batch"] * training["context"]
    return (
        f"Every network has about 850,000 parameters, reads the same {count(tokens)} tokens "
        f"(a vocabulary of {training['vocabulary']:,}) of {corpus['name']}, {corpus['train_bytes'] / 1e6:.2f} MB, and "
        f"is judged on {corpus['held_out_bytes'] / 1e6:.2f} MB of documents that none has seen; {result['seeds']} "
        f"seeds, 95 % intervals. Training is operations and processor seconds on {result['machine']['cpu']}."
    )
