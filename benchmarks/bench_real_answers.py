"""Are the answers of a real model right after five minutes of fine-tuning? From passages, freely and in quotations.

Builds from a published model (`underhood build --from`) and asks it what `bench_answers.py` asks: functions of held-out
modules and their parameters, in the ways people type, and invented names. Bits per byte of the held-out documentation
and of plain English, and its answers to twenty general prompts, are compared with those of the model before.

    python benchmarks/bench_real_answers.py --from smollm2 [--minutes 5] [--count 100] [--out runs/real-answers]
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from bench_answers import goal
from harness import machine, options_from_command_line, print_json

LIMITS = {
    "right answers, retrieval": 0.85,
    "right answers, quoting": 0.85,
    "right parameters, retrieval": 0.90,
    "right parameters, quoting": 0.90,
    "refuses invented names, retrieval": 0.80,
    "refuses invented names, quoting": 0.80,
    "refuses what is there, retrieval": -0.08,
    "refuses what is there, quoting": -0.08,
    "bits per byte, documentation, more than before": -0.06,
    "bits per byte, English, more than before": -0.06,
}
"""What is promised: at least this, or (negative) at most."""

ENGLISH = """\
Fires on hilltops guided ships home long before anyone built a tower, and the great lighthouse of Alexandria burnt for
more than a thousand years before earthquakes brought it down. Sailors steered by its light at night and by its smoke
during the day. In later centuries the work was done by keepers, families who lived far from the nearest village and
climbed the stairs every few hours to trim the wicks and wind the clockwork. They kept careful logs of the weather and
of the vessels that passed, and they were often the first to row out when one of them struck the rocks. Today almost
every light is automatic. A sensor switches the lamp on at dusk, and a technician visits once or twice a year.
Something was lost with the keepers, but the sea is a safer place than it was, because satellites tell every ship where
it is within a few metres. Still, captains who come in from a long passage say that nothing is as welcome as the first
flash on the horizon. It means land, and harbour, and the end of the watch. The children of the town learn to count the
seconds between the flashes, and can tell each light along the coast by its rhythm alone.

Bread is older than writing. The first loaves were flat and hard, baked on stones beside the fire from grain that had
been crushed by hand. Somebody, probably in Egypt, left a bowl of dough standing in the warmth for too long, and found
that it had swollen and that the bread which came of it was soft. Nobody knew why until the nineteenth century, when a
chemist looked at yeast through a microscope and saw that it was alive. A baker still works by feel. The flour of one
year takes more water than that of another, and a wet morning slows the dough down. Most of the craft is waiting, and
knowing from the look of the surface when the waiting is over.
"""
"""Plain prose, written for this measurement."""


@dataclass(frozen=True)
class Options:
    """Right answers of a real model after a short fine-tuning."""

    from_: str = "smollm2"
    """The published model."""

    minutes: float = 5.0
    """Length of each build."""

    seeds: int = 1
    """Builds, with seeds 0, 1, …"""

    count: int = 100
    """Questions of each kind about held-out functions."""

    out: Path = Path("runs/real-answers")
    """Folder of the runs; finished ones in it are not built again."""

    before: bool = False
    """Also asks the model before training, which takes as long again."""

    show: bool = True
    """Prints the general prompts with both answers."""


def main() -> None:
    options = options_from_command_line(Options)
    per_seed = []
    for seed in range(options.seeds):
        run = options.out / f"seed-{seed}"
        if not (run / "summary.json").exists():
            command = [sys.executable, "-m", "underhood", "build", "--minutes", f"{options.minutes:g}"]
            command += ["--from", options.from_, "--seed", str(seed), "--out", str(run)]
            subprocess.run([*command, *(["--resume"] if run.exists() else [])], check=True)
        per_seed.append(measure(run, options))
    results = {name: [round(figures[name], 4) for figures in per_seed] for name in per_seed[0]}
    goals = {name: goal(mean(results[name]), limit) for name, limit in LIMITS.items()}
    for name, values in results.items():
        limit = LIMITS.get(name)
        promised = "" if limit is None else f"  ({'at least' if limit > 0 else 'at most'} {abs(limit):.2f})"
        missed = "" if limit is None or goals[name]["holds"] else "  MISSED"
        print(f"{name:<48}{mean(values):8.3f}{promised}{missed}")
    facts = machine("torch", "numpy")
    print_json("real_answers", results, **facts, minutes=options.minutes, count=options.count, goals=goals)


def measure(run: Path, options: Options) -> dict[str, float]:
    """Every figure of one run."""
    from underhood.infer.load import load

    before, after = load(run, "before"), load(run)
    figures: dict[str, float] = {}
    if options.before:
        answers = grounded(run, before, options.count)
        figures |= {f"before: {name}": value for name, value in answers.items()}
    figures |= grounded(run, after, options.count)
    bits = {name: [bits_per_byte(run, model, text) for model in (before, after)] for name, text in texts(run).items()}
    for name, (first, last) in bits.items():
        figures[f"bits per byte, {name}, before"] = first
        figures[f"bits per byte, {name}, more than before"] = last - first
    figures["general answers word for word as before"] = general(before, after, show=options.show)
    figures |= cost(run)
    return figures


def grounded(run: Path, loaded: Any, count: int) -> dict[str, float]:
    """Right answers and refusals from passages, in both modes."""
    from underhood.recipes.grounded_evaluation import evaluate_grounded
    from underhood.recipes.preparation import Clock, prepare
    from underhood.recipes.run import Run
    from underhood.retrieve.retriever import Retriever
    from underhood.retrieve.template import TUNED

    opened = Run.open(run)
    prepared = prepare(opened, Clock(opened))
    assert prepared.index is not None
    _, measured = evaluate_grounded(
        loaded.model,
        prepared.tokenizer,
        Retriever(prepared.index, TUNED, tokenizer=prepared.tokenizer),
        prepared.data.grounded,
        count,
        seed=1,
        template=prepared.template,
    )
    return {each.name: each.value for each in measured}


def texts(run: Path) -> dict[str, list[list[int]]]:
    """Token ids of what bits per byte is measured on: held-out documentation, and English."""
    from underhood.recipes.run import Run

    opened = Run.open(run)
    shards = opened.open_shards("held_out")
    beginnings = [shards.document(n)[:256].tolist() for n in range(0, len(shards), max(1, len(shards) // 16))]
    documentation = [[id for id in ids if id != shards.eot_id] for ids in beginnings]
    return {"documentation": documentation, "English": [opened.tokenizer.encode(ENGLISH)]}


def bits_per_byte(run: Path, loaded: Any, documents: list[list[int]]) -> float:
    """Of these documents, each from its beginning."""
    from underhood.data.pack import EvaluationWindows
    from underhood.evals.perplexity import held_out_loss
    from underhood.recipes.run import Run

    opened = Run.open(run)
    sizes = [len(opened.tokenizer.decode_bytes(ids)) for ids in documents]
    windows = EvaluationWindows(documents, sizes, eot_id=opened.end_id, context_length=512)
    return held_out_loss(loaded.model, windows).bits_per_byte


def general(before: Any, after: Any, *, show: bool) -> float:
    """ROUGE-L of the answers to the twenty general prompts, asked in a chat with retrieval on, with those before."""
    from underhood.data.general_chat import HELD_OUT_CHAT
    from underhood.evals.generation import rouge_l
    from underhood.infer.generate import generate
    from underhood.retrieve.retriever import open_retriever

    retriever = open_retriever(after)
    assert retriever is not None
    conversations = [[{"role": "user", "content": prompt}] for prompt in HELD_OUT_CHAT]
    read = [
        (before, conversations),
        (after, [list(retriever.prepare(turn).messages) for turn in conversations]),
    ]
    written = []
    for loaded, turns in read:
        ids = [loaded.template.render(loaded.tokenizer, turn, add_generation_prompt=True).ids for turn in turns]
        done = generate(loaded.model, ids, max_new_tokens=48, stop_ids=loaded.template.stop_ids(loaded.tokenizer))
        written.append([loaded.tokenizer.decode(completion.ids).strip() for completion in done])
    for prompt, first, last in zip(HELD_OUT_CHAT, *written, strict=True):
        if show:
            print(f"> {prompt}\n  before: {first!r}\n  after:  {last!r}")
    return mean(rouge_l(last, first) for first, last in zip(*written, strict=True))


def cost(run: Path) -> dict[str, float]:
    """Minutes of the build, and what the training read in them."""
    from underhood.recipes.run import Run

    summary = Run.open(run).note("summary")
    assert summary is not None
    stage = next(stage for stage in summary["stages"] if stage["name"] == "sft")
    return {
        "minutes": summary["seconds"] / 60,
        "minutes of training": stage["seconds"] / 60,
        "tokens trained on": stage["tokens"],
        "tokens per second": stage["tokens"] / stage["seconds"],
        "peak memory, GB": summary["peak_memory_gb"],
    }


if __name__ == "__main__":
    main()
