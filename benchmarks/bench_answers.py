"""Are the answers of a five-minute build right? Closed book, from passages, and held to quotations of them.

Builds a model per seed (or takes finished runs by --runs) and asks it about functions of held-out modules in the ways
people type, about invented names, and sixty natural questions (`questions/natural.tsv`). The documentation itself is
the judge: an answer is right if it is the first sentence of the function's docstring, or names all its parameters.

    python benchmarks/bench_answers.py [--minutes 5] [--seeds 3] [--count 200] [--out runs/answers] [--show]
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from harness import machine, options_from_command_line, print_json

QUESTIONS = Path(__file__).with_name("questions") / "natural.tsv"
CLOSED_BOOK = ("right answers, closed book", "ROUGE-L of answers, held-out", "refuses invented functions")
LIMITS = {
    "right answers, retrieval": 0.50,
    "right answers, quoting": 0.85,
    "right parameters, retrieval": 0.70,
    "right parameters, quoting": 0.90,
    "refuses invented names, retrieval": 0.70,
    "refuses invented names, quoting": 0.90,
    "refuses what is there, retrieval": -0.10,
    "refuses what is there, quoting": -0.10,
    "natural questions, quoting": 0.55,
}
"""What is promised, on average over the seeds: at least this, or (negative) at most."""


@dataclass(frozen=True)
class Options:
    """Right answers of five-minute builds."""

    minutes: float = 5.0
    """Length of each build."""

    seeds: int = 3
    """Builds, with seeds 0, 1, …"""

    count: int = 200
    """Questions of each kind about held-out functions."""

    out: Path = Path("runs/answers")
    """Folder of the runs; finished ones in it are not built again."""

    show: bool = False
    """Prints every natural question with its answer."""


def main() -> None:
    options = options_from_command_line(Options)
    per_seed = []
    for seed in range(options.seeds):
        run = options.out / f"seed-{seed}"
        if not (run / "summary.json").exists():
            command = [sys.executable, "-m", "underhood", "build", "--minutes", f"{options.minutes:g}"]
            command += ["--seed", str(seed), "--out", str(run), *(["--resume"] if run.exists() else [])]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        per_seed.append(measure(run, options))
    names = list(per_seed[0])
    results = {name: [round(figures[name], 4) for figures in per_seed] for name in names}
    goals = {name: goal(mean(results[name]), limit) for name, limit in LIMITS.items()}
    for name in names:
        limit = LIMITS.get(name)
        promised = "" if limit is None else f"  ({'at least' if limit > 0 else 'at most'} {abs(limit):.2f})"
        missed = "" if limit is None or goals[name]["holds"] else "  MISSED"
        each = " ".join(f"{value:8.3f}" for value in results[name])
        print(f"{name:<40}{mean(results[name]):8.3f}   [{each} ]{promised}{missed}")
    facts = machine("torch", "numpy")
    print_json("answers", results, **facts, minutes=options.minutes, count=options.count, goals=goals)


def goal(value: float, limit: float) -> dict[str, Any]:
    return {"value": round(value, 4), "limit": limit, "holds": value >= limit if limit > 0 else value <= -limit}


def measure(run: Path, options: Options) -> dict[str, float]:
    """Every figure of one run."""
    import underhood
    from underhood.evals.table import ResultsTable
    from underhood.recipes.grounded_evaluation import evaluate_grounded
    from underhood.recipes.preparation import Clock, prepare
    from underhood.recipes.run import Run
    from underhood.retrieve.retriever import Retriever
    from underhood.retrieve.template import TAUGHT

    opened = Run.open(run)
    prepared, summary = prepare(opened, Clock(opened)), opened.note("summary")
    assert summary is not None
    assert prepared.index is not None
    table = ResultsTable.from_json(summary["results"], where="summary.json")
    _, measured = evaluate_grounded(
        underhood.load(run).model,
        prepared.tokenizer,
        Retriever(prepared.index, TAUGHT),
        prepared.data.grounded,
        options.count,
        seed=1,
    )
    closed = [each for each in table.stages[-1].measurements if each.name in CLOSED_BOOK]
    figures = {each.name: each.value for each in (*closed, *measured)}
    for mode in ("retrieval", "quoting"):
        figures[f"natural questions, {mode}"] = natural(run, quote=mode == "quoting", show=options.show)
    first = {each.name: each.value for each in table.stages[0].measurements}
    figures["bits per byte"] = first["bits per byte"]
    figures["minutes"] = summary["seconds"] / 60
    figures["peak memory, GB"] = summary["peak_memory_gb"]
    figures["seconds per answer"] = seconds_per_answer(run)
    return figures


def natural(run: Path, *, quote: bool, show: bool = False) -> float:
    """Share of the natural questions that are answered rightly, each in a conversation of its own."""
    judges = judges_of_kinds()
    answer = answerer(run, quote=quote)
    right = []
    for line in QUESTIONS.read_text(encoding="utf-8").splitlines():
        if line.startswith("#") or not line:
            continue
        kind, question, accepted = line.split("\t")
        text = answer(question)
        right.append(judges[kind](text, accepted.split()))
        if show:
            print(f"{'ok   ' if right[-1] else 'WRONG'} {question}\n      {text!r}")
    return mean(right)


def answerer(run: Path, *, quote: bool) -> Callable[[str], str]:
    import underhood
    from underhood.retrieve.retriever import open_retriever

    loaded = underhood.load(run)
    retriever = open_retriever(loaded)
    assert retriever is not None

    def answer(question: str) -> str:
        talk = loaded.conversation(prepare=lambda messages: retriever.prepare(messages, quote=quote))
        return "".join(talk.reply(question, max_new_tokens=128)).strip()

    return answer


def seconds_per_answer(run: Path) -> float:
    """Median time from a question to the end of its answer, index and model being loaded."""
    from statistics import median

    answer = answerer(run, quote=True)
    questions = ["What does os.path.join do?", "How do I delete a directory tree?", "parameters of str.split"]
    times = []
    for question in 3 * questions:
        start = time.perf_counter()
        answer(question)
        times.append(time.perf_counter() - start)
    return median(times)


def judges_of_kinds() -> dict[str, Callable[[str, Sequence[str]], bool]]:
    """For each kind of natural question, whether an answer is right, from what the documentation says."""
    from underhood.data.grounded import answer_from, parameters_sentence
    from underhood.data.instruct import is_refusal
    from underhood.data.pydocs import documented_entries, summary_of
    from underhood.recipes.grounded_evaluation import is_right

    entries = {entry.name: entry for entry in documented_entries()}

    def describes(text: str, accepted: Sequence[str]) -> bool:
        summaries = [(name, summary_of(entries[name].doc, name)) for name in accepted if name in entries]
        return any(
            is_right(text, summary) or is_right(text, answer_from(name, summary))
            for name, summary in summaries
            if summary
        )

    def parameters(text: str, accepted: Sequence[str]) -> bool:
        return any(
            is_right(text, answer_from(name, parameters_sentence(entries[name].parameters))) for name in accepted
        )

    def talks(*words: str) -> Callable[[str, Sequence[str]], bool]:
        return lambda text, _: not is_refusal(text) and any(word in text.lower() for word in words)

    def refuses(text: str, _: Sequence[str]) -> bool:
        return is_refusal(text)

    return {
        "what": describes,
        "how-to": describes,
        "parameters": parameters,
        "greeting": talks("hello", "hi!", "welcome", "ask me"),
        "identity": talks("language model", "i answer questions"),
        "off-topic": refuses,
        "invented": refuses,
    }


if __name__ == "__main__":
    main()
