"""A run folder with tiny random models, for tests of everything that uses a run."""

from __future__ import annotations

from pathlib import Path

import torch

from underhood.core.checkpoint import module_tensors, write_checkpoint
from underhood.core.config import to_json
from underhood.core.files import sha256_of
from underhood.core.protocols import Tokenizer
from underhood.models.decoder import Decoder, qwen3_shaped
from underhood.text.bpe import BytePairTokenizer, train_bpe

TEXT = [
    "The list is a mutable sequence. A list holds items, and the items of a list can be changed.",
    "Naïve café: ünïcödé, 日本語, emoji 🙂 and more.",
]


def tiny_tokenizer() -> BytePairTokenizer:
    return train_bpe(TEXT, vocab_size=300)


def tiny_model(tokenizer: Tokenizer, seed: int, context: int = 96) -> Decoder:
    spec = qwen3_shaped(
        vocab_size=tokenizer.vocab_size, context_length=context, d_model=16, layers=2, heads=2, kv_heads=1, d_ff=24
    )
    generator = torch.Generator().manual_seed(seed)
    model = spec.build()
    for name, parameter in model.named_parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.4 + float("norm" in name)
    return model.eval()


def make_run(
    folder: Path, stages: tuple[str, ...] = ("base", "sft", "dpo"), context: int = 96, retrieval: str | None = None
) -> Path:
    """A folder as `underhood build` leaves it, as far as talking to it needs."""
    folder.mkdir(parents=True)
    tokenizer = tiny_tokenizer()
    tokenizer.save(folder / "tokenizer.json")
    (folder / "run.toml").write_text("", encoding="utf-8")
    for seed, stage in enumerate(stages):
        model = tiny_model(tokenizer, seed, context)
        state = {
            "spec": to_json(model.spec, tagged=True),
            "model": stage,
            "order": seed,
            "chats": stage != "base",
            "tokenizer": sha256_of(folder / "tokenizer.json"),
        }
        if retrieval is not None and stage != "base":
            state["retrieval"] = retrieval
        write_checkpoint(folder / "checkpoints" / stage, 10, {"model": module_tensors(model)}, state)
    return folder
