"""llama.cpp beside us, greedily: on what `underhood export --format gguf` writes, and on a real model's own file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from export_run import TEXT, export_run
from gguf import GGMLQuantizationType
from llama_cpp_margin import EXACT, PROMPTS, ROUNDED, ROUNDING, TOKENS, UNROUNDED, continuations, gaps, rounded

from llama_peer import LlamaCpp
from published import make_published
from underhood.core.errors import UserError
from underhood.infer.load import load
from underhood.recipes.export.export import export


@pytest.fixture(scope="module")
def peer() -> Iterator[LlamaCpp]:
    with LlamaCpp() as peer:
        yield peer


@pytest.mark.parametrize(("dtype", "margin"), [("f32", EXACT), ("f16", ROUNDED), ("q8_0", ROUNDED)])
def test_our_own_model_writes_the_same_text_in_llama_cpp(dtype: str, margin: float, tmp_path: Path, peer: LlamaCpp):
    run = export_run(tmp_path / "run")
    file = export(run, "gguf", dtype=dtype).path
    loaded = rounded(load(file), ROUNDING[dtype])  # with the file's own, rounded weights
    assert peer.open(file, context_length=160) == ""
    texts = [*TEXT, "", "  two  spaces\n\n", "<|im_start|>"]
    assert peer.tokenize(texts) == [load(run).tokenizer.encode(text) for text in texts]
    prompts = [loaded.tokenizer.encode(text)[:20] for text in (*TEXT, "list items", "a", "\n\n")]
    assert continuations(peer, loaded, prompts, margin) > 3 * TOKENS


@pytest.mark.parametrize("style", ["llama3", "mistral"])
def test_llama_shaped_models_write_the_same_text_in_llama_cpp(style: str, tmp_path: Path, peer: LlamaCpp):
    """llama.cpp rotates neighbours, we halves: rows of queries and keys change their places."""
    make_published(tmp_path / "model", style, end_ids=[5])
    file = tmp_path / "model.gguf"
    if style == "mistral":  # its library form of SentencePiece has no name in llama.cpp
        with pytest.raises(UserError, match="no GGUF form"):
            export(tmp_path / "model", "gguf", out=file)
        return
    export(tmp_path / "model", "gguf", dtype="f32", out=file)
    published, again = load(tmp_path / "model"), load(file)
    assert peer.open(file) == ""
    prompts = [published.prompt_ids(text) for text in TEXT]
    assert peer.tokenize(TEXT, opening=True) == prompts
    assert continuations(peer, published, prompts, EXACT) > TOKENS
    assert again.prompt_ids(TEXT[0]) == prompts[0]
    tokens_BT = torch.tensor([prompts[0]])
    torch.testing.assert_close(again(tokens_BT), published(tokens_BT), rtol=1e-5, atol=1e-5)


def test_real_models_file_gives_the_same_greedy_text_as_llama_cpp(smollm2_gguf: Path, peer: LlamaCpp):
    """Five prompts of 32 tokens: Q4_1 weights, a tokenizer of two steps, its chat template."""
    loaded = load(smollm2_gguf)
    assert peer.open(smollm2_gguf) == ""
    prompts = [loaded.prompt_ids(text) for text in PROMPTS]
    assert peer.tokenize(PROMPTS, opening=True) == prompts
    below: list[float] = []
    for prompt in prompts:
        written = peer.write(prompt, TOKENS)
        below += gaps(loaded, prompt, written, len(written) < TOKENS)
    assert len(below) > 4 * TOKENS
    assert max(below) < UNROUNDED
    # Near-ties are rare: nearly every token is our likeliest, too.
    assert sum(gap > 0 for gap in below) <= 0.05 * len(below)


def test_real_model_exported_by_us_is_the_same_model_in_llama_cpp(smollm2_gguf: Path, tmp_path: Path, peer: LlamaCpp):
    loaded = load(smollm2_gguf)
    file = export(loaded, "gguf", dtype="q8_0", out=tmp_path / "smollm2.gguf").path
    assert peer.open(file) == ""
    again = rounded(load(file), GGMLQuantizationType.Q8_0)
    texts = [*PROMPTS, *TEXT, "12345 <|im_end|>"]
    assert peer.tokenize(texts) == [loaded.tokenizer.encode(text) for text in texts]
    messages = [{"role": "user", "content": "What is 2 + 2?"}]
    assert loaded.template is not None
    prompt = loaded.template.render(loaded.tokenizer, messages, add_generation_prompt=True).ids
    assert peer.tokenize([peer.render(messages)], special=True) == [prompt]
    assert continuations(peer, again, [prompt, loaded.prompt_ids(PROMPTS[0])], ROUNDED) > TOKENS
    assert again.stop_ids == loaded.stop_ids
    assert again.roles == loaded.roles
