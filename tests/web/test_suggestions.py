"""Questions to try: from what a build checked, for every kind of model, with one that should be refused."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from underhood.infer.load import load
from underhood.web.suggestions import CHECKED, CONTINUED, GENERAL, INVENTED, OPENINGS, suggestions, summary_of


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


def prompts(chats: bool, summary: dict[str, Any], run: Path = Path("none")) -> list[tuple[str, str]]:
    made = suggestions(FakeModel(chats, run), summary)  # pyright: ignore[reportArgumentType]
    return [(suggestion["prompt"], suggestion["note"]) for suggestion in made]


def test_suggestions_of_a_build_are_its_checked_questions_the_best_known_first() -> None:
    examples = [
        {"question": f"What does {name} do?", "answer": "", "title": name}
        for name in ("zlib.adler32", "textwrap.dedent", "os.path.join", "math.sqrt")
    ]
    made = prompts(True, {"examples": examples, "corpus": {"name": "pydocs"}})
    assert made == [
        ("What does math.sqrt do?", CHECKED),
        ("What does os.path.join do?", CHECKED),
        ("What does textwrap.dedent do?", CHECKED),
        ("What does math.fizzroot do?", INVENTED),
    ]


def test_suggestions_from_samples_are_called_checked_only_where_this_model_was_right() -> None:
    def sample(prompt: str, text: str, kind: str = "describe") -> dict[str, Any]:
        return {"prompt": prompt, "kind": kind, "expected": "Right.", "answers": {"sft": {"text": text}}}

    samples = [
        sample("What does math.sqrt do?", "Wrong."),
        sample("What is a tide?", "Right. "),
        sample("What does os.zap do?", "Right.", "refusal"),
    ]
    made = prompts(True, {"samples": samples, "corpus": {"name": "notes"}})
    assert made == [
        ("What is a tide?", CHECKED),
        ("What does math.sqrt do?", ""),
        ("What is a glimmerfax?", INVENTED),
    ]


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
