"""A published chat model as it is: its own template and its own ends, in Python and by the commands."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import underhood
from published import make_published
from text.published_templates import STYLES
from underhood.cli.main import main
from underhood.text.hf_chat_template import ForeignTemplate

ASKED = [{"role": "user", "content": "What is 2 + 2?"}]


def in_transformers(folder: Path, model: Any) -> tuple[list[int], list[int]]:
    """The prompt's ids and the greedy answer."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer.apply_chat_template(ASKED, add_generation_prompt=True, return_dict=True, return_tensors="pt")
    written = model.generate(**inputs, max_new_tokens=12, do_sample=False)[0]
    prompt = inputs["input_ids"][0].tolist()
    return prompt, written[len(prompt) :].tolist()


@pytest.mark.parametrize("style", ["qwen2", "llama3", "mistral", "gemma", "phi3"])
def test_chat_uses_the_models_own_template_and_ends_matches_transformers(
    style: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    free = make_published(tmp_path / "free", style, end_ids=[0])
    prompt, written = in_transformers(tmp_path / "free", free)
    # A random model hardly ever ends its turn, so one of the tokens that it does say is declared an end.
    location = next(n for n in range(2, 12) if written[n] not in written[:n])
    folder = tmp_path / "model"
    model = make_published(folder, style, end_ids=[written[location], 5])
    assert in_transformers(folder, model)[1] == written[: location + 1]

    loaded = underhood.load(folder)
    assert isinstance(loaded.template, ForeignTemplate)
    assert loaded.template.source == STYLES[style].source
    assert {written[location], 5} <= set(loaded.stop_ids)
    end = STYLES[style].end
    assert end is not None
    assert loaded.tokenizer.special[end] in loaded.stop_ids
    assert loaded.template.render(loaded.tokenizer, ASKED, add_generation_prompt=True).ids == prompt
    # A SentencePiece text decoded by itself loses its first space; an answer goes on from the prompt and keeps it.
    answer = loaded.tokenizer.decode(written[:location]).removeprefix(" ")
    assert loaded.chat(ASKED, max_tokens=12, temperature=0).removeprefix(" ") == answer

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"What is 2 + 2?\n"), encoding="utf-8"))
    assert main(["chat", str(folder), "--max-tokens", "12", "--temperature", "0"]) == 0
    assert capsys.readouterr().out.strip() == answer.strip()


def test_generate_opens_and_ends_a_text_as_the_model_does_matches_transformers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import AutoTokenizer

    free = make_published(tmp_path / "free", "llama3", end_ids=[0])
    ids = AutoTokenizer.from_pretrained(tmp_path / "free")("The list", return_tensors="pt")["input_ids"]
    written = free.generate(ids, max_new_tokens=20, do_sample=False)[0, ids.shape[1] :].tolist()
    location = next(n for n in range(2, 20) if written[n] not in written[:n])
    make_published(tmp_path / "model", "llama3", end_ids=[written[location]])
    loaded = underhood.load(tmp_path / "model")
    assert loaded.prompt_ids("The list") == ids[0].tolist()
    expected = loaded.tokenizer.decode(written[:location])
    assert loaded.generate("The list", max_tokens=20, temperature=0) == expected
    words = ["generate", str(tmp_path / "model"), "The list", "--max-tokens", "20", "--temperature", "0"]
    assert main(words) == 0
    assert capsys.readouterr().out == expected + "\n"
    assert torch.equal(loaded(ids), loaded.model(ids))
