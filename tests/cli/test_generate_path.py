"""The path that ``underhood generate`` takes: compiled kernels for a large decoder, the model's own otherwise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from underhood.cli.main import main
from underhood.core.checkpoint import module_tensors, write_checkpoint
from underhood.core.config import to_json
from underhood.core.files import sha256_of
from underhood.infer import forward_pass, opening
from underhood.infer.optimize import select_path
from underhood.kernels import jit
from underhood.kernels.jit import HAS_NUMBA
from underhood.models.architectures import ARCHITECTURES
from underhood.models.ngram import NGram
from underhood.text.bpe import train_bpe

TEXT = "The list is a mutable sequence. A list holds items, and the items of a list can be changed."
WRITTEN = 8
SHAPE = {"context_length": 96, "d_model": 32, "layers": 2, "heads": 2, "kv_heads": 1}


def make_run(folder: Path, architecture: str) -> Path:
    """A run with one small model of the architecture, its weights random (an n-gram's from the text)."""
    tokenizer = train_bpe([TEXT], vocab_size=300)
    folder.mkdir(parents=True)
    tokenizer.save(folder / "tokenizer.json")
    (folder / "run.toml").write_text("", encoding="utf-8")
    torch.manual_seed(0)
    spec = ARCHITECTURES[architecture](vocab_size=tokenizer.vocab_size, **SHAPE)
    model: Any = spec.build()
    if isinstance(model, NGram):
        model.fit([np.array(tokenizer.encode(TEXT))])
    else:
        for parameter in model.parameters():
            parameter.data = torch.randn_like(parameter) * 0.4
    digest = sha256_of(folder / "tokenizer.json")
    state = {"spec": to_json(spec, tagged=True), "model": "base", "order": 0, "chats": False, "tokenizer": digest}
    write_checkpoint(folder / "checkpoints" / "base", 1, {"model": module_tensors(model)}, state)
    return folder


@pytest.fixture
def generate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[str, Counter[str]]]:
    """Runs the command; gives its text and how often each path was taken on a machine that has kernels cached."""
    taken: Counter[str] = Counter()

    def recorded(*arguments: Any) -> tuple[str, object]:
        path, model = select_path(*arguments)
        taken[path] += 1
        return path, model

    monkeypatch.setattr(forward_pass, "select_path", recorded)
    monkeypatch.setattr(jit, "defer_compiling", lambda: False)

    def call(architecture: str, *words: str, large: bool) -> tuple[str, Counter[str]]:
        taken.clear()
        run = tmp_path / architecture
        if not run.exists():
            make_run(run, architecture)
        monkeypatch.setattr(opening, "MIN_OPTIMIZED_PARAMETERS", 0 if large else 10**12)
        options = ("--max-tokens", str(WRITTEN), "--temperature", "0")
        assert main(["generate", str(run), "The list", *options, *words]) == 0
        return capsys.readouterr().out, Counter(taken)

    return call


@pytest.mark.skipif(not HAS_NUMBA, reason="the kernels need Numba")
@pytest.mark.parametrize("words", [(), ("--stream",), ("--json",)], ids=["plain", "stream", "json"])
def test_generate_decodes_a_large_model_on_the_compiled_path_and_writes_the_same(
    generate: Callable[..., tuple[str, Counter[str]]], words: tuple[str, ...]
) -> None:
    eager, before = generate("qwen3", *words, large=False)
    assert set(before) == {"eager"}
    text, taken = generate("qwen3", *words, large=True)
    assert set(taken) == {"compiled"}
    assert taken["compiled"] == before["eager"] >= 2  # a prefill and a pass for each further token
    if "--json" not in words:
        assert text == eager


@pytest.mark.parametrize(("architecture", "path"), [("gated-conv", "fused"), ("ngram", "eager")])
def test_generate_falls_back_for_a_model_without_kernels(
    generate: Callable[..., tuple[str, Counter[str]]], architecture: str, path: str
) -> None:
    eager, _ = generate(architecture, large=False)
    text, taken = generate(architecture, large=True)
    assert set(taken) == {path}
    assert text == eager


def test_generate_draws_several_texts_side_by_side_on_the_fused_path(
    generate: Callable[..., tuple[str, Counter[str]]],
) -> None:
    eager, _ = generate("qwen3", "--n", "2", large=False)
    text, taken = generate("qwen3", "--n", "2", large=True)
    assert set(taken) == {"fused"}
    assert text == eager
