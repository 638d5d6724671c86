"""Published test sets: what a model is asked, and which answer is right.

Each set is read in two forms: as its authors publish it (the Hugging Face Hub's columns), and as evaluation suites pass
it on in JSON lines (prompt and choices made already). Either way an item becomes the same question in the words that
EleutherAI's evaluation harness has made customary, so that figures can be compared with published ones.

Three kinds of question: which of several texts is likeliest (ARC, HellaSwag, PIQA, BoolQ, and WinoGrande, where the
contexts differ and what follows is the same: "partial scoring", Trinh & Le 2018), what is the last word (LAMBADA), and
what is the number at the end of a worked answer (GSM8K).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from underhood.core.errors import UserError, nearest

Record = Mapping[str, Any]
Kind = Literal["choice", "last word", "generation"]


@dataclass(frozen=True)
class Item:
    """One question.

    Attributes:
        contexts: what is read; one for each continuation.
        continuations: what is scored after its context, its leading space included.
        answer: number of the right one.
        target: what a worked example (few-shot) shows behind its context.
    """

    contexts: tuple[str, ...]
    continuations: tuple[str, ...]
    answer: int

    @property
    def target(self) -> str:
        return self.continuations[self.answer]

    @property
    def example(self) -> str:
        """The question with its right answer, as a few-shot example shows it."""
        return self.contexts[self.answer] + self.target


@dataclass(frozen=True, kw_only=True)
class Task:
    """A test set.

    Attributes:
        name: what it is called on the command line.
        title: with its source.
        kind: how it is scored.
        read: an item from one record of the set.
        hub: where the Hub has it, ``OWNER/NAME:CONFIG``.
        split: the split that is scored there; examples come from ``train`` if the set has it.
        other_files: further names of its local file, e.g. the one it was published under.
        shots: worked examples in front of each question where nothing else is said.
    """

    name: str
    title: str
    read: Callable[[Record], Item]
    hub: str
    split: str
    kind: Kind = "choice"
    other_files: tuple[str, ...] = ()
    shots: int = 0

    @property
    def files(self) -> tuple[str, ...]:
        """Names of local files; the first that exists is read."""
        return (f"{self.name}.jsonl", *self.other_files, f"{self.name}/test.jsonl", f"{self.name}/validation.jsonl")


def _choices(context: str, choices: list[str], answer: int) -> Item:
    texts = tuple(f" {choice}" for choice in choices)
    return Item((context,) * len(texts), texts, answer)


def _arc(record: Record) -> Item:
    if "query" in record:
        return _choices(f"{record['query']}\nAnswer:", record["choices"], record["gold"])
    choices = record["choices"]
    answer = choices["label"].index(record["answerKey"])
    return _choices(f"Question: {record['question']}\nAnswer:", choices["text"], answer)


def _hellaswag(record: Record) -> Item:
    if "query" in record:
        return _choices(record["query"], record["choices"], record["gold"])
    context = f"{record['activity_label']}: {record['ctx_a']} {record['ctx_b'].capitalize()}"
    endings = [_without_wikihow(ending) for ending in record["endings"]]
    return _choices(_without_wikihow(context), endings, int(record["label"]))


def _without_wikihow(text: str) -> str:
    """HellaSwag's WikiHow half still holds the mark-up it was cut from: ``[title]``, ``[step]``."""
    text = text.strip().replace(" [title]", ". ")
    return "\n".join(_without_brackets(line) for line in text.split("\n")).replace("  ", " ")


def _without_brackets(line: str) -> str:
    """The line without what is in square brackets, in linear time: a bracket that never closes ends the search."""
    kept: list[str] = []
    at = 0
    while (begin := line.find("[", at)) >= 0 and (end := line.find("]", begin)) >= 0:
        kept.append(line[at:begin])
        at = end + 1
    return "".join([*kept, line[at:]])


def _piqa(record: Record) -> Item:
    if "query" in record:
        return _choices(f"{record['query'].rstrip()}\nAnswer:", record["choices"], record["gold"])
    return _choices(f"Question: {record['goal']}\nAnswer:", [record["sol1"], record["sol2"]], int(record["label"]))


def _boolq(record: Record) -> Item:
    if "query" in record:
        return _choices(f"{record['query']}\nAnswer:", record["choices"], record["gold"])
    question = record["question"].rstrip("?")
    answer = record["answer"] if "answer" in record else record["label"]
    return _choices(f"{record['passage']}\nQuestion: {question}?\nAnswer:", ["no", "yes"], int(answer))


def _winogrande(record: Record) -> Item:
    if "context_options" in record:
        contexts, rest, answer = record["context_options"], record["continuation"], record["gold"]
    else:
        before, _, rest = record["sentence"].partition("_")
        contexts, answer = [before + record["option1"], before + record["option2"]], int(record["answer"]) - 1
    return Item(tuple(contexts), (f" {rest.strip()}",) * len(contexts), answer)


def _lambada(record: Record) -> Item:
    if "text" in record:
        context, _, word = record["text"].rpartition(" ")
    else:
        context, word = record["context"], record["continuation"]
    return Item((context,), (f" {word}",), 0)


def _gsm8k(record: Record) -> Item:
    return Item((f"Question: {record['question']}\nAnswer:",), (f" {record['answer']}",), 0)


TASKS: Mapping[str, Task] = {
    task.name: task
    for task in (
        Task(
            name="arc_easy",
            title="ARC-Easy (Clark et al. 2018)",
            read=_arc,
            hub="allenai/ai2_arc:ARC-Easy",
            split="test",
        ),
        Task(
            name="hellaswag",
            title="HellaSwag (Zellers et al. 2019)",
            read=_hellaswag,
            hub="Rowan/hellaswag",
            split="validation",
            other_files=("hellaswag_val.jsonl", "hellaswag_val_1k.jsonl"),
        ),
        Task(
            name="piqa",
            title="PIQA (Bisk et al. 2020)",
            read=_piqa,
            hub="baber/piqa",
            split="validation",
        ),
        Task(
            name="winogrande",
            title="WinoGrande (Sakaguchi et al. 2019)",
            read=_winogrande,
            hub="allenai/winogrande:winogrande_xl",
            split="validation",
        ),
        Task(
            name="boolq",
            title="BoolQ (Clark et al. 2019)",
            read=_boolq,
            hub="google/boolq",
            split="validation",
        ),
        Task(
            name="lambada",
            title="LAMBADA (Paperno et al. 2016), OpenAI's version",
            kind="last word",
            read=_lambada,
            hub="EleutherAI/lambada_openai:default",
            split="test",
            other_files=("lambada_openai.jsonl",),
        ),
        Task(
            name="gsm8k",
            title="GSM8K (Cobbe et al. 2021)",
            kind="generation",
            read=_gsm8k,
            hub="openai/gsm8k:main",
            split="test",
            shots=5,
        ),
    )
}
"""The sets that are known, by name."""


def task_named(name: str) -> Task:
    """The set called `name`.

    Raises:
        UserError: there is none; the nearest is named.
    """
    if name not in TASKS:
        near = nearest(name, TASKS)
        raise UserError(f"no task {name!r}", expected=", ".join(TASKS), fix=f"Did you mean {near}?" if near else None)
    return TASKS[name]


def read_item(task: Task, record: Record, where: str) -> Item:
    """The item of one record.

    Raises:
        UserError: the record is not of this set; `where` says which it is.
    """
    try:
        item = task.read(record)
        whole = bool(item.continuations) and all(item.contexts) and all(text.strip() for text in item.continuations)
        if not whole or not 0 <= item.answer < len(item.continuations):
            raise ValueError("an empty text, or an answer that is none of the choices")
    except KeyError as error:
        got = ", ".join(record)
        raise UserError(
            f"{where} is not a record of {task.name}", expected=f"a field {error.args[0]!r}", got=got
        ) from None
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{where} is not a record of {task.name}: {error}") from None
    return item
