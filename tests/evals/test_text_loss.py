"""Bits per byte of published models on plain text, beside transformers' loss on the same windows."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from published import make_published
from underhood import load
from underhood.cli.main import main
from underhood.core.errors import UserError
from underhood.evals.text_loss import opening_id, text_loss

TEXTS = ["The list is a mutable sequence. " * 5, "Ein Wörterbuch 🎈.", "x = [1, 2, 3]\nprint(x[0])\n" * 9]


@torch.no_grad()
def nats_of_transformers(model: torch.nn.Module, ids: list[int], opening: int, window: int, stride: int) -> float:
    """The loss of one document in overlapping windows, each token scored once."""
    tokens = [opening, *ids]
    total, scored = 0.0, 0  # tokens of the document that have been scored
    while scored < len(ids):
        end = min(len(ids), window if scored == 0 else scored + stride)
        start = max(0, end - window)
        logits = model(torch.tensor([tokens[start:end]])).logits[0]
        losses = F.cross_entropy(logits.double(), torch.tensor(tokens[start + 1 : end + 1]), reduction="none")
        total += losses[scored - start :].sum().item()
        scored = end
    return total


@pytest.mark.parametrize("window", [16, 64, None])
def test_text_loss_of_a_published_model_matches_transformers(window: int | None, tmp_path: Path) -> None:
    theirs = make_published(tmp_path, "llama3")
    loaded = load(tmp_path)
    report = text_loss(loaded, TEXTS, window)
    length = window or 256
    for number, text in enumerate(TEXTS):
        ids = loaded.tokenizer.encode(text)
        expected = nats_of_transformers(theirs, ids, opening_id(loaded), length, length * 3 // 4)
        assert report.tokens_N[number] == len(ids)
        assert report.nats_N[number] == pytest.approx(expected, rel=1e-5)
    bytes_in_all = sum(len(text.encode()) for text in TEXTS)
    assert report.bits_per_byte == pytest.approx(report.nats / math.log(2) / bytes_in_all)


def test_text_loss_refuses_no_text_and_windows_that_do_not_fit(tmp_path: Path) -> None:
    make_published(tmp_path, "llama3")
    loaded = load(tmp_path)
    with pytest.raises(UserError, match="no text"):
        text_loss(loaded, ["", ""])
    with pytest.raises(UserError, match="expected 2 to 256 tokens, got 999"):
        text_loss(loaded, TEXTS, 999)


def test_eval_command_measures_a_published_model_on_a_file_and_on_the_default_corpus(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_published(tmp_path / "model", "llama3")
    (tmp_path / "notes.txt").write_text(TEXTS[0], encoding="utf-8")
    capsys.readouterr()
    assert main(["eval", str(tmp_path / "model"), "--text", str(tmp_path / "notes.txt"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    report = text_loss(load(tmp_path / "model"), [TEXTS[0]])
    assert result["bits_per_byte"] == pytest.approx(report.bits_per_byte)
    assert result["bytes"] == len(TEXTS[0])
    assert main(["eval", str(tmp_path / "model"), "--max-bytes", "300"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("pydocs (held out): ")
    assert "bits per byte" in shown
    assert main(["eval", str(tmp_path / "nowhere")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
