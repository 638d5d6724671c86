"""Models opened for inference alone: a GGUF file's quantised matrices stay as small as they are in the file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from underhood.infer.fetch import fetch
from underhood.infer.load import LoadedModel, as_published, check_stage, load
from underhood.infer.optimize import Quantized
from underhood.infer.tokenizer_files import load_gguf_tokenizer
from underhood.models.gguf_packed import has_blocks, load_packed_gguf
from underhood.models.gguf_reader import is_gguf, read_gguf
from underhood.models.hub_weights import Progress


def load_for_inference(
    run: str | Path, stage: str | None = None, *, quantize: Quantized | None = None, progress: Progress | None = None
) -> LoadedModel:
    """`load` for models that are not trained on: on the CPU, plain weights in float32, quantised ones in few bits.

    Args:
        quantize: what quantised matrices are rounded to that have no kernels of their own; None means int8.

    Raises:
        UserError: as `load`.
    """
    path = fetch(run)
    if not is_gguf(path) or not has_blocks(file := read_gguf(path)):
        return load(run, stage, dtype=torch.float32, progress=progress)
    check_stage(path, stage)
    kind = "q4_1" if quantize == "int4" else "q8_0"
    model, packing = load_packed_gguf(file, kind=kind, progress=progress)
    tokenizer = load_gguf_tokenizer(file.metadata, model.vocab_size, where=str(path))
    return replace(as_published(path, model, tokenizer), note=str(packing))
