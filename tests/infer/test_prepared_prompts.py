"""The `prepare` hook of a conversation: what the model reads may differ from what the conversation keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tiny_run import make_run

import underhood
from underhood.core.errors import UserError
from underhood.infer.grammar import Grammar
from underhood.infer.load import LoadedModel
from underhood.infer.sample import SamplingSpec
from underhood.text.chat import CHATML, Message


@dataclass(frozen=True)
class Notes:
    """Puts a note behind the last message."""

    messages: Sequence[Message]
    grammar: Grammar | None = None
    sampling: SamplingSpec | None = None


@dataclass
class Preparing:
    note: str
    grammar: Grammar | None = None
    sampling: SamplingSpec | None = None
    given: list[list[Message]] = field(default_factory=list)

    def __call__(self, messages: Sequence[Message]) -> Notes:
        self.given.append(list(messages))
        noted = {"role": "user", "content": messages[-1]["content"] + self.note}
        return Notes([*messages[:-1], noted], self.grammar, self.sampling)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return underhood.load(make_run(tmp_path_factory.mktemp("runs") / "demo", stages=("base", "sft")))


def test_model_reads_the_prepared_turn_and_the_conversation_keeps_the_plain_one(loaded: LoadedModel) -> None:
    prepare = Preparing(" [1] A note.")
    talk = loaded.conversation(prepare=prepare)
    first = "".join(talk.reply("A list?", max_new_tokens=4))
    other = loaded.conversation()
    assert first == "".join(other.reply("A list? [1] A note.", max_new_tokens=4))
    assert first != "".join(loaded.conversation().reply("A list?", max_new_tokens=4))
    assert talk.messages == [{"role": "user", "content": "A list?"}, {"role": "assistant", "content": first}]
    "".join(talk.reply("And?", max_new_tokens=4))
    assert prepare.given == [talk.messages[:1], talk.messages[:3]]  # plain ones, also in the second turn


def test_prompt_of_a_turn_is_that_of_its_prepared_messages(loaded: LoadedModel) -> None:
    talk = loaded.conversation("Be short.", prepare=Preparing(" x"))
    request = talk.request("Hi", max_new_tokens=5, stop=("\n",))
    messages = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Hi x"}]
    assert request.prompt == CHATML.render(loaded.tokenizer, messages, add_generation_prompt=True).ids
    assert (request.max_new_tokens, request.stop) == (5, ("\n",))
    assert request.stop_ids == frozenset(CHATML.stop_ids(loaded.tokenizer))
    assert len(talk.messages) == 1


def test_grammar_and_sampling_of_the_prepared_turn_are_used(loaded: LoadedModel) -> None:
    warm = SamplingSpec(temperature=3.0, seed=1)
    held = loaded.conversation(prepare=Preparing("", Grammar.any_of(["yes", "no"])))
    assert "".join(held.reply("A list?", sampling=warm)) in ("yes", "no")
    free = loaded.conversation(prepare=Preparing(""))
    assert "".join(free.reply("A list?", max_new_tokens=4, sampling=warm)) not in ("yes", "no")
    greedy = loaded.conversation(prepare=Preparing("", sampling=SamplingSpec(temperature=0)))
    answers = {"".join(loaded.conversation(prepare=Preparing("")).reply("A list?", max_new_tokens=4, sampling=warm))}
    greedy_answer = "".join(greedy.reply("A list?", max_new_tokens=4, sampling=warm))
    assert greedy_answer == "".join(loaded.conversation().reply("A list?", max_new_tokens=4))
    assert greedy_answer not in answers


def test_chat_takes_the_hook_and_a_turn_too_long_for_the_context_is_refused(loaded: LoadedModel) -> None:
    answer = loaded.chat("A list?", prepare=Preparing(" [1]"), max_tokens=4, temperature=0)
    assert answer == loaded.chat("A list? [1]", max_tokens=4, temperature=0)
    talk = loaded.conversation(prepare=Preparing(" long" * 100))
    with pytest.raises(UserError, match="too long for the model"):
        talk.reply("A list?", max_new_tokens=4)
    assert talk.messages == []


def test_only_a_checkpoint_that_says_so_was_taught_to_use_passages(loaded: LoadedModel, tmp_path: Path) -> None:
    assert loaded.retrieval is None
    run = make_run(tmp_path / "taught", stages=("base", "sft"), retrieval="taught")
    assert underhood.load(run).retrieval == "taught"
    assert underhood.load(run, "base").retrieval is None
