"""llama.cpp beside us, greedily: on what `underhood export --format gguf` writes, and on a real model's own file.

llama.cpp rounds what it multiplies with weights of 8 bits and fewer to 8 bits, and with f16 to f16, so its scores are
not quite ours. Its text is read by our model token by token: each token must be our likeliest, or one whose
log-probability is less than a margin below it. Nothing is excused by an earlier difference.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from export_run import TEXT, export_run

from llama_peer import LlamaCpp
from published import make_published
from underhood.core.errors import UserError
from underhood.infer.load import LoadedModel, load
from underhood.recipes.export.export import export

TOKENS = 32
EXACT = 2e-3
"""Margin in nats for weights of 32 bits: sums in another order."""
ROUNDED = 0.1
"""Margin in nats where llama.cpp rounds activations to 8 bits."""

PROMPTS = ["Gravity is", "The capital of France is", "def add(a, b):\n    return", "Once upon a time", "1, 2, 3, 4,"]


@pytest.fixture(scope="module")
def peer() -> Iterator[LlamaCpp]:
    with LlamaCpp() as peer:
        yield peer


def gaps(loaded: LoadedModel, prompt: Sequence[int], written: Sequence[int]) -> list[float]:
    """By how much the log-probability of each written token is below that of the likeliest one there."""
    with torch.inference_mode():
        logits_TV = loaded(torch.tensor([[*prompt, *written]]))[0, len(prompt) - 1 : -1]
        logprobs_TV = logits_TV[:, : loaded.tokenizer.vocab_size].float().log_softmax(dim=-1)
    return (logprobs_TV.amax(dim=-1) - logprobs_TV[range(len(written)), list(written)]).tolist()


def continuations(peer: LlamaCpp, loaded: LoadedModel, prompts: Sequence[Sequence[int]], margin: float) -> int:
    """Checks llama.cpp's greedy texts; how many tokens they have."""
    count = 0
    for prompt in prompts:
        written, _ = peer.write(prompt, TOKENS)
        assert len(written) == TOKENS or written[-1] in loaded.stop_ids
        worst = max(gaps(loaded, prompt, written))
        assert worst < margin, (loaded.tokenizer.decode(prompt), worst)
        count += len(written)
    return count


@pytest.mark.parametrize(("dtype", "margin"), [("f32", EXACT), ("f16", 0.02), ("q8_0", ROUNDED)])
def test_our_own_model_writes_the_same_text_in_llama_cpp(dtype: str, margin: float, tmp_path: Path, peer: LlamaCpp):
    run = export_run(tmp_path / "run")
    file = export(run, "gguf", dtype=dtype).path
    loaded = load(file)  # with the file's own, rounded weights
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
    assert continuations(peer, loaded, prompts, ROUNDED) > 4 * TOKENS


def test_real_model_exported_by_us_is_the_same_model_in_llama_cpp(smollm2_gguf: Path, tmp_path: Path, peer: LlamaCpp):
    loaded = load(smollm2_gguf)
    file = export(loaded, "gguf", dtype="q8_0", out=tmp_path / "smollm2.gguf").path
    assert peer.open(file) == ""
    again = load(file)
    texts = [*PROMPTS, *TEXT, "12345 <|im_end|>"]
    assert peer.tokenize(texts) == [loaded.tokenizer.encode(text) for text in texts]
    messages = [{"role": "user", "content": "What is 2 + 2?"}]
    assert loaded.template is not None
    prompt = loaded.template.render(loaded.tokenizer, messages, add_generation_prompt=True).ids
    assert peer.tokenize([peer.render(messages)], special=True) == [prompt]
    assert continuations(peer, again, [prompt, loaded.prompt_ids(PROMPTS[0])], ROUNDED) > TOKENS
    assert again.stop_ids == loaded.stop_ids
    assert again.roles == loaded.roles
