"""LoRA adapters of a model that is a GGUF file: peft's open here, ours open in peft, and every command takes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers

import underhood
from text.mistral_pieces import mistral
from tiny_gguf import write_tiny_llama
from underhood.cli.main import main

LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
TEMPLATE = "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]{% else %}"
TEMPLATE += "{% generation %}{{ m.content + eos_token }}{% endgeneration %}{% endif %}{% endfor %}"
TOKENS = torch.arange(300, 340)[None]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama whose rows of queries and keys are in llama.cpp's order, and beside it the same for transformers."""
    folder = tmp_path_factory.mktemp("base")
    file = write_tiny_llama(folder / "tiny.gguf", mistral(chat_template=TEMPLATE), 32_000)
    assert main(["export", str(file), "--out", str(folder / "hf")]) == 0
    return file


def transformers_model(base: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(base.parent / "hf", dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def adapter(base: Path) -> Path:
    """An adapter that peft saved; both matrices of each layer are random."""
    made = peft.get_peft_model(transformers_model(base), peft.LoraConfig(r=4, lora_alpha=6, target_modules=LAYERS))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    made.peft_config["default"].base_model_name_or_path = str(base)
    made.save_pretrained(str(base.parent / "adapter"))
    return base.parent / "adapter"


@torch.no_grad()
def difference(ours: Any, theirs: Any) -> float:
    expected = theirs.eval()(TOKENS).logits
    return ((ours(TOKENS) - expected).abs().max() / expected.abs().max()).item()


def test_adapter_by_peft_over_a_gguf_file_matches_peft(base: Path, adapter: Path) -> None:
    theirs = peft.PeftModel.from_pretrained(transformers_model(base), adapter)
    assert difference(underhood.load(adapter), theirs) < 1e-4
    assert difference(underhood.load(base), theirs) > 1e-2


def test_our_adapter_over_a_gguf_file_opens_in_peft_and_here(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = tmp_path / "data.jsonl", tmp_path / "tuned"
    turns = [{"role": "user", "content": "What is a list?"}, {"role": "assistant", "content": "A list holds items."}]
    data.write_text("".join(json.dumps({"messages": turns}) + "\n" for _ in range(12)))
    options = ["--steps", "3", "--lora-rank", "2", "--lr", "0.05", "--context-length", "64", "--out", str(out)]
    assert main(["finetune", str(base), "--data", str(data), *options]) == 0, capsys.readouterr().err
    theirs = peft.PeftModel.from_pretrained(transformers_model(base), out / "adapter")
    tuned, again = underhood.load(out), underhood.load(out / "adapter")
    assert difference(tuned, theirs) < 1e-4
    assert difference(again, theirs) < 1e-4
    assert difference(underhood.load(base), theirs) > 1e-3
    assert again.chats
    assert again.roles == tuned.roles


@pytest.mark.parametrize(
    "words",
    [
        ("generate", "MODEL", "A list", "--max-tokens", "3", "--temperature", "0"),
        ("eval", "MODEL", "--text", "notes.txt"),
        ("export", "MODEL", "--format", "gguf", "--dtype", "f32", "--out", "out.gguf"),
        ("export", "MODEL", "--format", "hf", "--out", "out-hf"),
        ("finetune", "MODEL", "--data", "chats.jsonl", "--steps", "1", "--lora-rank", "2", "--out", "tuned"),
        ("classify", "MODEL", "--data", "marks.tsv", "--epochs", "1", "--out", "marks"),
        ("compress", "notes.txt", "--model", "MODEL", "--out", "notes.uh"),
    ],
    ids=lambda words: "-".join(word for word in words[:4] if word.isalpha() and word != "MODEL"),
)
def test_commands_take_the_adapters_folder(
    words: tuple[str, ...],
    adapter: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("A list holds items, and they can be changed.\n")
    Path("marks.tsv").write_text("\n".join(f"text {n} of many\t{n % 2}" for n in range(20)))
    chats = [f'{{"prompt": "What is {n}?", "response": "It is {n}."}}' for n in range(12)]
    Path("chats.jsonl").write_text("\n".join(chats))
    code = main([str(adapter) if word == "MODEL" else word for word in words])
    assert code == 0, capsys.readouterr().err
    if words[0] == "export":
        back, ours = underhood.load(words[-1]), underhood.load(adapter)
        expected = ours(TOKENS)
        assert (back(TOKENS) - expected).abs().max() < 1e-4 * expected.abs().max()
        assert back.tokenizer.encode("A list  holds") == ours.tokenizer.encode("A list  holds")
    if words[0] == "finetune":
        assert underhood.load("tuned").chats
