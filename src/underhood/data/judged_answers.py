"""Judged answers of a file: preference pairs, rankings, or single answers marked good or bad.

========  ==========================================================  ==========================================
form      record                                                      notes
========  ==========================================================  ==========================================
pairs     ``{"prompt": …, "chosen": …, "rejected": …}``               as trl and most sets have them; a number
                                                                      ``margin`` says how clear the choice is
rankings  ``{"prompt": …, "answers": [...], "ranking": [1, 3, 2]}``   the rank of each answer, 1 being the best;
                                                                      equal ranks are not compared
labels    ``{"prompt": …, "completion": …, "label": true}``           good or bad, no pairs (KTO)
========  ==========================================================  ==========================================

A prompt is a text or a list of messages, an answer a text or a list of one message by the assistant. Without a prompt,
chosen and rejected are whole conversations that differ in their last turn. Files are JSON lines, JSON or Parquet.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from underhood.core.errors import UserError
from underhood.data.record_files import json_records, parquet_rows
from underhood.text.chat import check_messages

FORMS = (
    '{"prompt": …, "chosen": …, "rejected": …}',
    '{"prompt": …, "answers": […], "ranking": [1, 2, …]}',
    '{"prompt": …, "completion": …, "label": true | false}',
)

Form = Literal["pairs", "rankings", "labels"]


@dataclass(frozen=True)
class JudgedAnswers:
    """The answers to one prompt and how good they are.

    Attributes:
        messages: the conversation so far; a prompt that was a plain text is one message of the user.
        answers: what the assistant might say next.
        ranks: of the answers, lower is better; of a single labelled answer 0 (good) or 1 (bad).
        source: file and line, e.g. ``"pairs.jsonl line 3"``.
        margin: how clearly the better answer of a pair is better, or None.
    """

    messages: tuple[Mapping[str, str], ...]
    answers: tuple[str, ...]
    ranks: tuple[int, ...]
    source: str
    margin: float | None = None


@dataclass(frozen=True)
class JudgedFile:
    """The judged answers of one file.

    Attributes:
        equal: pairs left out because both answers are the same text.
        unused: fields that nothing uses, with how many records have them.
    """

    examples: tuple[JudgedAnswers, ...]
    form: Form
    equal: int = 0
    unused: dict[str, int] = field(default_factory=dict)


def read_judged_answers(path: Path, forms: Sequence[Form]) -> JudgedFile:
    """All judged answers of a file; the first record decides the form.

    Args:
        forms: those that can be used.

    Raises:
        UserError: no such file, an unknown ending, or a record of another form or without what it needs, which is
            named by file and line.
    """
    kind = _kind(path)
    examples: list[JudgedAnswers] = []
    form: Form | None = None
    equal, unused = 0, Counter[str]()
    for where, record in _records(path, kind):
        source = where.replace(str(path), path.name, 1)
        if not isinstance(record, Mapping):
            raise UserError(f"{source} is not a JSON object", got=type(record).__name__)
        form = form or _form_of(record, source, forms)
        example, used = _READERS[form](record, source)
        unused.update(name for name in record if name not in used)
        if len(set(example.answers)) < len(example.answers) and form == "pairs":
            equal += 1
            continue
        examples.append(example)
    if form is None:
        raise UserError(f"{path} holds no judged answer")
    if not examples:
        raise UserError(f"all {equal:,} pairs of {path} have two equal answers, which teach nothing")
    return JudgedFile(tuple(examples), form, equal, dict(unused))


ANSWER_FIELDS = ("answer", "completion", "response", "chosen")


def read_answers_to_score(path: Path) -> tuple[JudgedAnswers, ...]:
    """Prompts with answers that nobody has judged: in ``answers``, or in a field of `ANSWER_FIELDS`.

    Raises:
        UserError: as `read_judged_answers`.
    """
    kind = _kind(path)
    examples = []
    for where, record in _records(path, kind):
        source = where.replace(str(path), path.name, 1)
        if not isinstance(record, Mapping):
            raise UserError(f"{source} is not a JSON object", got=type(record).__name__)
        messages = prompt_messages(_field(record, "prompt", source), source)
        name = next((name for name in ANSWER_FIELDS if record.get(name) is not None), None)
        answers = record.get("answers") or ([] if name is None else [record[name]])
        if not isinstance(answers, list) or not answers:
            expected = f"answers, or {' or '.join(ANSWER_FIELDS)}"
            raise UserError(f"{source} has no answer to score", expected=expected, got=", ".join(map(str, record)))
        texts = tuple(_answer(answer, "an answer", source) for answer in answers)
        examples.append(JudgedAnswers(messages, texts, tuple(range(len(texts))), source))
    if not examples:
        raise UserError(f"{path} holds no answer to score")
    return tuple(examples)


def _kind(path: Path) -> str:
    kind = path.suffix.lower()
    if kind not in (".jsonl", ".json", ".parquet"):
        raise UserError(
            f"can't read judged answers from {path}", expected=".jsonl, .json or .parquet", got=kind or "no ending"
        )
    return kind


def _records(path: Path, kind: str) -> Iterator[tuple[str, Any]]:
    yield from parquet_rows(path) if kind == ".parquet" else json_records(path)


def _form_of(record: Mapping[str, Any], source: str, forms: Sequence[Form]) -> Form:
    fields: dict[Form, tuple[str, ...]] = {
        "pairs": ("chosen", "rejected"),
        "rankings": ("answers", "ranking"),
        "labels": ("completion", "label"),
    }
    for form, names in fields.items():
        if all(name in record for name in names):
            if form not in forms:
                raise UserError(f"{source} holds {form}, which this does not learn from", expected=" or ".join(forms))
            return form
    raise UserError(
        f"{source} holds no judged answers",
        got=f"the fields {', '.join(map(str, record)) or 'none'}",
        fix=f"Known forms are {'; '.join(FORMS)}",
    )


def _pair(record: Mapping[str, Any], source: str) -> tuple[JudgedAnswers, set[str]]:
    chosen, rejected = (_field(record, name, source) for name in ("chosen", "rejected"))
    if record.get("prompt") is None:
        messages, answers = _common_prompt(chosen, rejected, source)
    else:
        messages = prompt_messages(record["prompt"], source)
        answers = (_answer(chosen, "chosen", source), _answer(rejected, "rejected", source))
    margin = record.get("margin")
    if margin is not None and (isinstance(margin, bool) or not isinstance(margin, (int, float))):
        raise UserError(f"{source}: margin is not a number", got=repr(margin))
    return JudgedAnswers(messages, answers, (0, 1), source, margin), {"prompt", "chosen", "rejected", "margin"}


def _ranking(record: Mapping[str, Any], source: str) -> tuple[JudgedAnswers, set[str]]:
    answers, ranks = _field(record, "answers", source), _field(record, "ranking", source)
    if not isinstance(answers, list) or len(answers) < 2:
        raise UserError(f"{source}: answers is not a list of two or more", got=repr(answers)[:80])
    whole = isinstance(ranks, list) and all(isinstance(rank, int) and not isinstance(rank, bool) for rank in ranks)
    if not whole or len(ranks) != len(answers) or min(ranks) < 0:
        raise UserError(
            f"{source}: ranking does not say the rank of each answer",
            expected=f"{len(answers)} whole numbers, 1 being the best",
            got=repr(ranks)[:80],
        )
    if len(set(ranks)) < 2:
        raise UserError(f"{source}: all answers have the same rank, so nothing is compared", got=repr(ranks)[:80])
    messages = prompt_messages(_field(record, "prompt", source), source)
    texts = tuple(_answer(answer, "an answer", source) for answer in answers)
    return JudgedAnswers(messages, texts, tuple(ranks), source), {"prompt", "answers", "ranking"}


def _label(record: Mapping[str, Any], source: str) -> tuple[JudgedAnswers, set[str]]:
    label = _field(record, "label", source)
    if not isinstance(label, bool) and label not in (0, 1):
        raise UserError(f"{source}: label is not true or false", got=repr(label))
    messages = prompt_messages(_field(record, "prompt", source), source)
    answer = _answer(_field(record, "completion", source), "completion", source)
    return JudgedAnswers(messages, (answer,), (0 if label else 1,), source), {"prompt", "completion", "label"}


_READERS = {"pairs": _pair, "rankings": _ranking, "labels": _label}


def prompt_messages(value: Any, source: str) -> tuple[Mapping[str, str], ...]:
    """A prompt as messages.

    Raises:
        UserError: it is neither a text nor a conversation that waits for an answer.
    """
    if isinstance(value, str):
        if not value.strip():
            raise UserError(f"{source}: the prompt is empty")
        return ({"role": "user", "content": value},)
    _check(value, source)
    if value[-1]["role"] == "assistant":
        raise UserError(f"{source}: the prompt ends with an answer", expected="a user's message at its end")
    return tuple(value)


def _answer(value: Any, name: str, source: str) -> str:
    if isinstance(value, list):
        _check(value, source)
        if len(value) != 1 or value[0]["role"] != "assistant":
            raise UserError(f"{source}: {name} is not one answer", expected="one message by the assistant")
        value = value[0]["content"]
    if not isinstance(value, str):
        raise UserError(f"{source}: {name} is not a text", got=type(value).__name__)
    if not value.strip():
        raise UserError(f"{source}: {name} is empty")
    return value


def _common_prompt(chosen: Any, rejected: Any, source: str) -> tuple[tuple[Mapping[str, str], ...], tuple[str, str]]:
    """The prompt that two whole conversations share, and their last turns."""
    if isinstance(chosen, str) or isinstance(rejected, str):
        raise UserError(f"{source} has no prompt", expected="a field prompt, or whole conversations in both answers")
    for messages in (chosen, rejected):
        _check(messages, source)
    if len(chosen) < 2 or list(chosen[:-1]) != list(rejected[:-1]):
        raise UserError(f"{source}: the two conversations differ before their last turn", fix="Give them a prompt")
    messages = prompt_messages(chosen[:-1], source)
    return messages, (_answer(chosen[-1:], "chosen", source), _answer(rejected[-1:], "rejected", source))


def _check(messages: Any, source: str) -> None:
    if not isinstance(messages, list):
        raise UserError(f"{source}: neither a text nor a list of messages", got=type(messages).__name__)
    try:
        check_messages(messages)
    except UserError as error:
        raise UserError(f"{source}: {error.what}", expected=error.expected, got=error.got, fix=error.fix) from error


def _field(record: Mapping[str, Any], name: str, source: str) -> Any:
    if record.get(name) is None:
        raise UserError(f"{source} has no {name}", got=f"the fields {', '.join(map(str, record)) or 'none'}")
    return record[name]
