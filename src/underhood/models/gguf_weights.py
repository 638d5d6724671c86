"""Decoders from GGUF files: the weights dequantised into a model, tensor by tensor, or as they are stored."""

from __future__ import annotations

from typing import cast

import torch
from gguf import GGMLQuantizationType

from underhood.models.decoder import Decoder, DecoderSpec
from underhood.models.gguf_config import architecture_of, config_of_gguf
from underhood.models.gguf_names import parameter_tensors
from underhood.models.gguf_reader import GGUFFile
from underhood.models.gguf_tensor import GGUFTensor
from underhood.models.hub_weights import Progress
from underhood.models.huggingface import spec_from_config
from underhood.models.restore import empty_model

RELEASE_BYTES = 64 * 2**20
"""Bytes read of a file before their memory is given back."""

_EXACT = {GGMLQuantizationType.F16: torch.float16, GGMLQuantizationType.BF16: torch.bfloat16}


def gguf_spec(file: GGUFFile, *, context_length: int | None = None) -> DecoderSpec:
    """What the model in a GGUF file is made of.

    Raises:
        UserError: as `config_of_gguf` and `spec_from_config`.
    """
    return spec_from_config(config_of_gguf(file), where=str(file.path), context_length=context_length)


def gguf_parameters(file: GGUFFile, model: Decoder) -> dict[str, GGUFTensor]:
    """For each parameter of the model (each shared one once) its blocks as the file stores them.

    Raises:
        UserError: a tensor is missing, superfluous or of another shape.
    """
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    return parameter_tensors(file, architecture_of(file), model.spec, shapes)


def exact_dtype(file: GGUFFile) -> torch.dtype:
    """The smallest type that holds all values of the matrices exactly: float32 for quantised ones."""
    types = {tensor.type for tensor in file.tensors.values() if len(tensor.shape) > 1}
    [kind, *others] = types or {GGMLQuantizationType.F32}
    return torch.float32 if others else _EXACT.get(kind, torch.float32)


@torch.no_grad()
def load_gguf(
    file: GGUFFile,
    *,
    dtype: torch.dtype | None = torch.float32,
    device: torch.device | str = "cpu",
    context_length: int | None = None,
    progress: Progress | None = None,
) -> Decoder:
    """The model in a GGUF file, dequantised, without gradients and in evaluation mode.

    Args:
        dtype: the type of the weights in memory; None takes `exact_dtype`.
        context_length: see `spec_from_config`.
        progress: told after each parameter.

    Raises:
        UserError: an unknown architecture or key; a tensor that is missing, superfluous or of another shape.
    """
    spec = gguf_spec(file, context_length=context_length)
    model = cast(Decoder, empty_model(spec, dtype or exact_dtype(file), device))
    parameters = dict(model.named_parameters())
    total = sum(parameter.nbytes for parameter in parameters.values())
    done = read = 0
    for name, tensor in gguf_parameters(file, model).items():
        flat = parameters[name].view(-1)
        for where, values in tensor.chunks():
            flat[where] = values.to(flat)
        done, read = done + parameters[name].nbytes, read + tensor.blocks.nbytes
        if read >= RELEASE_BYTES:
            file.release_pages()
            read = 0
        if progress is not None:
            progress(done, total)
    file.release_pages()
    return model.eval().requires_grad_(False)


def summary_of_types(file: GGUFFile) -> dict[str, tuple[int, int]]:
    """How many tensors and values the file holds of each type, most values first."""
    counts: dict[str, tuple[int, int]] = {}
    for tensor in file.tensors.values():
        tensors, values = counts.get(tensor.type.name, (0, 0))
        counts[tensor.type.name] = (tensors + 1, values + tensor.values)
    return dict(sorted(counts.items(), key=lambda item: -item[1][1]))
