"""Questions to try: from what a build checked, for every kind of model, with one that should be refused."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from underhood.data.instruct import NOT_THERE
from underhood.infer.load import load
from underhood.retrieve.passages import Passage
from underhood.web.suggestions import (
    CHECKED,
    CONTINUED,
    GENERAL,
    INVENTED,
    INVENTED_QUESTIONS,
    OPENINGS,
    REFUSED,
    suggestions,
    summary_of,
)


@dataclass
class FakeTokenizer:
    special: dict[str, int] = field(default_factory=dict)


@dataclass
class FakeModel:
    """What `suggestions` reads of a loaded model."""

    chats: bool
    run: Path
    stage: str = "sft"
    tokenizer: FakeTokenizer = field(default_factory=FakeTokenizer)


def prompts(
    chats: bool, summary: dict[str, Any], run: Path = Path("none"), texts: tuple[str, ...] = ()
) -> list[tuple[str, str]]:
    passages = [Passage(title="", text=text, source="notes.md") for text in texts]
    made = suggestions(FakeModel(chats, run), summary, passages)  # pyright: ignore[reportArgumentType]
    return [(suggestion["prompt"], suggestion["note"]) for suggestion in made]


def test_suggestions_of_a_build_are_its_checked_questions_the_best_known_first() -> None:
    examples = [
        {"question": f"What does {name} do?", "answer": "", "title": name}
        for name in ("zlib.adler32", "textwrap.dedent", "os.path.join", "math.sqrt")
    ]
    refused = {"question": "What does textwrap.listdir do?", "answer": "", "model": "sft"}
    made = prompts(True, {"examples": examples, "refused": refused, "corpus": {"name": "pydocs"}})
    assert made == [
        ("What does math.sqrt do?", CHECKED),
        ("What does os.path.join do?", CHECKED),
        ("What does textwrap.dedent do?", CHECKED),
        ("What does textwrap.listdir do?", REFUSED),
    ]


def test_suggestions_from_samples_are_called_checked_only_where_this_model_was_right() -> None:
    def sample(prompt: str, text: str, kind: str = "describe") -> dict[str, Any]:
        return {"prompt": prompt, "kind": kind, "expected": "Right.", "answers": {"sft": {"text": text}}}

    samples = [
        sample("What does math.sqrt do?", "Wrong."),
        sample("What is a tide?", "Right. "),
        sample("What does os.zap do?", "Right.", "passages-invented"),
        sample("What does os.zop do?", "Right.", "refusal"),
    ]
    made = prompts(True, {"samples": samples, "corpus": {"name": "notes"}})
    assert made == [
        ("What is a tide?", CHECKED),
        ("What does math.sqrt do?", ""),
    ]


def test_invented_name_is_one_that_this_model_refused_and_that_no_document_has() -> None:
    def sample(prompt: str, answers: dict[str, str]) -> dict[str, Any]:
        texts = {stage: {"text": text} for stage, text in answers.items()}
        return {"prompt": prompt, "kind": "passages-invented", "expected": NOT_THERE, "answers": texts}

    summary = {
        "refused": {"question": "Where is the Hedgebarrow?", "answer": NOT_THERE, "model": "dpo"},
        "samples": [
            sample("What is a rakelock?", {"sft": "`Rake`: 12 €. [1]", "dpo": NOT_THERE}),
            sample("Who made the glovebin?", {"sft": NOT_THERE, "dpo": NOT_THERE}),
            sample("What is mulchfern?", {"sft": NOT_THERE, "dpo": NOT_THERE}),
        ],
    }
    # That of the build belongs to another stage, and the first sample this stage answered.
    assert prompts(True, summary)[-1] == ("Who made the glovebin?", REFUSED)
    # Documents that know the name, in any case or inside another word, rule it out.
    assert prompts(True, summary, texts=("The GloveBins are full.",))[-1] == ("What is mulchfern?", REFUSED)
    every = ("glovebin", "mulchfern")
    assert REFUSED not in {note for _, note in prompts(True, summary, texts=every)}


def test_invented_name_for_a_published_model_is_in_none_of_its_documents_nor_in_python() -> None:
    for number, question in enumerate(INVENTED_QUESTIONS):
        texts = tuple(INVENTED_QUESTIONS[:number])
        assert prompts(True, {}, texts=texts)[-1] == (question, INVENTED)
    assert not hasattr(math, "fizzroot")
    assert not hasattr(str, "twistcase")


def test_suggestions_of_a_published_model_are_general_and_of_one_that_does_not_chat_texts_to_continue() -> None:
    assert [prompt for prompt, _ in prompts(True, {})][:-1] == list(GENERAL)
    assert prompts(True, {})[-1][1] == INVENTED
    assert [prompt for prompt, _ in prompts(False, {})] == list(OPENINGS)
    # A run whose held-out text is gone still has something to begin with.
    assert [prompt for prompt, _ in prompts(False, {"corpus": {"name": "notes"}})] == list(OPENINGS)


def test_suggestions_of_a_base_model_are_beginnings_of_held_out_texts(tiny_run: Path) -> None:
    loaded = load(tiny_run, "base")
    made = suggestions(loaded, summary_of(tiny_run))
    assert made
    assert {suggestion["note"] for suggestion in made} == {CONTINUED}
    from underhood.data.shards import TokenShards

    shards = TokenShards.open(tiny_run / "data" / "held_out", verify=False)
    texts = [
        " ".join(loaded.tokenizer.decode([int(id) for id in shards.document(number)]).split())
        for number in range(len(shards))
    ]
    for suggestion in made:
        assert any(text.startswith(suggestion["prompt"]) for text in texts), suggestion


@pytest.mark.parametrize("content", ["", "[1]", "{"])
def test_summary_that_can_not_be_read_is_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / "summary.json").write_text(content)
    assert summary_of(tmp_path) == {}
    assert summary_of(tmp_path / "gone") == {}
