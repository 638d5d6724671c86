"""A LoRA adapter that the peft library saved, in place of a model: its base is found and the adapter merged into it.

W' = W + s·B·A with s = α/r, or α/√r for rank-stabilised LoRA (Hu et al. 2021, section 4.1; Kalajdzievski 2023). Only
what this sum describes is merged; adapters of other kinds are refused by name.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from underhood.core.errors import UserError
from underhood.infer.fetch import fetch, is_on_hub
from underhood.infer.model_table import locate_named
from underhood.models.decoder import Decoder
from underhood.models.hub_export import to_huggingface
from underhood.models.hub_weights import Stored, layout, read_config
from underhood.models.huggingface import FAMILIES, Family, family_of
from underhood.text.files import read_json

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."

_PLAIN_STARTS = (True, False, None, "gaussian", "orthogonal", "eva")
"""Initialisations of A and B that leave the base's weights alone; PiSSA, OLoRA, CorDA and LoftQ change them."""

_REFUSED = (
    *("use_dora", "use_qalora", "use_bdlora", "modules_to_save", "lora_bias", "trainable_token_indices"),
    *("target_parameters", "layer_replication", "alora_invocation_tokens", "arrow_config", "kasa_config"),
    *("velora_config", "monteclora_config", "ensure_weight_tying"),
)
"""Settings that change the function beyond the sum above."""


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and no model of its own."""
    return (folder / CONFIG).exists() and not (folder / "config.json").exists()


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """The configuration of a LoRA adapter.

    Raises:
        UserError: there is none, or the adapter is of a kind that is not plain LoRA (which is named).
    """
    file = folder / CONFIG
    if not file.exists():
        raise UserError(f"there is no adapter in {folder}", expected=f"a {CONFIG} in it")
    config = read_json(file)
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        kind = config.get("peft_type") if isinstance(config, dict) else config
        raise UserError(f"{file} is not a LoRA adapter", got=repr(kind))
    for key in _REFUSED:
        if config.get(key):
            raise UserError(f"{file} asks for {key}, which is not supported", got=repr(config[key]))
    if config.get("bias", "none") != "none":
        raise UserError(f"{file} trains biases, which is not supported", got=repr(config["bias"]))
    if config.get("init_lora_weights", True) not in _PLAIN_STARTS:
        got = repr(config["init_lora_weights"])
        raise UserError(f"{file} starts from changed base weights, which is not supported", got=got)
    return config


def adapter_base(folder: Path) -> Path:
    """Where the model is that an adapter belongs to: a path, a name of the model table, or in the hub's cache.

    Raises:
        UserError: it is not on this machine; the message names it and says how to get it.
    """
    base = str(read_adapter_config(folder).get("base_model_name_or_path") or "")
    if not base:
        raise UserError(f"{folder / CONFIG} does not name the adapter's base", expected="base_model_name_or_path")
    for path in (Path(base).expanduser(), folder / base):
        if path.exists():
            return path
    if (named := locate_named(base)) is not None:
        return fetch(named)
    name = base if is_on_hub(base) else f"hf:{base}"
    if re.fullmatch(r"hf:[\w.-]+/[\w.-]+", name):
        cached = _in_hub_cache(name.removeprefix("hf:"))
        if cached is not None:
            return cached
        fix = f"Download the base with: underhood import {name} --check"
    else:
        fix = f"Put its folder there, or its new place into {CONFIG}"
    raise UserError(f"{folder} is a LoRA adapter for {base}, which is not on this machine", fix=fix)


def _in_hub_cache(repo: str) -> Path | None:
    """The newest snapshot that the hub's client has kept of a model; nothing is downloaded."""
    import huggingface_hub

    config = huggingface_hub.try_to_load_from_cache(repo, "config.json")
    return Path(config).parent if isinstance(config, str) else None


@torch.no_grad()
def merge_adapter(model: Decoder, folder: Path, base: Path) -> None:
    """Adds an adapter to its base model's weights, in place.

    Args:
        base: where the model was read from, whose family says what its layers are called.

    Raises:
        UserError: the adapter is damaged, or belongs to another model.
    """
    config, tensors = read_adapter_config(folder), read_adapter_tensors(folder)
    if on_embeddings := [name for name in tensors if ".lora_embedding_" in name]:
        raise UserError(f"{folder} adapts an embedding, which is not supported", got=_layer(on_embeddings[0]))
    family, stored = _stored_layers(model, base, folder, tensors)
    parameters = dict(model.named_parameters())
    for name in [name for name in tensors if ".lora_" not in name]:
        [own] = stored[_own_name(_layer(name), family)].parts
        whole = tensors.pop(name).to(parameters[own])
        if not torch.equal(whole, parameters[own]):  # peft saves embeddings beside an adapter of the unembedding
            raise UserError(f"{folder} holds weights of its own for {_layer(name)}, which is not supported")
    ranks, alphas = config.get("rank_pattern") or {}, config.get("alpha_pattern") or {}
    for name in sorted({_layer(tensor) for tensor in tensors}):
        rank = int(_by_pattern(ranks, name, config.get("r", 8)))
        alpha = float(_by_pattern(alphas, name, config.get("lora_alpha", 8)))
        scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
        weights = [parameters[own] for own in stored[_own_name(name, family)].parts]
        rows = [len(weight) for weight in weights]
        a = _tensor(tensors, f"{PREFIX}{name}.lora_A.weight", (rank, weights[0].shape[1]), folder)
        b = _tensor(tensors, f"{PREFIX}{name}.lora_B.weight", (sum(rows), rank), folder)
        wide = torch.promote_types(weights[0].dtype, torch.float32)
        for weight, change in zip(weights, (scale * (b.to(wide) @ a.to(wide))).split(rows), strict=True):
            weight.copy_(weight.to(wide) + change.to(weight.device))


def read_adapter_tensors(folder: Path) -> dict[str, Tensor]:
    """The tensors of an adapter by their names in the file.

    Raises:
        UserError: there is no safetensors file, or it is damaged.
    """
    try:
        return load_file(folder / WEIGHTS)
    except FileNotFoundError as error:
        pickled = (folder / "adapter_model.bin").exists()
        fix = "Its adapter_model.bin is pickled and never opened; save it again as safetensors" if pickled else None
        raise UserError(f"{folder} lacks {WEIGHTS}", fix=fix) from error
    except (OSError, SafetensorError) as error:
        raise UserError(f"can't read {folder / WEIGHTS}: {error}") from error


def _stored_layers(
    model: Decoder, base: Path, folder: Path, tensors: dict[str, Tensor]
) -> tuple[Family, dict[str, Stored]]:
    """The family by whose names the adapter calls the layers, and the model's layers by those names."""
    if (base / "config.json").exists():
        families = [family_of(read_config(base))]
    else:  # a run or a GGUF file: several families store the same function under different names
        families = [family_of(to_huggingface(model.spec)), *FAMILIES.values()]
    missing = ""
    for family in families:
        try:
            stored = {layer.name.removesuffix(".weight"): layer for layer in layout(model, family)}
        except UserError:  # this family has no names for the model's layers
            continue
        absent = [name for name in map(_layer, tensors) if _own_name(name, family) not in stored]
        if not absent:
            return family, stored
        missing = missing or min(absent)
    raise UserError(f"{folder} belongs to another model than {base}, which has no layer {missing}")


def _layer(tensor: str) -> str:
    """The layer's name in transformers of an adapter's tensor."""
    return re.sub(r"(\.lora_(embedding_)?[AB])?(\.base_layer)?(\.weight)?$", "", tensor.removeprefix(PREFIX))


def _own_name(name: str, family: Family) -> str:
    """The layer's name as the family's table begins it."""
    own = family.prefixes[0]
    for prefix in family.prefixes:
        if prefix and name.startswith(prefix):
            return own + name.removeprefix(prefix)
    return name


def _by_pattern(patterns: dict[str, Any], name: str, default: Any) -> Any:
    """A layer's own rank or α: the patterns are regular expressions for the end of its name, as in peft."""
    return next((patterns[key] for key in patterns if re.match(rf"(.*\.)?({key})$", name)), default)


def _tensor(tensors: dict[str, Tensor], name: str, shape: tuple[int, ...], folder: Path) -> Tensor:
    if name not in tensors:
        raise UserError(f"{folder / WEIGHTS} lacks the tensor {name}")
    if tuple(tensors[name].shape) != shape:
        got = str(tuple(tensors[name].shape))
        raise UserError(f"{folder / WEIGHTS}: {name} has the wrong shape", expected=str(shape), got=got)
    return tensors[name]
