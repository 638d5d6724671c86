"""`underhood import`, from a folder to a run."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from hf_folders import configured, initialized, write_folder
from hf_peers import tokens_of

import underhood
from underhood.cli import model_loading
from underhood.cli.main import main
from underhood.core.errors import UserError
from underhood.models.decoder import qwen3_shaped
from underhood.models.hub_weights import load_decoder
from underhood.text.bpe import train_bpe


@pytest.fixture
def spoken(tmp_path: Path) -> Path:
    """A published folder with a tokenizer."""
    folder = tmp_path / "named"
    folder.mkdir()
    tokenizer = train_bpe(["The list is a mutable sequence. A list holds items."], vocab_size=290)
    tokenizer.save(folder / "tokenizer.json")
    spec = qwen3_shaped(vocab_size=tokenizer.vocab_size, context_length=64, d_model=32, layers=2, heads=4, d_ff=40)
    write_folder(initialized(spec), folder)
    return folder


def test_import_command_makes_a_run_that_verbs_open(spoken: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "runs" / "mine"
    assert main(["import", str(spoken), "--out", str(out), "--check"]) == 0
    assert "family     qwen3" in capsys.readouterr().out
    assert not out.exists()
    assert main(["import", str(spoken), "--out", str(out)]) == 0
    assert f"run        {out}" in capsys.readouterr().out
    loaded, direct = underhood.load(out), underhood.load(spoken)
    tokens = tokens_of(1, 12)
    assert torch.equal(loaded(tokens), direct(tokens))
    assert main(["import", str(spoken), "--out", str(out)]) == 2
    assert "is there already" in capsys.readouterr().err
    words = ["The list", "--max-tokens", "6", "--temperature", "0"]
    assert main(["generate", str(spoken), *words]) == 0
    first = capsys.readouterr().out
    assert main(["generate", str(out), *words]) == 0
    assert capsys.readouterr().out == first
    assert first.strip()
    assert sorted(path.name for path in out.parent.iterdir()) == ["mine"]


@torch.no_grad()
def test_import_command_keeps_a_model_without_a_tokenizer(single: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "run"
    assert main(["import", str(single), "--out", str(out)]) == 0
    assert "tokenizer  cannot read" in capsys.readouterr().out
    loaded, tokens = underhood.load(out), tokens_of(1, 9)
    assert torch.equal(loaded(tokens), underhood.load(single)(tokens))
    with pytest.raises(UserError, match="no tokenizer to read or write text with"):
        loaded.generate("Hello")


def test_import_command_shows_a_bar_where_someone_watches(
    spoken: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    from rich.console import Console

    watched = Console(file=io.StringIO(), force_terminal=True, width=80)
    monkeypatch.setattr(model_loading, "console", lambda stream: watched)
    assert main(["import", str(spoken), "--check"]) == 0
    shown = watched.file.getvalue()  # type: ignore[attr-defined]
    size = sum(p.numel() * p.element_size() for p in load_decoder(spoken).parameters()) / 1000
    assert f"{size:.1f}/{size:.1f} kB" in shown
    monkeypatch.undo()
    assert main(["import", str(spoken), "--check"]) == 0
    assert capsys.readouterr().err == ""


def test_verbs_that_need_a_run_say_what_does_it_for_a_published_folder(spoken: Path, capsys) -> None:
    trains = {"dpo": f"underhood dpo {spoken} --data FILE", "sft": "underhood finetune"}
    for verb, command in trains.items():
        assert main([verb, str(spoken)]) == 2
        error = capsys.readouterr().err
        assert f"is a published model, not a run. {command} trains it, build --from makes a run" in error
        assert error.count("\n") == 1


def test_import_command_lists_unused_keys_and_ignores_those_it_is_told_to(spoken: Path, capsys) -> None:
    configured(spoken, _num_labels=1, use_mrope=False)
    assert main(["import", str(spoken), "--check"]) == 0
    shown = capsys.readouterr().out
    assert "unused     model_type, architectures" in shown or "unused     architectures, model_type" in shown
    assert "empty      use_mrope false\n" in shown
    assert "private    _num_labels 1\n" in shown
    configured(spoken, mystery=2.5)
    assert main(["import", str(spoken), "--check"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "pass --ignore-config-keys mystery" in error
    assert main(["import", str(spoken), "--check", "--ignore-config-keys", "mystery"]) == 0
    assert "ignored    mystery 2.5\n" in capsys.readouterr().out
    words = ["The list", "--max-tokens", "3", "--temperature", "0"]
    assert main(["generate", str(spoken), *words]) == 2
    assert "does not know: 'mystery'" in capsys.readouterr().err
    assert main(["generate", str(spoken), *words, "--ignore-config-keys", "mystery"]) == 0
    assert capsys.readouterr().out.strip()


def test_import_command_says_what_is_wrong(tmp_path: Path, capsys) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    assert main(["import", str(tmp_path), "--check"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
