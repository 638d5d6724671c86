"""A run whose model has no number at its default, so that an export that drops one is found out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from underhood.core.checkpoint import module_tensors, write_checkpoint
from underhood.core.config import to_json
from underhood.core.files import sha256_of
from underhood.models.decoder import Decoder, DecoderSpec
from underhood.nn.attention import AttentionSpec
from underhood.nn.block import BlockSpec
from underhood.nn.feedforward import GatedMLPSpec
from underhood.nn.norm import RMSNormSpec
from underhood.nn.rope import RotarySpec
from underhood.text.bpe import BytePairTokenizer, train_bpe

TEXT = [
    "The list is a mutable sequence. A list holds items, and the items of a list can be changed: list.append(x).",
    "Naïve café: ünïcödé, 日本語, emoji 🙂 and more; 12345 numbers\n\n\tand   spaces.\n",
]


def spec_of(
    vocab_size: int, *, tied: bool = False, width: int = 64, context: int = 160, head_dim: int = 32
) -> DecoderSpec:
    """Three layers; heads wider than width / heads, base 3,000, eps 1e-4."""
    norm = RMSNormSpec(eps=1e-4)
    attention = AttentionSpec(heads=4, kv_heads=2, head_dim=head_dim, rotary=RotarySpec(theta=3000.0), qk_norm=norm)
    block = BlockSpec(mixer=attention, feedforward=GatedMLPSpec(d_ff=96), norm=norm)
    return DecoderSpec(
        vocab_size=vocab_size, context_length=context, d_model=width, layers=3, blocks=(block,), norm=norm, tied=tied
    )


def model_of(spec: DecoderSpec, seed: int = 0) -> Decoder:
    """Random weights, the norms' too, large enough for every part to matter."""
    generator = torch.Generator().manual_seed(seed)
    model = spec.build()
    for name, parameter in model.named_parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * (0.3 if "norm" in name else 0.15)
        if "norm" in name:
            parameter.data += 1.0
    return model.eval().requires_grad_(False)


def save_run(folder: Path, model: Decoder, tokenizer: BytePairTokenizer, stages: tuple[str, ...]) -> Path:
    """A folder as `underhood build` leaves it, as far as exporting needs; every stage has the same model."""
    folder.mkdir(parents=True)
    tokenizer.save(folder / "tokenizer.json")
    (folder / "run.toml").write_text("", encoding="utf-8")
    state = {"spec": to_json(model.spec, tagged=True), "tokenizer": sha256_of(folder / "tokenizer.json")}
    for order, stage in enumerate(stages):
        facts = state | {"model": stage, "order": order, "chats": stage != "base"}
        write_checkpoint(folder / "checkpoints" / stage, 10, {"model": module_tensors(model)}, facts)
    return folder


def export_run(
    folder: Path,
    *,
    tied: bool = False,
    width: int = 64,
    context: int = 160,
    head_dim: int = 32,
    stages: tuple[str, ...] = ("base", "sft"),
    pattern: str = "qwen2",
) -> Path:
    tokenizer = train_bpe(TEXT, vocab_size=330)
    if pattern != "qwen2":
        tokenizer = BytePairTokenizer(replace(tokenizer.vocabulary, pattern=pattern))
    spec = spec_of(tokenizer.vocab_size, tied=tied, width=width, context=context, head_dim=head_dim)
    return save_run(folder, model_of(spec), tokenizer, stages)
