"""A model that others published, out of a Hugging Face folder or a GGUF file: weights and how it writes text."""

from __future__ import annotations

from pathlib import Path

import torch

from underhood.core.protocols import Tokenizer
from underhood.infer.tokenizer_files import load_gguf_tokenizer, load_tokenizer_files
from underhood.models.decoder import Decoder
from underhood.models.gguf_reader import is_gguf, read_gguf
from underhood.models.gguf_weights import load_gguf
from underhood.models.hub_weights import Progress, load_decoder
from underhood.text.chat import Template
from underhood.text.settings import SpecialTokenIds

TextFiles = tuple[Tokenizer, Template | None, SpecialTokenIds]
"""The tokenizer, the chat template if there is one, and which ids open and end texts."""


def is_published(folder: Path) -> bool:
    """Whether a folder has the form of Hugging Face, and not that of a checkpoint of a run."""
    return (folder / "config.json").exists() and not (folder / "state.json").exists()


def read_published(
    location: Path, device: str | torch.device, dtype: torch.dtype | None, progress: Progress | None
) -> tuple[Decoder, TextFiles]:
    """The model of a folder or a GGUF file, with its tokenizer.

    Args:
        dtype: of the weights in memory; None keeps the files' own (float32 for a quantised GGUF file).
        progress: told the bytes read so far and in all.

    Raises:
        UserError: an unknown family, or a file that is missing, damaged or can't be read.
    """
    if is_gguf(location):
        contents = read_gguf(location)
        model = load_gguf(contents, dtype=dtype, device=device, progress=progress)
        return model, load_gguf_tokenizer(contents.metadata, model.vocab_size, where=str(location))
    model = load_decoder(location, dtype=dtype, device=device, progress=progress)
    return model, load_tokenizer_files(location, model.vocab_size)
