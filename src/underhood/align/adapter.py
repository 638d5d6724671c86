"""LoRA adapters on disk in the form of the peft library, so that they travel both ways.

A folder of two files: ``adapter_config.json`` says the rank and where it belongs, ``adapter_model.safetensors`` holds
the A and B of every adapted layer under the layer's name in transformers, e.g.
``base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight``.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from underhood.core.errors import UserError
from underhood.core.files import storage_errors, write_text
from underhood.nn.lora import LoRALinear, LoRASpec, lora_layers

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."

_LAYER = re.compile(r"blocks\.(\d+)\.(.+)")
_THEIRS = {
    "mixer.query": "self_attn.q_proj",
    "mixer.key": "self_attn.k_proj",
    "mixer.value": "self_attn.v_proj",
    "mixer.output": "self_attn.o_proj",
    "feedforward.gate": "mlp.gate_proj",
    "feedforward.up": "mlp.up_proj",
    "feedforward.down": "mlp.down_proj",
}


def llama_name(name: str) -> str:
    """A layer's name in transformers' Llama, Mistral, Qwen and Gemma models.

    Raises:
        UserError: these families have no such layer.
    """
    match = _LAYER.fullmatch(name)
    if match and match[2] in _THEIRS:
        return f"model.layers.{match[1]}.{_THEIRS[match[2]]}"
    if name == "unembed":
        return "lm_head"
    raise UserError(f"the layer {name} has no name in peft's form", fix="Choose LoRA targets among the blocks' layers")


def save_adapter(
    model: nn.Module, folder: Path, *, base: str = "", name_of: Callable[[str], str] = llama_name
) -> None:
    """Writes the model's adapter into `folder`.

    Args:
        base: what the adapter belongs to (a folder or a hub name), for peft to find it.
        name_of: a layer's name in transformers.

    Raises:
        UserError: the model has no adapter, a layer has no name there, or the place can't be written.
    """
    layers = dict(lora_layers(model))
    if not layers:
        raise UserError("the model has no LoRA layers to save")
    spec = next(iter(layers.values())).spec
    tensors: dict[str, Tensor] = {}
    for name, layer in layers.items():
        theirs = _PREFIX + name_of(name)
        tensors[f"{theirs}.lora_A.weight"] = layer.lora_A.detach().cpu().contiguous()
        tensors[f"{theirs}.lora_B.weight"] = layer.lora_B.detach().cpu().contiguous()
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": spec.rank,
        "lora_alpha": spec.alpha,
        "lora_dropout": spec.dropout,
        "use_rslora": spec.rslora,
        "target_modules": sorted({name_of(name).rpartition(".")[2] for name in layers}),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    # Names by their last part would reach further than the layers chosen: then each is named in full.
    if _reaches_further(model, layers, config["target_modules"], name_of):
        config["target_modules"] = sorted(name_of(name) for name in layers)
    making = folder / f".making-{WEIGHTS}"
    with storage_errors(folder, "Free some space or choose another folder"):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            save_file(tensors, making, metadata={"format": "pt"})
            os.replace(making, folder / WEIGHTS)
        finally:
            making.unlink(missing_ok=True)
    write_text(folder / CONFIG, json.dumps(config, indent=2) + "\n")


def load_adapter(model: nn.Module, folder: Path, *, name_of: Callable[[str], str] = llama_name) -> LoRASpec:
    """Gives a model the adapter in `folder`, in place; returns what kind it is.

    Raises:
        UserError: no adapter there, one of a kind that is not LoRA on linear layers, or one for another model.
    """
    config = _config(folder)
    try:
        tensors = load_file(folder / WEIGHTS)
    except FileNotFoundError as error:
        raise UserError(f"{folder} lacks {WEIGHTS}") from error
    except (OSError, SafetensorError) as error:
        raise UserError(f"can't read {folder / WEIGHTS}: {error}") from error
    wanted = {name.removeprefix(_PREFIX).rsplit(".lora_", 1)[0] for name in tensors}
    targets = []
    for name, module in model.named_modules():
        if not isinstance(module, nn.Linear) and not hasattr(module, "packed"):
            continue
        try:
            theirs = name_of(name)
        except UserError:
            continue
        if theirs in wanted:
            targets.append((name, theirs))
    if missing := wanted - {theirs for _, theirs in targets}:
        raise UserError(f"{folder} belongs to another model: this one has no layer {sorted(missing)[0]}")
    spec = LoRASpec(
        rank=config["r"],
        alpha=float(config["lora_alpha"]),
        dropout=float(config.get("lora_dropout", 0.0)),
        targets=tuple(f"re:{re.escape(name)}" for name, _ in targets),
        rslora=bool(config.get("use_rslora", False)),
    )
    spec.apply(model)
    for name, theirs in targets:
        layer = model.get_submodule(name)
        assert isinstance(layer, LoRALinear)
        for part in ("lora_A", "lora_B"):
            _fill(getattr(layer, part), tensors, f"{_PREFIX}{theirs}.{part}.weight", folder)
    return spec


def _fill(parameter: Tensor, tensors: dict[str, Tensor], name: str, folder: Path) -> None:
    if name not in tensors:
        raise UserError(f"{folder / WEIGHTS} lacks the tensor {name}")
    if tensors[name].shape != parameter.shape:
        expected, got = str(tuple(parameter.shape)), str(tuple(tensors[name].shape))
        raise UserError(f"{folder / WEIGHTS}: {name} has the wrong shape", expected=expected, got=got)
    with torch.no_grad():
        parameter.copy_(tensors[name])


def _config(folder: Path) -> dict[str, Any]:
    file = folder / CONFIG
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"there is no adapter in {folder}", expected=f"a {CONFIG} in it") from error
    except (OSError, ValueError) as error:
        raise UserError(f"can't read {file}: {error}") from error
    if config.get("peft_type") != "LORA":
        raise UserError(f"{file} is no LoRA adapter", got=repr(config.get("peft_type")))
    # What would change the function and is not done here must not pass silently.
    for key in ("use_dora", "rank_pattern", "alpha_pattern", "modules_to_save", "fan_in_fan_out", "lora_bias"):
        if config.get(key):
            raise UserError(f"{file} asks for {key}, which is not supported", got=repr(config[key]))
    if config.get("bias", "none") != "none":
        raise UserError(f"{file} trains biases, which is not supported", got=repr(config["bias"]))
    return config


def _reaches_further(
    model: nn.Module, layers: dict[str, LoRALinear], ends: list[str], name_of: Callable[[str], str]
) -> bool:
    """Whether a plain layer that is not adapted would match one of the names too."""
    inside = {f"{name}.base" for name in layers} | {f"{name}.merged" for name in layers}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and name not in inside:
            try:
                if name_of(name).rpartition(".")[2] in ends:
                    return True
            except UserError:
                continue
    return False
