"""A decoder of the page's payloads, written from the layout alone, and models of each family to show."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from traced import IDS, as_loaded, opened

from underhood.infer.load import LoadedModel
from underhood.models.decoder import qwen3_shaped
from underhood.nn.convolution import ShortConvolutionSpec
from underhood.web.inside.subjects import InsideModels, Subject

PROMPT = "".join(chr(0x100 + id) for id in IDS)
"""The prompt whose tokens are `IDS`."""


def decoded(data: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The facts and the arrays of a payload."""
    length = int.from_bytes(data[:4], "little")
    head = json.loads(data[4 : 4 + length])
    arrays = {}
    for name, array in head["arrays"].items():
        start = 4 + length + array["offset"]
        raw = data[start : start + array["bytes"]]
        shape, coding = array["shape"], array["coding"]
        if coding == "share":
            values = (np.frombuffer(raw, "u1") / 255.0) ** 2
        elif coding == "signed":
            root = np.frombuffer(raw, "i1") / 127.0
            values = np.sign(root) * root**2 * array["scale"]
        else:
            values = np.frombuffer(raw, f"<{coding}")
        if array["triangle"]:
            whole = np.zeros(shape)
            whole[..., *np.tril_indices(shape[-1])] = values.reshape(*shape[:-2], -1)
            values = whole
        arrays[name] = values.reshape(shape)
    return head["facts"], arrays


def subject_of(loaded: LoadedModel, prompt: str = PROMPT) -> Subject:
    return InsideModels.of(loaded, "model").subject("model", prompt)


def family(name: str, folder: Path) -> LoadedModel:
    """A small random model: of a family that transformers makes, or ``recurrent``: convolutions and one attention."""
    if name != "recurrent":
        return opened(name, folder)[0]
    spec = qwen3_shaped(vocab_size=120, context_length=160, d_model=32, layers=3, heads=4, kv_heads=2, d_ff=48)
    attending = spec.blocks[0]
    convolving = replace(attending, mixer=ShortConvolutionSpec(taps=4))
    model = replace(spec, blocks=(convolving, attending, convolving)).initialize(seed=3)
    for number, parameter in enumerate(model.parameters()):
        if parameter.ndim == 2:
            parameter.data.add_(_noise(parameter.shape, number))
    return as_loaded(model.eval(), folder)


def convolving_only(folder: Path) -> LoadedModel:
    """A model without any attention."""
    spec = qwen3_shaped(vocab_size=120, context_length=160, d_model=32, layers=2, heads=4, d_ff=48)
    spec = replace(spec, blocks=(replace(spec.blocks[0], mixer=ShortConvolutionSpec(taps=4)),))
    return as_loaded(spec.initialize(seed=3).eval(), folder)


def _noise(shape: Any, seed: int) -> Any:
    import torch

    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 0.2
