"""Weights from Hugging Face folders: safetensors only, streamed into a model tensor by tensor.

The model is laid out first, without memory behind it; each tensor is then copied from the memory-mapped file to its
place (`core.tensorfile`): the peak is the weights and a little more, however large the files are. Pickled files are
never opened.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from underhood.core.errors import UserError
from underhood.core.tensorfile import names_in, opened, stream
from underhood.models.decoder import Decoder
from underhood.models.huggingface import Family, Turned, family_of, spec_from_config
from underhood.models.restore import empty_model
from underhood.text.files import read_json

Progress = Callable[[int, int], None]
"""Called with the bytes read so far and in all."""

_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.msgpack", "*.h5")


@dataclass(frozen=True)
class Stored:
    """One tensor of a file and the parameters of ours that it holds, one below the other.

    Attributes:
        name: its name in the file.
        parts: the parameters' names.
        turned: whether a matrix is stored as (in, out).
    """

    name: str
    parts: tuple[str, ...]
    turned: bool

    def shape(self, parameters: Mapping[str, Tensor]) -> tuple[int, ...]:
        """The shape it must have."""
        first = parameters[self.parts[0]]
        rows = sum(parameters[name].shape[0] for name in self.parts)
        shape = (rows, *first.shape[1:])
        return shape[::-1] if self.turned else shape

    def joined(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """The tensor as it is stored."""
        parts = [parameters[name].detach() for name in self.parts]
        whole = parts[0] if len(parts) == 1 else torch.cat(parts)
        return whole.T.contiguous() if self.turned else whole


def layout(model: nn.Module, family: Family) -> list[Stored]:
    """How a model's parameters (each shared one once) are stored in the family's files.

    Raises:
        UserError: the family has no name for one of them.
    """
    groups: dict[str, tuple[list[tuple[int, str]], bool]] = {}
    order = {pattern: index for index, pattern in enumerate(family.names)}
    for name, parameter in model.named_parameters():
        module, _, kind = name.rpartition(".")
        numbers = re.findall(r"(?<=\.)\d+(?=\.)", module)
        pattern = re.sub(r"(?<=\.)\d+(?=\.)", "*", module)
        if pattern not in family.names:
            raise UserError(f"{family.architecture} has no place for {name!r}")
        target = family.names[pattern]
        theirs = target.name if isinstance(target, Turned) else target
        for number in numbers:
            theirs = theirs.replace("*", number, 1)
        turned = isinstance(target, Turned) and parameter.ndim == 2
        groups.setdefault(f"{theirs}.{kind}", ([], turned))[0].append((order[pattern], name))
    return [Stored(name, tuple(ours for _, ours in sorted(parts)), turned) for name, (parts, turned) in groups.items()]


def load_decoder(
    folder: Path,
    *,
    dtype: torch.dtype | None = torch.float32,
    device: torch.device | str = "cpu",
    context_length: int | None = None,
    progress: Progress | None = None,
) -> Decoder:
    """The model in a Hugging Face folder, without gradients and in evaluation mode.

    Args:
        folder: holds ``config.json`` and safetensors files.
        dtype: the type of the weights in memory; None keeps the file's.
        context_length: see `spec_from_config`.
        progress: told after each tensor.

    Raises:
        UserError: an unknown family or key; a file that is missing, truncated, pickled or quantised; a tensor that is
            missing, superfluous or of another shape.
    """
    data = read_config(folder)
    where = str(folder / "config.json")
    family, spec = family_of(data, where), spec_from_config(data, where=where, context_length=context_length)
    files = tensor_files(folder)
    model = cast(Decoder, empty_model(spec, dtype or _common_type(files), device))
    _fill(model, family, files, folder, progress)
    return model.eval().requires_grad_(False)


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's ``config.json``.

    Raises:
        UserError: it is missing or holds no object.
    """
    data = read_json(folder / "config.json")
    if not isinstance(data, dict):
        raise UserError(f"{folder / 'config.json'} is not a configuration", expected="a JSON object")
    return data


def tensor_files(folder: Path) -> dict[str, Path]:
    """Every tensor's name to the file that holds it.

    Raises:
        UserError: there are no safetensors files (pickled ones are refused), or one that the index names is missing.
    """
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        single = folder / "model.safetensors"
        files = [single] if single.exists() else sorted(folder.glob("*.safetensors"))
        if not files:
            pickled = [path.name for pattern in _PICKLED for path in sorted(folder.glob(pattern))]
            if pickled:
                fix = "Pickled files can run code and are never opened; convert it to safetensors where you trust it"
                raise UserError(f"{folder / pickled[0]} is not a safetensors file", fix=fix)
            raise UserError(f"{folder} holds no weights", expected="model.safetensors or its index")
        return {name: file for file in files for name in names_in(file)}
    table = read_json(index)
    entries = table.get("weight_map") if isinstance(table, dict) else None
    if not isinstance(entries, dict) or not all(isinstance(file, str) for file in entries.values()):
        raise UserError(f"{index} has no table of weights", expected='an object "weight_map"')
    for file in sorted(set(entries.values())):
        if Path(file).name != file or not file.endswith(".safetensors"):
            raise UserError(f"{index} names a file that is not a safetensors file of this folder", got=repr(file))
        if not (folder / file).exists():
            raise UserError(f"{folder / file} is missing", fix="Download it again; the index names it")
    held = {file: set(names_in(folder / file)) for file in set(entries.values())}
    for name, file in entries.items():
        if name not in held[file]:
            raise UserError(f"{folder / file} lacks the tensor {name!r} that {index.name} promises")
    return {name: folder / file for name, file in entries.items()}


@torch.no_grad()
def _fill(model: Decoder, family: Family, files: Mapping[str, Path], folder: Path, progress: Progress | None) -> None:
    parameters = dict(model.named_parameters())
    prefix = _prefix(family, files)
    wanted = {_with_prefix(stored.name, family, prefix): stored for stored in layout(model, family)}
    if missing := [name for name in wanted if name not in files]:
        raise UserError(f"{folder} lacks the tensor {missing[0]!r} ({len(missing)} missing)")
    unembed = family.names["unembed"]
    copies = {f"{unembed}.weight"} & files.keys() if model.spec.tied else set()  # some write it a second time
    extra = [
        name
        for name in files
        if name not in wanted
        and not any(re.fullmatch(pattern, name) for pattern in family.ignored)
        and name not in copies
    ]
    if extra:
        raise UserError(f"{folder} holds a tensor the model has no place for: {extra[0]!r} ({len(extra)} in all)")
    total = sum(parameter.numel() * parameter.element_size() for parameter in parameters.values())
    done = 0
    for name, tensor in stream(files, wanted):
        stored = wanted[name]
        shape = stored.shape(parameters)
        if tuple(tensor.shape) != shape:
            expected, got = str(shape), str(tuple(tensor.shape))
            raise UserError(f"{files[name]}: tensor {name!r} has the wrong shape", expected=expected, got=got)
        if not tensor.is_floating_point() or tensor.element_size() < 2:
            raise UserError(
                f"{files[name]}: tensor {name!r} is quantised", expected="a float type", got=str(tensor.dtype)
            )
        row = 0
        whole = tensor.T if stored.turned else tensor
        for ours in stored.parts:
            parameter = parameters[ours]
            parameter.copy_(whole[row : row + len(parameter)])
            row += len(parameter)
            done += parameter.numel() * parameter.element_size()
        if progress is not None:
            progress(done, total)
    for name, tensor in stream(files, dict.fromkeys(copies)):
        if not torch.equal(tensor.to(model.embed.weight), model.embed.weight):
            fix = "Its configuration or its weights are wrong"
            raise UserError(f"{files[name]}: {name!r} differs from the embedding that it is tied to", fix=fix)


def _common_type(files: Mapping[str, Path]) -> torch.dtype:
    """The type of the first tensor."""
    name = next(iter(files))
    with opened(files[name]) as source:
        return source.get_tensor(name).dtype


def _prefix(family: Family, files: Mapping[str, Path]) -> str:
    """How the names of this folder begin: a model saved without its head has no prefix."""
    embed = f"{family.names['embed']}.weight"
    for prefix in family.prefixes:
        if _with_prefix(embed, family, prefix) in files:
            return prefix
    return family.prefixes[0]


def _with_prefix(name: str, family: Family, prefix: str) -> str:
    own = family.prefixes[0]
    return prefix + name.removeprefix(own) if name.startswith(own) else name
