"""Does a one-minute build answer natural questions about a small folder of one's own, and name the right file?

Builds a model of each of three folders (`tests/own_data`: notes in Markdown, a CSV of products, HTML pages of a made-up
program) and asks ten questions about each, and five about things that are not in it. Questions and accepted answers
(`tests/own_data/questions.tsv`) were written before any model was trained. An answer is right if it holds accepted
words in at most two sentences and cites the right file.

Three other lines say what does the work: how often the passage that the search gives holds the answer at all, and how
often its first sentence, or the sentence that shares most words with the question, would have answered without a model.

    python benchmarks/bench_own_data.py [--minutes 1] [--seeds 1] [--out runs/own-data] [--show]
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from harness import REPOSITORY, machine, options_from_command_line, print_json

DATA = REPOSITORY / "tests" / "own_data"
FOLDERS = ("notes", "shop", "manual")
RIGHT_MIN = 6
"""Right answers of ten in each folder that are promised, with their source, in the default way of answering."""
MOST_SENTENCES = 2


@dataclass(frozen=True)
class Options:
    """Right answers from small folders."""

    minutes: float = 1.0
    """Length of each build."""

    seeds: int = 1
    """Builds of each folder, with seeds 0, 1, …"""

    steps: tuple[int, ...] = ()
    """Steps of pretraining and of fine-tuning in place of what fits into the time, for a machine that others use."""

    out: Path = Path("runs/own-data")
    """Folder of the runs; finished ones in it are not built again."""

    show: bool = False
    """Prints every question with its answer."""


@dataclass(frozen=True)
class OwnQuestion:
    """A question about a folder.

    Attributes:
        accepted: words of which an answer has to hold some; none where it has to be refused.
        file: the name of the file that has to be cited.
    """

    folder: str
    question: str
    accepted: tuple[str, ...]
    file: str


def read_questions() -> list[OwnQuestion]:
    """The questions in their order."""
    questions = []
    for line in (DATA / "questions.tsv").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            folder, question, accepted, file = line.split("\t")
            words = () if accepted == "-" else tuple(accepted.split("|"))
            questions.append(OwnQuestion(folder, question, words, file))
    return questions


def holds(text: str, accepted: Sequence[str]) -> bool:
    """Whether a text has some of the accepted words, in any case."""
    squeezed = " ".join(text.split()).casefold()
    return any(" ".join(words.split()).casefold() in squeezed for words in accepted)


def main() -> None:
    options = options_from_command_line(Options)
    results: dict[str, list[float]] = {}
    built_at: set[str] = set()
    for seed in range(options.seeds):
        for folder in FOLDERS:
            run = options.out / f"{folder}-{seed}"
            if not (run / "summary.json").exists():
                build(run, folder, seed, options)
            built_at.add(str(json.loads((run / "summary.json").read_text(encoding="utf-8"))["commit"]))
            for name, value in measure(run, folder, show=options.show).items():
                results.setdefault(f"{folder}: {name}", []).append(round(value, 3))
    for name, values in results.items():
        each = " ".join(f"{value:7.2f}" for value in values)
        print(f"{name:<56}{mean(values):7.2f}   [{each} ]")
    goals = {
        folder: {
            "value": (value := mean(results[f"{folder}: right of 10, as a chat answers"])),
            "limit": RIGHT_MIN,
            "holds": value >= RIGHT_MIN,
        }
        for folder in FOLDERS
    }
    for folder, goal in goals.items():
        print(
            f"{folder}: {goal['value']:.1f} of 10 ({'at least' if goal['holds'] else 'MISSED: at least'} {RIGHT_MIN})"
        )
    facts = machine("torch", "numpy")
    facts |= {"built_at": sorted(built_at), "minutes": options.minutes, "steps": list(options.steps)}
    print_json("own_data", results, **facts, goals=goals)


def build(run: Path, folder: str, seed: int, options: Options) -> None:
    command = [sys.executable, "-m", "underhood", "build", "--data", str(DATA / folder), "--seed", str(seed)]
    command += ["--minutes", f"{options.minutes:g}", "--out", str(run), *(["--resume"] if run.exists() else [])]
    if options.steps:
        pretrain, sft = options.steps
        command += ["--pretrain-steps", str(pretrain), "--sft-steps", str(sft)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def measure(run: Path, folder: str, *, show: bool = False) -> dict[str, float]:
    """Right answers of ten in every way of answering, refusals of five, and the figures of the search alone."""
    questions = [question for question in read_questions() if question.folder == folder]
    answer = answerer(run)
    figures: dict[str, float] = {}
    for name, quote in (("as a chat answers", None), ("free", False), ("quoting", True)):
        right = refused = 0
        for question in questions:
            text, files = answer(question.question, quote)
            is_right = right_answer(question, text, files)
            right += is_right and bool(question.accepted)
            refused += is_right and not question.accepted
            if show:
                print(f"{'ok   ' if is_right else 'WRONG'} {name}: {question.question}\n      {text!r} {files}")
        figures[f"right of 10, {name}"] = right
        figures[f"refused of 5, {name}"] = refused
    return figures | search_alone(run, [question for question in questions if question.accepted])


def right_answer(question: OwnQuestion, text: str, files: Sequence[str]) -> bool:
    from underhood.data.instruct import is_refusal
    from underhood.retrieve.sentences import sentences

    if not question.accepted:
        return is_refusal(text)
    short = len(sentences(text)) <= MOST_SENTENCES
    return short and holds(text, question.accepted) and [Path(file).name for file in files] == [question.file]


def answerer(run: Path) -> Callable[[str, bool | None], tuple[str, list[str]]]:
    """Asks the model of a run in a conversation of its own; the answer and the files that it cites."""
    import underhood
    from underhood.infer.sample import SamplingSpec

    loaded = underhood.load(run)
    retriever = underhood.open_retriever(loaded)
    assert retriever is not None

    def answer(question: str, quote: bool | None) -> tuple[str, list[str]]:
        prepared = retriever.prepare([{"role": "user", "content": question}], quote=quote)
        conversation = loaded.conversation(prepare=lambda messages: prepared)
        pieces = conversation.reply(question, max_new_tokens=128, sampling=SamplingSpec(temperature=0.0))
        text = "".join(pieces).strip()
        return text, list(dict.fromkeys(citation.passage.source for citation in prepared.citations(text)))

    return answer


def search_alone(run: Path, questions: Sequence[OwnQuestion]) -> dict[str, float]:
    """How often the passage that the search gives holds the answer, and two ways to take a sentence from it."""
    from underhood.retrieve.index import RUN_INDEX, PassageIndex
    from underhood.retrieve.retriever import Retriever
    from underhood.retrieve.sentences import sentences
    from underhood.retrieve.template import TAUGHT
    from underhood.retrieve.terms import terms

    retriever = Retriever(PassageIndex.load(run / RUN_INDEX), TAUGHT)
    counts = {
        "the passage holds the answer": 0,
        "its first sentence": 0,
        "its sentence with most words of the question": 0,
    }
    for question in questions:
        for hit in retriever.find(question.question)[:1]:
            if Path(hit.passage.source).name != question.file:
                continue
            wanted, pieces = set(terms(question.question)), sentences(hit.passage.text)
            best = max(pieces, key=lambda piece: len(wanted & set(terms(piece))))
            for name, text in zip(counts, (hit.passage.text, pieces[0], best), strict=True):
                counts[name] += holds(text, question.accepted)
    return {f"no model: {name}, of 10": float(count) for name, count in counts.items()}


if __name__ == "__main__":
    main()
