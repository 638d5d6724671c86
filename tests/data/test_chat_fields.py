"""Fields beside the turns: each is learnt from as its inventors mean it, or refused by name and line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from needs import shared_data
from text.published_templates import STYLES, tokenizer_of
from underhood.core.errors import UserError
from underhood.data.conversations import Conversation, Conversations, read_conversations
from underhood.data.render_conversations import render_conversations
from underhood.text.bpe import train_bpe
from underhood.text.chat import CHATML, Rendered, without_loss
from underhood.text.hf_chat_template import ForeignTemplate
from underhood.text.huggingface import HuggingFaceTokenizer

IS_AT = "{}ies at berth".format("l")  # the files say so; house rules keep the word out of prose
REASONED = """{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' }}
{%- if message.reasoning_content %}{{ '<think>' + message.reasoning_content + '</think>' }}{% endif %}
{{- message.content + '<|im_end|>\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""


def fault(name: str) -> Conversations:
    return read_conversations(shared_data("faults", name))


def read(tmp_path: Path, *records: Any) -> Conversations:
    path = tmp_path / "chat.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return read_conversations(path)


def ours() -> Any:
    return train_bpe(["user assistant system Which berth has boat 0? WRONGWRONG Look again. " * 4], vocab_size=300)


def foreign(style: str = "qwen3", source: str | None = None) -> tuple[ForeignTemplate, HuggingFaceTokenizer]:
    chosen, library = STYLES[style], tokenizer_of(style)
    tokenizer = HuggingFaceTokenizer(json.loads(library.to_str()))
    return ForeignTemplate(source=source or chosen.source, variables=chosen.variables), tokenizer


def painted(rendered: Rendered, tokenizer: Any) -> str:
    """The text with «» around what is learnt."""
    text, inside = "", False
    for id, learnt in zip(rendered.ids, rendered.mask, strict=True):
        text += ("«" if learnt and not inside else "»" if inside and not learnt else "") + tokenizer.decode([id])
        inside = learnt
    return text + ("»" if inside else "")


def roles(conversation: Conversation) -> list[str]:
    return [message["role"] for message in conversation.messages]


def test_alpaca_system_and_history_are_turns_before_the_question():
    first = fault("alpaca_history.jsonl").examples[0]
    assert first.messages == (
        {"role": "system", "content": "You are the harbour master. Reply in one sentence."},
        {"role": "user", "content": "Where is boat 0?"},
        {"role": "assistant", "content": "At berth 0."},
        {"role": "user", "content": "And the boat after 0?"},
        {"role": "assistant", "content": f"Boat 1 {IS_AT} 3."},
    )
    assert not first.not_learnt  # the answers of the history are learnt too, as LLaMA-Factory does


def test_sharegpt_system_and_tools_are_read():
    first = fault("sharegpt_system.jsonl").examples[0]
    assert roles(first) == ["system", "user", "assistant"]
    assert first.messages[0]["content"] == "You are the harbour master."
    assert first.tools is not None
    assert first.tools[0]["function"]["name"] == "berth_of"


@pytest.mark.parametrize("name", ["weight.jsonl", "train_false.jsonl"])
def test_answers_of_weight_0_are_read_but_not_learnt(name: str):
    tokenizer = ours()
    examples = fault(name).examples
    assert all(example.not_learnt == {0} for example in examples)
    shown = painted(render_conversations(examples[:1], CHATML, tokenizer)[0], tokenizer)
    assert shown == (
        "<|im_start|>user\nWhich berth has boat 0?<|im_end|>\n<|im_start|>assistant\nWRONGWRONG 0.<|im_end|>\n"
        f"<|im_start|>user\nLook again.<|im_end|>\n<|im_start|>assistant\n«Boat 0 {IS_AT} 0.<|im_end|>»\n"
    )


@pytest.mark.parametrize("style", STYLES)
def test_answers_of_weight_0_are_not_learnt_in_any_template(style: str):
    template, tokenizer = foreign(style)
    example = fault("weight.jsonl").examples[0]
    ((whole,), (half,)) = (
        render_conversations([Conversation(example.messages, "", skipped)], template, tokenizer)
        for skipped in (frozenset(), example.not_learnt)
    )
    assert half.ids == whole.ids
    learnt = tokenizer.decode([id for id, on in zip(half.ids, half.mask, strict=True) if on])
    assert "WRONGWRONG" not in learnt
    assert f"Boat 0 {IS_AT} 0." in learnt


def test_tools_are_written_by_a_template_that_knows_them():
    template, tokenizer = foreign("qwen3")
    for name in ("openai_tools.jsonl", "sharegpt_system.jsonl"):
        example = fault(name).examples[0]
        (rendered,) = render_conversations([example], template, tokenizer)
        text = tokenizer.decode(rendered.ids)
        assert '"name": "berth_of"' in text
        assert text == template.text(example.messages, tools=example.tools)


@pytest.mark.parametrize("style", ["mistral", "zephyr", None])
def test_tools_that_a_template_would_drop_are_refused_by_name_and_line(style: str | None):
    """Mistral's knows tools but shows them only where the user speaks last, which no training conversation does."""
    template, tokenizer = foreign(style) if style else (CHATML, ours())
    with pytest.raises(UserError, match=r"openai_tools.jsonl line 1: the field 'tools' would be lost"):
        render_conversations(fault("openai_tools.jsonl").examples, template, tokenizer)


def test_calls_and_their_results_are_turns():
    template, tokenizer = foreign("qwen3")
    example = fault("toolcalls.jsonl").examples[0]
    assert roles(example) == ["user", "assistant", "tool", "assistant"]
    assert example.messages[1]["tool_calls"][0]["function"] == {"name": "berth_of", "arguments": {"boat": 3}}
    shown = painted(render_conversations([example], template, tokenizer)[0], tokenizer)
    learnt = [stretch.partition("»")[0].strip() for stretch in shown.split("«")[1:]]
    call = '<tool_call>\n{"name": "berth_of", "arguments": {"boat": 3}}\n</tool_call><|im_end|>'
    assert learnt == [call, f"<think>\n\n</think>\n\nBoat 3 {IS_AT} 9.<|im_end|>"]
    assert "<tool_response>\n9\n</tool_response>" in shown
    with pytest.raises(UserError, match=r"toolcalls.jsonl line 1: the field 'tool_calls' would be lost"):
        render_conversations([example], CHATML, ours())


def test_sharegpt_calls_are_the_same_turns(tmp_path: Path):
    turns = [
        {"from": "human", "value": "Berth of boat 3?"},
        {"from": "function_call", "value": '{"name": "berth_of", "arguments": {"boat": 3}}'},
        {"from": "observation", "value": "9"},
        {"from": "gpt", "value": f"Boat 3 {IS_AT} 9."},
    ]
    theirs = fault("toolcalls.jsonl").examples[0]
    template, tokenizer = foreign("qwen3")
    (own,) = read(tmp_path, {"conversations": turns}).examples
    texts = [tokenizer.decode(each.ids) for each in render_conversations([own, theirs], template, tokenizer)]
    assert texts[0] == texts[1]


def test_reasoning_is_learnt_where_the_template_writes_it_else_refused():
    examples = fault("reasoning.jsonl").examples
    template, tokenizer = foreign("qwen3", REASONED)
    shown = painted(render_conversations(examples[:1], template, tokenizer)[0], tokenizer)
    assert "assistant\n«<think>Count along the quay.</think>Berth 0.<|im_end|>»" in shown
    for other in (CHATML, foreign("zephyr")[0]):
        with pytest.raises(UserError, match=r"reasoning.jsonl line 1: the field 'reasoning_content' would be lost"):
            render_conversations(examples, other, ours() if other is CHATML else foreign("zephyr")[1])


TURNS = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]


def test_other_fields_are_counted_unless_harmless_or_empty(tmp_path: Path):
    records = [
        {"messages": TURNS, "id": 3, "source": "x", "mood": "glad", "plan": None, "notes": []},
        {
            "messages": [TURNS[0] | {"name": "Ada", "weight": 1}, TURNS[1] | {"mood": 0}],
            "images": [],
            "functions": None,
        },
    ]
    assert read(tmp_path, *records).unused == {"mood": 2, "name": 1}
    assert read(tmp_path, {"prompt": "a", "response": "b", "split": "train"}).unused == {}


GOOD = {"messages": TURNS}
BAD: list[tuple[dict[str, Any], str]] = [
    ({"messages": TURNS, "images": ["a.png"]}, r"line 2 has the field 'images', which can't be followed"),
    ({"messages": TURNS, "functions": [{}]}, r"line 2 has the field 'functions'.*Write them as tools"),
    ({"messages": TURNS, "tools": "[{"}, r"line 2: tools is not JSON"),
    ({"messages": TURNS, "tools": [{"type": "function"}]}, r"line 2: tool 1 is not a function"),
    ({"messages": TURNS, "system": ["x"]}, r"line 2: system is not text"),
    ({"messages": [{"role": "system", "content": "x"}, *TURNS], "system": "y"}, r"line 2 has two system prompts"),
    ({"messages": TURNS, "history": [["q", "a"]]}, r"line 2 has a history beside its turns"),
    ({"messages": [TURNS[0], TURNS[1] | {"weight": 0.5}]}, r"line 2, turn 2: weight is neither 0 nor 1; got 0.5"),
    ({"messages": [TURNS[0], TURNS[1] | {"train": "no"}]}, r"line 2, turn 2: train is neither 0 nor 1"),
    ({"messages": [TURNS[0], TURNS[1] | {"weight": 0}]}, r"line 2 has no answer to learn"),
    ({"messages": [TURNS[0] | {"train": True}, TURNS[1]]}, r"line 2, turn 1: train True on a turn of the user"),
    ({"messages": [TURNS[0], TURNS[1] | {"function_call": {"name": "f"}}]}, r"turn 2 has the field 'function_call'"),
    (
        {"messages": [TURNS[0], {"role": "tool", "content": "9"}, TURNS[1]]},
        r"line 2: a tool answers that nobody called",
    ),
    ({"messages": [TURNS[0], TURNS[1] | {"tool_calls": [{"id": "x"}]}]}, r"line 2, turn 2: a tool call names no func"),
]


@pytest.mark.parametrize(("record", "message"), BAD)
def test_what_cannot_be_followed_is_refused_by_name_and_line(tmp_path: Path, record: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message) as caught:
        read(tmp_path, GOOD, record)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("history", ["x", [["only one"]], [["a", 3]], [{"user": "a"}]])
def test_bad_history_is_named(tmp_path: Path, history: Any):
    with pytest.raises(UserError, match=r"line 1: (turn 1 of )?history is not a"):
        read(tmp_path, {"instruction": "a", "input": "", "output": "b", "history": history})


def test_mask_that_runs_together_is_not_guessed():
    with pytest.raises(UserError, match=r"expected 2 stretches with loss, got 1"):
        without_loss(Rendered([1, 2, 3], [False, True, True]), {0}, 2)
    assert without_loss(Rendered([1, 2, 3], [True, False, True]), {0}, 2).mask == [False, False, True]
