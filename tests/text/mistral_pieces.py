"""The SentencePiece tokenizer of the first Mistral as llama.cpp's converter writes it into a GGUF file."""

from __future__ import annotations

from typing import Any

import needs
from underhood.text.sentencepiece_model import read_model


def mistral(**more: Any) -> dict[str, Any]:
    """The keys of the vocabulary, without their prefix ``tokenizer.``, and further ones."""
    model = read_model(needs.shared_data("tokenizers", "mistral-v1", "tokenizer.model"))
    keys = {
        "ggml.model": "llama",
        "ggml.tokens": [piece.text for piece in model.pieces],
        "ggml.token_type": [piece.kind.value for piece in model.pieces],
        "ggml.scores": [piece.score for piece in model.pieces],
        "ggml.bos_token_id": 1,
        "ggml.eos_token_id": 2,
        "ggml.unknown_token_id": 0,
    }
    return keys | more
