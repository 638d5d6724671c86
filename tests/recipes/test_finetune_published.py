"""Fine-tuning a published chat model by the command: its own template, every form of data, the mask to be seen."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from published import make_published
from text.published_templates import STYLES
from underhood.cli.main import main
from underhood.data.batch import IGNORE, Batch
from underhood.data.render import ChatBatches
from underhood.infer.load import load
from underhood.recipes import finetune
from underhood.recipes.export.export import export
from underhood.text.hf_chat_template import ForeignTemplate

COUNT = 12
WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def openai(n: int) -> dict[str, Any]:
    turns = [("user", f"After {WORDS[n]}?"), ("assistant", "Wait."), ("user", "And now?"), ("assistant", WORDS[n])]
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


def sharegpt(n: int) -> dict[str, Any]:
    turns = [("human", f"After {WORDS[n]}?"), ("gpt", "Wait."), ("human", "And now?"), ("gpt", WORDS[n])]
    return {"conversations": [{"from": who, "value": value} for who, value in turns]}


FORMS = {
    "messages": openai,
    "sharegpt": sharegpt,
    "alpaca": lambda n: {"instruction": "Name the number.", "input": str(n + 1), "output": WORDS[n]},
    "pairs": lambda n: {"prompt": f"Number {n + 1}?", "response": WORDS[n]},
}


def learnt(batch: Batch) -> list[list[int]]:
    """Each stretch of neighbouring targets with loss."""
    actual = []
    for row in batch.targets.tolist():
        grouped = itertools.groupby(row, key=lambda id: id != IGNORE)
        actual += [list(ids) for wanted, ids in grouped if wanted]
    return actual


@pytest.mark.parametrize(("style", "form"), [*zip(STYLES, itertools.cycle(FORMS), strict=False)])
def test_sft_command_teaches_a_published_model_its_answers_only(
    style: str, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    folder, data, out = tmp_path / "model", tmp_path / "chat.jsonl", tmp_path / "out"
    make_published(folder, style)
    data.write_text("".join(json.dumps(FORMS[form](n)) + "\n" for n in range(COUNT)), encoding="utf-8")
    read: list[Batch] = []

    class Seen(ChatBatches):
        def __call__(self, step: int) -> Batch:
            read.append(super().__call__(step))
            return read[-1]

    monkeypatch.setattr(finetune, "ChatBatches", Seen)
    words = ["--lora-rank", "4", "--lr", "0.03", "--steps", "12", "--validation", "0", "--test", "0.25", "--json"]
    assert main(["finetune", str(folder), "--data", str(data), "--out", str(out), *words]) == 0
    output = capsys.readouterr()
    assert f"{COUNT} conversations in the form {form}" in output.err.replace("\n          ", " ")
    report = json.loads(output.out)
    assert report["form"].startswith(form)
    assert report["after"]["test"]["loss"] < report["before"]["test"]["loss"]

    # The mask, from what the model was given.
    loaded = load(out)
    texts = {loaded.tokenizer.decode(ids).strip() for batch in read for ids in learnt(batch)}
    print(f"{style}, {form}: learnt {sorted(texts)}")
    middle, last = (answer.strip() for answer in STYLES[style].answers)
    held_out = {int(source.rpartition(" ")[2]) - 1 for source in json.loads((out / "split.json").read_text())["test"]}
    expected = {last.replace("Blue, of course.", WORDS[n]) for n in range(COUNT) if n not in held_out}
    if form in ("messages", "sharegpt"):
        expected.add(middle.replace("Four.", "Wait."))
    assert {text.replace(" </s>", "</s>") for text in texts} == {text.replace(" </s>", "</s>") for text in expected}

    # What came out speaks as the model did that went in, here and elsewhere.
    before = load(folder)
    assert isinstance(loaded.template, ForeignTemplate)
    assert (loaded.template.source, loaded.stop_ids) == (STYLES[style].source, before.stop_ids)
    assert isinstance(loaded.chat("Number 3?", max_tokens=4, temperature=0), str)
    from transformers import AutoModelForCausalLM, AutoTokenizer

    back = export(out, out=tmp_path / "back").path
    ids = torch.arange(20)[None]
    theirs = AutoModelForCausalLM.from_pretrained(back)
    torch.testing.assert_close(theirs(ids).logits, loaded(ids), rtol=1e-4, atol=1e-4)
    assert AutoTokenizer.from_pretrained(back).chat_template == STYLES[style].source


def test_sft_command_names_the_bad_row_and_a_model_without_a_template(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder, data = tmp_path / "model", tmp_path / "chat.jsonl"
    make_published(folder, "gemma")
    rows = [openai(n) for n in range(4)]
    rows[2]["messages"].insert(0, {"role": "system", "content": "Count."})  # which this template refuses
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    words = ["finetune", str(folder), "--data", str(data)]
    assert main([*words, "--out", str(tmp_path / "a")]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "chat.jsonl line 3: the chat template of" in error
    assert "refuses the conversation" in error
    data.write_text(json.dumps(rows[0]) + "\n" + json.dumps({"messages": [{"role": "usr"}]}) + "\n", encoding="utf-8")
    assert main([*words, "--out", str(tmp_path / "c")]) == 2
    assert "chat.jsonl line 2" in capsys.readouterr().err.splitlines()[-1]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows[:2]), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text("{}")
    assert main([*words, "--out", str(tmp_path / "b")]) == 2
    assert "has no chat template" in capsys.readouterr().err.splitlines()[-1]
