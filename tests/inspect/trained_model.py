"""A small trained language model, for tests of what only training brings about."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from tiny_run import tiny_tokenizer

from underhood.infer.load import PUBLISHED, LoadedModel
from underhood.models.decoder import Decoder, qwen3_shaped
from underhood.train.small_lm import train_small

TRAINED_LAYERS = 3


@cache
def texts() -> tuple[str, ...]:
    """Short sentences with a rule: what follows depends on the words before."""
    things = ["list", "tuple", "string", "number", "table", "letter", "value", "key"]
    kinds = {"list": "mutable", "tuple": "immutable", "string": "immutable", "table": "mutable"}
    sentences = []
    for number in range(240):
        thing, other = things[number % 8], things[(number * 5 + number // 8) % 8]
        kind = kinds.get(thing, "small")
        sentences.append(f"The {thing} is {kind} and holds {number % 7} items of a {other}. A {thing} is {kind}.")
    return tuple(sentences)


def training_texts() -> list[str]:
    return list(texts()[:200])


def held_out_texts() -> list[str]:
    return list(texts()[200:])


@cache
def trained_decoder() -> Decoder:
    tokenizer = tiny_tokenizer()
    spec = qwen3_shaped(
        vocab_size=tokenizer.vocab_size, context_length=64, d_model=32, layers=TRAINED_LAYERS, heads=2, d_ff=64
    )
    return train_small(training_texts(), tokenizer, spec, steps=80)


def trained(folder: Path) -> LoadedModel:
    model = trained_decoder()
    model.requires_grad_(False)
    return LoadedModel(model, tiny_tokenizer(), model.spec, PUBLISHED, folder, folder, 80)
