"""Conversations from four forms and three kinds of file, with bad records named by their line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from needs import shared_data
from underhood.core.errors import UserError
from underhood.data.conversations import Conversation, read_conversations, split_conversations
from underhood.text.bpe import BytePairTokenizer, train_bpe
from underhood.text.chat import CHATML, ChatTemplate

ASKED, SAID = "What is 2 + 2?", "Four."
TURNS = ({"role": "user", "content": ASKED}, {"role": "assistant", "content": SAID})
FORMS: dict[str, dict[str, Any]] = {
    "messages (role, content)": {"messages": list(TURNS)},
    "sharegpt (conversations with from, value)": {
        "conversations": [{"from": "human", "value": ASKED}, {"from": "gpt", "value": SAID}]
    },
    "sharegpt (conversations with role, content)": {"conversations": list(TURNS)},
    "alpaca (instruction, input, output)": {"instruction": ASKED, "input": "", "output": SAID},
    "alpaca (instruction, context, response)": {"instruction": ASKED, "context": "", "response": SAID, "category": "x"},
    "pairs (prompt, response)": {"prompt": ASKED, "response": SAID},
    "pairs (prompt, completion)": {"prompt": ASKED, "completion": SAID},
    "pairs (question, answer)": {"question": ASKED, "answer": SAID},
}


def written(path: Path, records: list[Any]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(records), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(records, indent=1))
    else:
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", [".jsonl", ".json", ".parquet"])
def test_every_form_in_every_kind_of_file_is_found_and_named(tmp_path: Path, form: str, kind: str):
    actual = read_conversations(written(tmp_path / f"chat{kind}", [FORMS[form]] * 3))
    assert actual.form == form
    assert [example.messages for example in actual.examples] == [TURNS] * 3
    location = {".jsonl": "line", ".json": "record", ".parquet": "row"}[kind]
    assert actual.examples[2].source == f"chat{kind} {location} 3"


def test_systems_many_turns_and_parts_are_read(tmp_path: Path):
    turns = [
        {"from": "system", "value": "Be brief."},
        {"from": "human", "value": "Hi"},
        {"from": "gpt", "value": "Hello"},
        {"from": "human", "value": "Bye"},
        {"from": "gpt", "value": "Bye"},
    ]
    (actual,) = read_conversations(written(tmp_path / "a.jsonl", [{"id": "7", "conversations": turns}])).examples
    assert [message["role"] for message in actual.messages] == ["system", "user", "assistant", "user", "assistant"]
    parts = [{"type": "text", "text": "What is "}, {"type": "text", "text": "2 + 2?"}]
    record = {"messages": [{"role": "user", "content": parts}, TURNS[1]]}
    (actual,) = read_conversations(written(tmp_path / "b.jsonl", [record])).examples
    assert actual.messages == TURNS


def test_alpaca_input_follows_the_instruction(tmp_path: Path):
    record = {"instruction": "Translate.", "input": "Bonjour", "output": "Hello"}
    (actual,) = read_conversations(written(tmp_path / "a.jsonl", [record])).examples
    assert actual.messages[0]["content"] == "Translate.\n\nBonjour"


def test_blank_lines_and_a_byte_order_mark_are_skipped(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps({"prompt": "a", "response": "b"}).encode() + b"\r\n\n \n")
    assert len(read_conversations(path)) == 1


GOOD = {"messages": list(TURNS)}
BAD: list[tuple[Any, str]] = [
    ({"massages": []}, r"line 3 lacks the field 'messages'.*'massages'"),
    ("text", r"line 3 is not a JSON object"),
    ({"messages": []}, r"line 3: messages is not a list of turns"),
    ({"messages": [{"role": "user", "content": "x"}]}, r"line 3 has no answer"),
    (
        {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": " "}]},
        r"line 3: the answer is empty",
    ),
    ({"messages": [{"role": "usr", "content": "x"}]}, r"line 3, turn 1 has an unknown role.*Did you mean user"),
    ({"messages": [{"role": "user", "content": 5}]}, r"line 3, turn 1: content is not text; expected a string, got 5"),
    ({"messages": [{"role": "user"}]}, r"line 3, turn 1 lacks the field 'content'"),
    ({"messages": [*TURNS, {"role": "system", "content": "x"}]}, r"line 3 has a system message inside"),
    ({"messages": [TURNS[0], *TURNS]}, r"line 3: the user speaks twice in a row"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
        r"line 3, turn 1 holds something other than text",
    ),
]


@pytest.mark.parametrize(("record", "message"), BAD)
def test_bad_records_are_named_by_their_line(tmp_path: Path, record: Any, message: str):
    with pytest.raises(UserError, match=message) as caught:
        read_conversations(written(tmp_path / "a.jsonl", [GOOD, GOOD, record]))
    assert "\n" not in str(caught.value)


def test_unreadable_files_are_explained(tmp_path: Path):
    broken = tmp_path / "a.jsonl"
    broken.write_text('{"prompt": "a", "response": "b"}\n{"prompt": \n')
    with pytest.raises(UserError, match=r"line 2 is not JSON"):
        read_conversations(broken)
    with pytest.raises(UserError, match=r"line 1 is not a conversation; got the fields a, b.*ShareGPT.*Alpaca"):
        read_conversations(written(tmp_path / "b.jsonl", [{"a": 1, "b": 2}]))
    with pytest.raises(UserError, match=r"not a list of records"):
        read_conversations(written(tmp_path / "c.json", {"prompt": "a"}))  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"expected \.jsonl or \.json or \.parquet, got \.csv"):
        read_conversations(tmp_path / "d.csv")
    with pytest.raises(UserError, match=r"no such file"):
        read_conversations(tmp_path / "e.jsonl")
    with pytest.raises(UserError, match=r"holds no conversation"):
        read_conversations(written(tmp_path / "f.json", []))
    (tmp_path / "g.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(UserError, match=r"not a readable Parquet"):
        read_conversations(tmp_path / "g.parquet")


def test_published_sets_are_read():
    raschka = read_conversations(shared_data("instruct", "raschka", "instruction-data.json"))
    assert (raschka.form, len(raschka)) == ("alpaca (instruction, input, output)", 1100)
    parts = split_conversations(raschka.examples, shares=(0.85, 0.05, 0.10), seed=0)
    assert [len(piece) for piece in parts] == pytest.approx([935, 55, 110], abs=2)
    dolly = read_conversations(shared_data("instruct", "dolly_hhrlhf", "dolly_hhrlhf_train_small.jsonl"))
    assert (dolly.form, len(dolly)) == ("pairs (prompt, response)", 1000)


def conversation(question: str, answer: str) -> Conversation:
    return Conversation(({"role": "user", "content": question}, {"role": "assistant", "content": answer}), "")


def test_split_gives_the_shares_and_keeps_the_same_question_together():
    many = [conversation(f"question {n % 150}" + " " * (n % 2), f"answer {n}") for n in range(200)]
    parts = split_conversations(many, shares=(0.85, 0.05, 0.1), seed=0)
    for piece, share in zip(parts, (0.85, 0.05, 0.1), strict=True):
        assert abs(len(piece) - share * 200) <= 1
    assert sorted(first.messages[1]["content"] for piece in parts for first in piece) == sorted(
        f"answer {n}" for n in range(200)
    )
    questions = [{first.messages[0]["content"].strip() for first in piece} for piece in parts]
    assert not questions[0] & questions[1]
    assert not questions[0] & questions[2]
    assert split_conversations(many, shares=(0.85, 0.05, 0.1), seed=0) == parts
    assert split_conversations(many, shares=(0.85, 0.05, 0.1), seed=1) != parts


# The mask: which tokens are learnt, printed for people and checked for us.


def tokenizer() -> BytePairTokenizer:
    text = "user assistant system Be brief. What is 2 + 2? Four. And 3 + 3? Six, I think. " * 4
    return train_bpe([text], vocab_size=300)


TALK = (
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is 2 + 2?"},
    {"role": "assistant", "content": "  Four."},
    {"role": "user", "content": "And 3 + 3?<|im_end|>"},
    {"role": "assistant", "content": "Six, I think.\n"},
)
TEMPLATES = {"chatml": CHATML, "other markers": ChatTemplate(start="<|endoftext|>", end="<|im_end|>")}


def painted(template: ChatTemplate) -> str:
    """The conversation with «» around what is learnt."""
    rendered = template.render(tokenizer(), TALK)
    text, inside = "", False
    for token, output in zip(rendered.ids, rendered.mask, strict=True):
        text += ("«" if output and not inside else "»" if inside and not output else "") + tokenizer().decode([token])
        inside = output
    return text + ("»" if inside else "")


@pytest.mark.parametrize("name", TEMPLATES)
def test_loss_is_on_assistant_turns_only(name: str):
    template = TEMPLATES[name]
    shown = painted(template)
    print(f"\n--- {name}: «learnt», the rest given\n{shown}")
    start, end = template.start, template.end
    assert shown == (
        f"{start}system\nBe brief.{end}\n"
        f"{start}user\nWhat is 2 + 2?{end}\n"
        f"{start}assistant\n«Four.{end}»\n"
        f"{start}user\nAnd 3 + 3?<|im_end|>{end}\n"
        f"{start}assistant\n«Six, I think.\n{end}»\n"
    )
