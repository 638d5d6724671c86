"""Contexts too short for passages, or for any conversation: what does not fit is left out and counted, no error."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import ModuleType

import pytest

from needs import REPOSITORY
from tinyrun import TINY
from underhood.cli.main import main
from underhood.core.runlog import read_events
from underhood.recipes import evaluation, grounded_evaluation
from underhood.recipes.context_fit import fitting_data, fitting_prompts, prompt_limit
from underhood.recipes.run import Run
from underhood.recipes.training_data import ReferenceAnswer, read_stage_data
from underhood.text.chat import CHATML

pytestmark = pytest.mark.usefixtures("quick_builds")

NOTES = REPOSITORY / "tests" / "own_data" / "notes"
OPTIONS = [word if word != "96" else "{context}" for word in TINY]


def built(folder: Path, context: int, data: Path = NOTES) -> Run:
    words = [word.format(context=context) for word in OPTIONS]
    assert main(["build", "--data", str(data), "--out", str(folder), *words]) == 0
    return Run.open(folder, write=False)


def notes_of(run: Run) -> list[str]:
    return [event["text"] for event in read_events(run.path / "events.jsonl") if event["kind"] == "note"]


@pytest.fixture(scope="module")
def short(quick_builds: None, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return built(tmp_path_factory.mktemp("short") / "run", 96)


def test_build_with_a_context_too_short_for_most_passages_is_finished_and_says_so(short: Run) -> None:
    assert short.models == ["base", "sft", "dpo"]
    data = read_stage_data(short.path / "data")
    lengths = [len(CHATML.render(short.tokenizer, example.messages).ids) for example in data.examples]
    too_long = sum(length > 97 for length in lengths)  # the last token is never read
    assert 0 < too_long < len(lengths)
    notes = notes_of(short)
    assert f"conversations left out, longer than 96 tokens: {too_long:,}" in notes
    assert any(text.startswith("questions left out, too long for the sft model's context of 96") for text in notes)
    table = json.loads((short.path / "results.json").read_text())["table"]
    assert [stage["stage"] for stage in table["stages"]] == ["base", "sft", "dpo"]


@pytest.mark.parametrize("context", [8, 24])
def test_build_with_a_context_too_short_for_any_conversation_only_pretrains(tmp_path: Path, context: int) -> None:
    run = built(tmp_path / "run", context)
    assert run.models == ["base"]
    expected = f"no conversation fits into a context of {context} tokens, so the model only learns to go on with text"
    assert expected in notes_of(run)
    assert "bits per byte" in (run.path / "results.json").read_text()


def test_evaluation_cuts_no_prompt(short: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every prompt of a model that chats begins where its conversation does, and has room for an answer behind it."""
    lengths: list[int] = []
    begin = short.tokenizer.special[CHATML.start]

    def watched(module: ModuleType) -> None:
        real = module.generate

        def generate(model, prompts, **named):
            if named["max_new_tokens"] > 24 and prompts and prompts[0][0] == begin:
                lengths.extend(map(len, prompts))
                assert all(prompt[0] == begin for prompt in prompts)
            return real(model, prompts, **named)

        monkeypatch.setattr(module, "generate", generate)

    run = Path(shutil.copytree(short.path, tmp_path / "run"))
    watched(evaluation)
    watched(grounded_evaluation)
    monkeypatch.setattr(grounded_evaluation, "showcase", lambda *_: [])
    assert main(["eval", str(run), "--restart"]) == 0
    assert len(lengths) > 10
    assert max(lengths) <= 72  # three quarters


def test_fitting_prompts_are_those_whose_tokens_the_tokenizer_counts(short: Run) -> None:
    questions = [ReferenceAnswer("word " * count, None, "sentence") for count in range(1, 60)]
    for passages, extra in ((False, ""), (True, "\n\nNo passage was found.")):
        fitting = fitting_prompts(questions, short.tokenizer, CHATML, 72, passages=passages)
        assert fitting == questions[: len(fitting)]
        assert 0 < len(fitting) < len(questions)
        longest, next_one = (fitting[-1].prompt + extra, questions[len(fitting)].prompt + extra)
        sizes = [
            len(CHATML.render(short.tokenizer, [{"role": "user", "content": text}], add_generation_prompt=True).ids)
            for text in (longest, next_one)
        ]
        assert sizes[0] <= 72 < sizes[1]


@pytest.mark.parametrize(("context", "limit"), [(None, (1 << 20) - 96), (512, 416), (96, 72), (4, 3), (1, 1)])
def test_prompt_limit_leaves_a_quarter_or_the_longest_answer(context: int | None, limit: int) -> None:
    assert prompt_limit(context, 96) == limit


def test_fitting_data_without_a_conversation_has_no_pairs_either(short: Run) -> None:
    data = read_stage_data(short.path / "data")
    assert data.pairs
    everything = fitting_data(data, short.tokenizer, 1 << 20)
    assert (everything.examples, everything.pairs) == (data.examples, data.pairs)
    nothing = fitting_data(data, short.tokenizer, 8)
    assert (nothing.examples, nothing.pairs) == ([], [])
    some = fitting_data(data, short.tokenizer, 96)
    assert [example for example in data.examples if example in some.examples] == some.examples
    assert 0 < len(some.examples) < len(data.examples)
