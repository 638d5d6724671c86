"""Finding a test set on disk or on the Hub, and its few-shot examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from underhood.core.errors import UserError
from underhood.data.records import hub_records, read_records
from underhood.evals.tasks import Item, Task, read_item


@dataclass(frozen=True)
class TestSet:
    """Questions, and what examples are taken from.

    Attributes:
        items: the questions that are scored.
        examples: items to show as examples; they may be the questions themselves, then none is shown to itself.
        source: where it was read.
    """

    __test__ = False  # not a test, whatever pytest thinks

    items: tuple[Item, ...]
    examples: tuple[Item, ...]
    source: str


def load_set(task: Task, folders: Sequence[Path] = (), *, limit: int | None = None, shots: int = 0) -> TestSet:
    """Reads a set from local files, or from the Hub where no folder is given.

    Examples come from the set's own training part if that is there (``train.jsonl`` or ``NAME_train.jsonl`` beside the
    file; the split ``train`` on the Hub), else from the questions.

    Args:
        folders: searched for `task.files`, folders inside them too.
        limit: only the first so many questions.
        shots: how many examples will be asked for; with 0 none are read.

    Raises:
        UserError: the set is not there, or is not what its name says.
    """
    if limit is not None and limit < 1:
        raise UserError("the limit of questions is too small", expected="1 or more", got=str(limit))
    if shots < 0:
        raise UserError("the number of examples is out of range", expected="0 or more", got=str(shots))
    wanted = None if limit is None or shots == 0 else max(limit, shots + 1)
    wanted = limit if shots == 0 else wanted
    if not folders:
        records = hub_records(task.hub, split=task.split, limit=wanted)
        source, training = f"hf:{task.hub}", None
    else:
        file = _find(task, folders)
        records, source, training = read_records(file, limit=wanted), str(file), _training(task, file)
    items = tuple(read_item(task, record, f"{source} record {number}") for number, record in enumerate(records, 1))
    if not items:
        raise UserError(f"{source} holds no questions")
    return TestSet(items[:limit], _examples(task, items, training, shots, source), source)


def with_examples(set_: TestSet, number: int, shots: int) -> tuple[str, ...]:
    """The contexts of question `number` with `shots` worked examples in front, a blank line behind each.

    The examples are the first ones that are not the question itself: the same for everyone who runs it.

    Raises:
        UserError: there are too few examples.
    """
    item = set_.items[number]
    shown = list(islice((example for example in set_.examples if example != item), shots))
    if len(shown) < shots:
        raise UserError(f"{set_.source} has too few questions for {shots} examples", got=str(len(shown)))
    front = "".join(f"{example.example}\n\n" for example in shown)
    return tuple(front + context for context in item.contexts)


def _examples(task: Task, items: tuple[Item, ...], training: Path | None, shots: int, source: str) -> tuple[Item, ...]:
    if shots == 0:
        return ()
    if source.startswith("hf:"):
        try:
            records = hub_records(task.hub, split="train", limit=shots + 1)
        except UserError as error:
            if "no split" not in error.what:
                raise
            return items
    elif training is not None:
        source, records = str(training), read_records(training, limit=shots + 1)
    else:
        return items
    return tuple(read_item(task, record, f"{source} record {number}") for number, record in enumerate(records, 1))


def _find(task: Task, folders: Sequence[Path]) -> Path:
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder} is not a folder", expected="a folder with the sets' .jsonl files")
        for name in task.files:
            candidates = [folder / name, *sorted(folder.rglob(name))]
            for path in candidates:
                if path.is_file():
                    return path
    searched = " or ".join(map(str, folders))
    raise UserError(f"{task.name} is not in {searched}", expected=" or ".join(task.files))


def _training(task: Task, file: Path) -> Path | None:
    for name in ("train.jsonl", f"{task.name}_train.jsonl"):
        path = file.with_name(name)
        if path.is_file() and path != file and (name != "train.jsonl" or file.parent.name == task.name):
            return path
    return None
