"""LoRA adapters on disk in the form of the peft library, so that they travel both ways.

A folder of two files: ``adapter_config.json`` says the rank and where it belongs, ``adapter_model.safetensors`` holds
the A and B of every adapted layer under the layer's name in transformers, e.g.
``base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight``.

Some families store several of our layers as one (GPT-2's ``c_attn``, Phi-3's ``qkv_proj``). There the companions of k
layers become one of k times the rank: A's rows below each other, B in blocks, everything else zero. It is the same
function; on the way back, the one A serves each layer and B is cut into rows.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from underhood.core.errors import UserError
from underhood.core.files import storage_errors, write_text
from underhood.infer.adapter_folder import (
    CONFIG,
    PREFIX,
    WEIGHTS,
    adapter_base,
    is_adapter,
    read_adapter_config,
    read_adapter_tensors,
)
from underhood.infer.load import IMPORTED
from underhood.models.huggingface import FAMILIES, Names, Turned, family_of
from underhood.models.published import is_published, published_config
from underhood.nn.lora import LoRALinear, LoRASpec, lora_layers
from underhood.nn.qlora_linear import QuantizedLinear
from underhood.text.files import read_json


@dataclass(frozen=True)
class _Joined:
    """A layer of theirs and those of ours that it holds, one below the other."""

    name: str
    ours: tuple[str, ...]


def names_of(folder: Path) -> Names:
    """Names of the model's layers in transformers.

    They follow its ``config.json`` or GGUF metadata, or the configuration that its run was imported with, or else
    Qwen3's, the shape of our runs. A model that is an adapter has the names of its base.
    """
    if is_adapter(folder):
        return names_of(adapter_base(folder))
    if is_published(folder):
        return family_of(published_config(folder), str(folder)).names
    if (folder / IMPORTED).exists():
        return family_of(read_json(folder / IMPORTED).get("config", {}), str(folder / IMPORTED)).names
    return FAMILIES["qwen3"].names


def save_adapter(model: nn.Module, folder: Path, *, base: str = "", names: Names | None = None) -> None:
    """Writes the model's adapter into `folder`.

    Args:
        base: what the adapter belongs to (a folder or a hub name), for peft to find it.
        names: our layers' names in transformers (see `names_of`); Qwen3's and Llama's if left out.

    Raises:
        UserError: the model has no adapter, a layer has no name there, or the place can't be written.
    """
    layers = dict(lora_layers(model))
    if not layers:
        raise UserError("the model has no LoRA layers to save")
    spec = next(iter(layers.values())).spec
    names = names or FAMILIES["qwen3"].names
    joined = _joined(model, names, lambda name: name in layers)
    if unnamed := layers.keys() - {name for layer in joined for name in layer.ours}:
        raise UserError(
            f"the layer {min(unnamed)} has no name in peft's form", fix="Choose LoRA targets among the blocks' layers"
        )
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    alphas: dict[str, float] = {}
    for layer in joined:
        parts = [layers[name] for name in layer.ours if name in layers]
        a, b = _stacked(model, layer, layers)
        tensors[f"{PREFIX}{layer.name}.lora_A.weight"] = a
        tensors[f"{PREFIX}{layer.name}.lora_B.weight"] = b
        if len(parts) > 1:
            ranks[layer.name] = spec.rank * len(parts)
            alphas[layer.name] = spec.alpha * (math.sqrt(len(parts)) if spec.rslora else len(parts))
    ends = sorted({layer.name.rpartition(".")[2] for layer in joined})
    full = sorted(layer.name for layer in joined)
    others = {layer.name for layer in _joined(model, names, lambda _: True)} - set(full)
    # Names by their last part may reach further than the layers chosen: then each is named in full.
    further = any(other.rpartition(".")[2] in ends for other in others)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": spec.rank,
        "lora_alpha": spec.alpha,
        "lora_dropout": spec.dropout,
        "use_rslora": spec.rslora,
        "rank_pattern": ranks,
        "alpha_pattern": alphas,
        "target_modules": full if further else ends,
        "bias": "none",
        "fan_in_fan_out": any(isinstance(names[_general(name)], Turned) for name in layers),
        "inference_mode": True,
    }
    making = folder / f".making-{WEIGHTS}"
    with storage_errors(folder, "Free some space or choose another folder"):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            save_file(tensors, making, metadata={"format": "pt"})
            os.replace(making, folder / WEIGHTS)
        finally:
            making.unlink(missing_ok=True)
    write_text(folder / CONFIG, json.dumps(config, indent=2) + "\n")


def load_adapter(model: nn.Module, folder: Path, *, names: Names | None = None) -> LoRASpec:
    """Gives a model the adapter in `folder`, in place; returns what kind it is.

    Raises:
        UserError: no adapter there, one of a kind that is not LoRA on linear layers, or one for another model.
    """
    config = read_adapter_config(folder)
    tensors = read_adapter_tensors(folder)
    wanted = {name.removeprefix(PREFIX).rsplit(".lora_", 1)[0] for name in tensors}
    matches = [
        joint for joint in _joined(model, names or FAMILIES["qwen3"].names, lambda _: True) if joint.name in wanted
    ]
    if missing := wanted - {joint.name for joint in matches}:
        raise UserError(f"{folder} belongs to another model: this one has no layer {min(missing)}")
    rslora = bool(config.get("use_rslora", False))
    ranks, alphas = config.get("rank_pattern") or {}, config.get("alpha_pattern") or {}
    kinds = {_kind(joint.name, config, ranks, alphas) for joint in matches}
    if len({alpha / (math.sqrt(rank) if rslora else rank) for rank, alpha in kinds}) > 1 or len(kinds) > 1:
        raise UserError(f"{folder / CONFIG} gives layers different ranks, which is not supported", got=repr(ranks))
    [(rank, alpha)] = kinds
    targets = [name for joint in matches for name in joint.ours]
    spec = LoRASpec(
        rank=rank,
        alpha=alpha,
        dropout=float(config.get("lora_dropout", 0.0)),
        targets=tuple(f"re:{re.escape(name)}" for name in targets),
        rslora=rslora,
    )
    spec.apply(model)
    for joint in matches:
        layers = [layer for name in joint.ours if isinstance(layer := model.get_submodule(name), LoRALinear)]
        rows = [layer.out_features for layer in layers]
        whole = _read(tensors, f"{PREFIX}{joint.name}.lora_B.weight", (sum(rows), rank), folder)
        a = _read(tensors, f"{PREFIX}{joint.name}.lora_A.weight", (rank, layers[0].in_features), folder)
        with torch.no_grad():
            for layer, b in zip(layers, whole.split(rows), strict=True):
                layer.lora_A.copy_(a)
                layer.lora_B.copy_(b)
    return spec


def _general(name: str) -> str:
    return re.sub(r"\.\d+(?=\.|$)", ".*", name)


def _joined(model: nn.Module, names: Names, wanted: Callable[[str], bool]) -> list[_Joined]:
    """Their layers that hold at least one wanted layer of ours, in the model's order."""
    groups: dict[str, list[str]] = {}
    for name, module in model.named_modules():
        if isinstance(module, (nn.Linear, QuantizedLinear, LoRALinear)) and _general(name) in names:
            theirs = names[_general(name)]
            theirs = theirs.name if isinstance(theirs, Turned) else theirs
            for number in re.findall(r"\.(\d+)(?=\.|$)", name):
                theirs = theirs.replace("*", number, 1)
            groups.setdefault(theirs, []).append(name)
    order = list(names)
    return [
        _Joined(theirs, tuple(sorted(ours, key=lambda name: order.index(_general(name)))))
        for theirs, ours in groups.items()
        if any(wanted(name) for name in ours)
    ]


def _stacked(model: nn.Module, layer: _Joined, layers: dict[str, LoRALinear]) -> tuple[Tensor, Tensor]:
    """A and B of one layer of theirs."""
    parts = [layers[name] for name in layer.ours if name in layers]
    a = torch.cat([lora.lora_A.detach().cpu() for lora in parts])
    rank, column, row = parts[0].spec.rank, 0, 0
    sizes = [int(getattr(model.get_submodule(name), "out_features")) for name in layer.ours]  # noqa: B009
    b = torch.zeros(sum(sizes), rank * len(parts), dtype=a.dtype)
    for name, size in zip(layer.ours, sizes, strict=True):
        if name in layers:
            b[row : row + size, column : column + rank] = layers[name].lora_B.detach().cpu()
            column += rank
        row += size
    return a.contiguous(), b


def _kind(name: str, config: dict[str, Any], ranks: dict[str, Any], alphas: dict[str, Any]) -> tuple[int, float]:
    """Rank and α of one layer: a pattern of peft is a regular expression for the end of the name."""

    def of(patterns: dict[str, Any], default: Any) -> Any:
        return next((patterns[key] for key in patterns if re.match(rf"(.*\.)?({key})$", name)), default)

    return int(of(ranks, config["r"])), float(of(alphas, config["lora_alpha"]))


def _read(tensors: dict[str, Tensor], name: str, shape: tuple[int, ...], folder: Path) -> Tensor:
    if name not in tensors:
        raise UserError(f"{folder / WEIGHTS} lacks the tensor {name}")
    if tensors[name].shape != shape:
        got = str(tuple(tensors[name].shape))
        raise UserError(f"{folder / WEIGHTS}: {name} has the wrong shape", expected=str(shape), got=got)
    return tensors[name]
