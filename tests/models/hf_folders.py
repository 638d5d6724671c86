"""What tests of published folders do to them, and how they write one of a model of ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from underhood.core.errors import UserError
from underhood.models.decoder import Decoder, DecoderSpec
from underhood.models.hub_export import to_huggingface
from underhood.models.hub_weights import layout
from underhood.models.huggingface import family_of


def configured(folder: Path, **change: Any) -> Path:
    file = folder / "config.json"
    data = json.loads(file.read_text()) | change
    file.write_text(json.dumps({key: value for key, value in data.items() if value is not ...}))
    return folder


def one_line(error: pytest.ExceptionInfo[UserError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


@torch.no_grad()
def initialized(spec: DecoderSpec) -> Decoder:
    model = spec.initialize(seed=1).eval()
    generator = torch.Generator().manual_seed(2)
    for parameter in model.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model


def stored_tensors(model: Decoder) -> dict[str, torch.Tensor]:
    """The weights as the model's own family stores them."""
    parameters = dict(model.named_parameters())
    return {name.name: name.joined(parameters) for name in layout(model, family_of(to_huggingface(model.spec)))}


def write_folder(model: Decoder, folder: Path) -> None:
    save_file({name: tensor.clone() for name, tensor in stored_tensors(model).items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(to_huggingface(model.spec)))
