"""Checkpoints to models: any language model of ours, rebuilt from the spec that its checkpoint is tagged with."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from underhood.core.checkpoint import Checkpoint
from underhood.core.config import from_json
from underhood.core.protocols import ModelSpec
from underhood.models.base import BuiltModel


def restore(
    checkpoint: Checkpoint, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> BuiltModel:
    """The model of a checkpoint, in evaluation mode.

    Raises:
        UserError: the spec is of an unknown type, or the tensors don't fit it.
    """
    model = empty_model(spec_of(checkpoint), dtype, device)
    if model.sized_by_text:
        model = model.spec.build()
        model.load_state_dict(checkpoint.tensors("model"))
        model.to(dtype=dtype, device=device)
    else:
        checkpoint.fill(model, "model")
    return model.eval()


def spec_of(checkpoint: Checkpoint) -> ModelSpec:
    """What the model of a checkpoint is made of."""
    return from_json(ModelSpec, checkpoint.state["spec"], where=f"spec in {checkpoint.path / 'state.json'}")


def empty_model(spec: ModelSpec, dtype: torch.dtype, device: torch.device | str) -> BuiltModel:
    """The model with memory for its weights and nothing in it yet; shared tensors stay shared."""
    model = skeleton(spec).to(dtype)
    first: dict[int, str] = {}
    shared: list[tuple[str, str]] = []
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if id(parameter) in first:
            shared.append((name, first[id(parameter)]))
        first.setdefault(id(parameter), name)
    for name, _ in shared:  # or it would get memory of its own
        _set(model, name, None)
    model.to_empty(device=device)
    for name, original in shared:
        _set(model, name, model.get_parameter(original))
    return model


def skeleton(spec: ModelSpec) -> BuiltModel:
    """The model without memory for its weights, on the device "meta"."""
    with torch.device("meta"), _NoRandomNumbers():
        return spec.build()


class _NoRandomNumbers(TorchFunctionMode):
    """Leaves out random initialisation. On the device "meta" it does nothing, but imports half of PyTorch: a second."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.__name__ in ("normal_", "uniform_"):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def _set(model: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
    parent, _, child = name.rpartition(".")
    model.get_submodule(parent).register_parameter(child, parameter)
