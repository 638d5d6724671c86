"""The whole chain on a real model: SmolLM2, fine-tuned with LoRA, exported, opened by llama.cpp and by transformers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import peft
import pytest
import torch
import transformers
from llama_cpp_margin import EXACT, PROMPTS, TOKENS, continuations

from llama_peer import LlamaCpp
from underhood.cli.main import main
from underhood.core.checkpoint import module_tensors
from underhood.infer.load import LoadedModel, load

pytestmark = pytest.mark.slow

QUESTION = [{"role": "user", "content": "What is the colour of item 7?"}]
TEXTS = [*PROMPTS, "12345 <|im_end|>", "  two  spaces\n\n", "naïve 北京 🙂"]


@dataclass(frozen=True)
class Tuned:
    """The run of the fine-tuned model, and the base's folder for transformers."""

    run: Path
    model: LoadedModel
    base_folder: Path


@pytest.fixture(scope="module")
def tuned(smollm2_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    """A few steps of LoRA, with a learning rate at which they are seen in the logits."""
    folder = tmp_path_factory.mktemp("tuned")
    rows = [
        {"instruction": f"What is the colour of item {n}?", "output": f"Item {n} is {['red', 'green', 'blue'][n % 3]}."}
        for n in range(24)
    ]
    (folder / "colours.jsonl").write_text("\n".join(map(json.dumps, rows)))
    options = ["--steps", "4", "--lora-rank", "4", "--batch-size", "2", "--context-length", "64", "--lr", "0.002"]
    data, run = str(folder / "colours.jsonl"), folder / "run"
    assert main(["finetune", "smollm2", "--data", data, "--out", str(run), *options]) == 0
    assert main(["export", "smollm2", "--out", str(folder / "base")]) == 0
    return Tuned(run, load(run), folder / "base")


def test_a_few_steps_change_what_the_model_writes(tuned: Tuned, smollm2_gguf: Path) -> None:
    base = load(smollm2_gguf)
    assert tuned.model.template is not None
    prompt = tuned.model.template.render(tuned.model.tokenizer, QUESTION, add_generation_prompt=True).ids
    with torch.inference_mode():
        before, after = (loaded(torch.tensor([prompt]))[0, -1].log_softmax(-1) for loaded in (base, tuned.model))
    assert (before - after).abs().max() > 0.5
    assert tuned.model.stop_ids == base.stop_ids


@pytest.fixture(scope="module")
def peer() -> Iterator[LlamaCpp]:
    with LlamaCpp() as peer:
        yield peer


def test_gguf_export_writes_the_same_text_in_llama_cpp(tuned: Tuned, tmp_path: Path, peer: LlamaCpp) -> None:
    file = tmp_path / "tuned.gguf"
    assert main(["export", str(tuned.run), "--format", "gguf", "--dtype", "f32", "--out", str(file)]) == 0
    assert peer.open(file) == ""
    assert peer.tokenize(TEXTS) == [tuned.model.tokenizer.encode(text) for text in TEXTS]
    assert tuned.model.template is not None
    prompt = tuned.model.template.render(tuned.model.tokenizer, QUESTION, add_generation_prompt=True).ids
    assert peer.tokenize([peer.render(QUESTION)], special=True) == [prompt]
    again = load(file)  # in 32 bits, where nothing is rounded and the margin is that of sums in another order
    prompts = [prompt, *(tuned.model.prompt_ids(text) for text in PROMPTS)]
    assert continuations(peer, again, prompts, EXACT) > 3 * TOKENS
    assert again.stop_ids == tuned.model.stop_ids


@torch.inference_mode()
def test_hugging_face_export_has_the_same_logits_in_transformers(tuned: Tuned, tmp_path: Path) -> None:
    out = tmp_path / "hf"
    assert main(["export", str(tuned.run), "--format", "hf", "--out", str(out)]) == 0
    theirs = transformers.AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    ours = tuned.model
    for text in PROMPTS:
        ids = ours.prompt_ids(text)
        assert tokenizer.encode(text) == ids
        expected = theirs(torch.tensor([ids])).logits
        assert (ours(torch.tensor([ids])) - expected).abs().max() < 1e-4 * expected.abs().max()
    assert ours.template is not None
    prompt = ours.template.render(ours.tokenizer, QUESTION, add_generation_prompt=True).ids
    rendered = tokenizer.apply_chat_template(QUESTION, add_generation_prompt=True, tokenize=False)
    assert tokenizer.encode(rendered, add_special_tokens=False) == list(prompt)


@torch.inference_mode()
def test_adapter_alone_opens_by_peft_and_here_as_the_tuned_model(tuned: Tuned) -> None:
    base = transformers.AutoModelForCausalLM.from_pretrained(tuned.base_folder, dtype=torch.float32).eval()
    theirs = peft.PeftModel.from_pretrained(base, tuned.run / "adapter").eval()
    tokens = torch.tensor([tuned.model.prompt_ids(PROMPTS[0])])
    expected = theirs(tokens).logits
    assert (tuned.model(tokens) - expected).abs().max() < 1e-4 * expected.abs().max()
    merged, weights = load(tuned.run / "adapter"), module_tensors(tuned.model.model)
    assert merged.chats
    for name, tensor in module_tensors(merged.model).items():
        torch.testing.assert_close(tensor, weights[name], rtol=1e-4, atol=1e-5)
