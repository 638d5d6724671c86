"""Models to look into, with transformers' own beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from hf_peers import save_peer

from underhood.infer.load import PUBLISHED, LoadedModel
from underhood.models.decoder import Decoder
from underhood.models.hub_weights import load_decoder
from underhood.text.characters import CharacterTokenizer

IDS = [1, 17, 63, 5, 88, 17, 63, 40, 9, 23, 71, 12]


def opened(name: str, folder: Path) -> tuple[LoadedModel, Any]:
    """A model of a family as ours, and as transformers has it."""
    peer = save_peer(name, folder)
    return as_loaded(load_decoder(folder).eval(), folder), peer


def as_loaded(model: Decoder, folder: Path) -> LoadedModel:
    """A decoder with a tokenizer of one character per id."""
    tokenizer = CharacterTokenizer("".join(chr(0x100 + number) for number in range(model.vocab_size)))
    return LoadedModel(model, tokenizer, model.spec, PUBLISHED, folder, folder, 0)


def tokens() -> torch.Tensor:
    return torch.tensor([IDS])
