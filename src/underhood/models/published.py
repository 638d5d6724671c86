"""Published models: their configuration, in a Hugging Face folder or a GGUF file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from underhood.models.gguf_config import config_of_gguf
from underhood.models.gguf_reader import is_gguf, read_gguf
from underhood.models.hub_weights import read_config


def is_published(path: Path) -> bool:
    """Whether this is the folder or file of a published model, not a run of ours."""
    return is_gguf(path) or (path / "config.json").exists()


def published_config(path: Path) -> dict[str, Any]:
    """The ``config.json`` of a published model; for a GGUF file the one that says the same.

    Raises:
        UserError: the file is missing, damaged, or of an unknown architecture.
    """
    return config_of_gguf(read_gguf(path)) if is_gguf(path) else read_config(path)
