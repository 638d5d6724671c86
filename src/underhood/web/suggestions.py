"""Questions to try on a model that a newcomer can judge: answered ones, and an invented name that it should refuse."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from underhood.core.errors import UserError
from underhood.data.instruct import is_refusal
from underhood.data.shards import TokenShards
from underhood.infer.load import LoadedModel
from underhood.recipes.training_data import GROUNDED
from underhood.retrieve.absence import absent_words
from underhood.retrieve.passages import Passage

SHOWN = 3
"""Questions beside the invented one."""

WELL_KNOWN = (
    "math.sqrt", "os.path.join", "sorted", "len", "print", "random.choice", "json.loads", "str.split", "math.floor",
    "time.sleep", "shutil.rmtree", "os.listdir", "str.upper", "list.append", "math.gcd", "random.shuffle", "os.getcwd",
)  # fmt: skip
"""Functions that most people who know Python can judge an answer about, the best known first."""

GENERAL = (
    "What is the capital of France?",
    "Write one sentence about the sea.",
    "Name three colours of the rainbow.",
)
OPENINGS = ("Once upon a time", "The most important thing about", "In the morning, the")
INVENTED_QUESTIONS = (
    "What does math.fizzroot do?",
    "What does str.twistcase do?",
    "What is a glimmerfax?",
    "Who wrote The Quorbling Lighthouse?",
)
"""For models whose evaluation had no such questions; one is taken whose name the documents do not have."""

INVENTED_KIND = f"{GROUNDED}invented"
"""Kind of the recorded answers about invented names, put from passages."""

CHECKED = "checked when it was built"
CONTINUED = "from held-out text, to continue"
INVENTED = "invented: should be refused"
REFUSED = "invented: refused when it was built"


def suggestions(
    loaded: LoadedModel, summary: Mapping[str, Any], passages: Sequence[Passage] = ()
) -> list[dict[str, str]]:
    """Prompts for a model, each with ``note``, what one should know of it ("" if nothing).

    A chat model gets questions that it answered right when its build checked it, the best known names first, then
    those that its evaluation asked; one that others published gets general ones. The last question has an invented
    name that no document has; of a built model it is one that the model refused in its evaluation, or there is none.
    A model that does not chat gets the beginnings of texts that it has not read.

    Args:
        summary: the run's ``summary.json``; empty for a published model.
        passages: the documents that the model answers from.
    """
    if not loaded.chats:
        openings = _held_out_openings(loaded) if summary else []
        return [_prompt(text, CONTINUED) for text in openings] or [_prompt(text, "to continue") for text in OPENINGS]
    examples: Sequence[Mapping[str, Any]] = summary.get("examples") or ()
    checked = [str(example["question"]) for example in examples]
    questions_seen = [sample for sample in summary.get("samples") or () if _is_question(sample)]
    checked += [str(sample["prompt"]) for sample in questions_seen if _answered(sample, loaded.stage)]
    others = [str(sample["prompt"]) for sample in questions_seen]
    questions = [*sorted(dict.fromkeys(checked), key=_rank), *sorted(set(others) - set(checked), key=_rank)]
    prompts = [_prompt(question, CHECKED if question in checked else "") for question in questions[:SHOWN]]
    invented = _refused(loaded.stage, summary, passages) if summary else _never_asked(passages)
    return (prompts or [_prompt(question, "") for question in GENERAL]) + invented


def summary_of(run: Path) -> dict[str, Any]:
    """A run's ``summary.json``, or nothing where there is none that can be read."""
    try:
        summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return summary if isinstance(summary, dict) else {}


def _prompt(text: str, note: str) -> dict[str, str]:
    return {"prompt": text, "note": note}


def _rank(question: str) -> tuple[int, str]:
    """Questions about the best known functions first."""
    words = {word.strip("`?.,:()") for word in question.split()}
    known = [index for index, name in enumerate(WELL_KNOWN) if name in words]
    return min(known, default=len(WELL_KNOWN)), question


def _answered(sample: Mapping[str, Any], model: str) -> bool:
    """Whether the evaluation saw the model answer just what was expected."""
    answer = (sample.get("answers") or {}).get(model) or {}
    return bool(sample.get("expected")) and str(answer.get("text", "")).strip() == str(sample["expected"]).strip()


def _is_question(sample: Mapping[str, Any]) -> bool:
    """Whether a recorded sample asks about something real, so that its answer can be judged."""
    kind = str(sample.get("kind", ""))
    return bool(sample.get("prompt")) and "refus" not in kind and "invented" not in kind


def _refused(model: str, summary: Mapping[str, Any], passages: Sequence[Passage]) -> list[dict[str, str]]:
    """A question about an invented name that this model refused in its run's evaluation, as it would in a chat."""
    example = summary.get("refused") or {}
    questions = [str(example["question"])] if example.get("model") == model else []
    for sample in summary.get("samples") or ():
        answer = (sample.get("answers") or {}).get(model) or {}
        if sample.get("kind") == INVENTED_KIND and is_refusal(str(answer.get("text", ""))):
            questions.append(str(sample["prompt"]))
    questions.sort(key=lambda question: not (question[:1].isupper() and question.endswith("?")))  # well put ones first
    checked = (question for question in questions if not passages or absent_words(question, passages))
    return [_prompt(question, REFUSED) for question in islice(checked, 1)]


def _never_asked(passages: Sequence[Passage]) -> list[dict[str, str]]:
    """An invented name for a model that was not built here; nobody knows how it answers."""
    checked = (question for question in INVENTED_QUESTIONS if absent_words(question, passages))
    return [_prompt(question, INVENTED) for question in islice(checked, 1)]


def _held_out_openings(loaded: LoadedModel) -> list[str]:
    """The first words of held-out documents, cut at a word; empty where the run keeps none that can be read."""
    try:
        shards = TokenShards.open(loaded.run / "data" / "held_out", verify=False)
        special = set(loaded.tokenizer.special.values())
        texts = []
        for number in np.linspace(0, len(shards) - 1, 4 * SHOWN).astype(int):
            ids = [int(id) for id in shards.document(int(number))[:24] if int(id) not in special]
            words = loaded.tokenizer.decode(ids).split()[:-1]
            if len(words) >= 3:
                texts.append(" ".join(words[:8]))
    except (UserError, OSError, ValueError):
        return []
    return list(dict.fromkeys(texts))[:SHOWN]
