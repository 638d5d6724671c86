"""Opening models for decoding: large ones are optimized, and drafts must fit the models that they guess for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from underhood.core.errors import UserError
from underhood.core.protocols import Tokenizer
from underhood.infer.drafts import check_draft
from underhood.infer.load import LoadedModel
from underhood.infer.optimize import Quantized, optimize_for_inference
from underhood.infer.packed_loading import load_for_inference
from underhood.models.base import BuiltModel, parameter_count

MIN_OPTIMIZED_PARAMETERS = 20_000_000
"""Parameters from which one command's text pays for the kernels: every process loads them, the first one compiles them.

A server always optimizes: it writes many texts."""


def is_large(loaded: LoadedModel) -> bool:
    """Whether one command's text pays for the kernels."""
    return parameter_count(loaded.model) >= MIN_OPTIMIZED_PARAMETERS


def optimize_if_large(loaded: LoadedModel) -> LoadedModel:
    """The same model; of a large one a copy that decodes faster. Its kernels are loaded when they are called."""
    if is_large(loaded):
        loaded = replace(loaded, model=optimize_for_inference(loaded.model))
    return loaded


def open_draft(name: str | Path, models: list[LoadedModel], quantize: Quantized | None = None) -> BuiltModel:
    """The draft of one or several models, made ready for inference.

    Raises:
        UserError: there is no such model, or its tokens are others than those of one of the models.
    """
    draft = load_for_inference(name, quantize=quantize)
    for target in models:
        check_draft(target.model, draft.model)
        if not _same_tokens(draft.tokenizer, target.tokenizer):
            raise UserError(
                f"{name} reads other tokens than {target.run}, so it can't guess for it",
                fix="Take a draft that was trained with the same tokenizer",
            )
    return optimize_for_inference(draft.model, quantize)


def _same_tokens(a: Tokenizer, b: Tokenizer) -> bool:
    ids = range(min(a.vocab_size, b.vocab_size))
    return a.vocab_size == b.vocab_size and all(a.decode_bytes([id]) == b.decode_bytes([id]) for id in ids)
