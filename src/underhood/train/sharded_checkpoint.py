"""Checkpoints by several processes, through `torch.distributed.checkpoint` (DCP).

Every process writes its shards as safetensors; the first merges them and seals the folder. The result is what one
process writes, and when it is read, every process takes only its shards.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.optim import Optimizer

from underhood.core.checkpoint import Checkpoint, checkpoint_folder, same_shapes
from underhood.core.tensorfile import shapes_in
from underhood.train.distributed import rank_and_size
from underhood.train.optim import load_optimizer_tensors


def write_sharded_checkpoint(
    folder: Path, step: int, groups: Mapping[str, dict[str, Tensor]], state: dict[str, Any], *, keep: int
) -> Path:
    """As `write_checkpoint`, by all processes: each writes its shards, the first merges them and seals the folder."""
    first = rank_and_size()[0] == 0
    final = folder / f"step-{step:08d}"
    with checkpoint_folder(folder, step, state, keep=keep) if first else nullcontext() as making:
        where: list[Path | None] = [making]
        dist.broadcast_object_list(where)
        assert where[0] is not None
        for stem, tensors in groups.items():
            if not tensors:
                if first:
                    save_file({}, where[0] / f"{stem}.safetensors")
                continue
            writer = HuggingFaceStorageWriter(str(where[0] / stem), save_distributed=True, enable_consolidation=True)
            save(tensors, storage_writer=writer)
            if first:
                (merged,) = (where[0] / stem).glob("*.safetensors")
                merged.rename(where[0] / f"{stem}.safetensors")
                shutil.rmtree(where[0] / stem)
        dist.barrier()
    dist.barrier()  # nobody goes on before the checkpoint has its name
    return final


def read_sharded_checkpoint(
    checkpoint: Checkpoint, model: nn.Module, optimizer: Optimizer, own: dict[str, Tensor]
) -> None:
    """Every process reads its shards of a checkpoint into `own`, the model's tensors, and into the optimiser's state.

    Raises:
        UserError: the checkpoint belongs to another model or optimiser.
    """
    given = shapes_in(checkpoint.path / "model.safetensors")
    same_shapes({name: tuple(tensor.shape) for name, tensor in own.items()}, given, checkpoint.path)
    parameters = dict(model.named_parameters())
    states: dict[str, Tensor] = {}
    for full_name, shape in shapes_in(checkpoint.path / "optimizer.safetensors").items():
        parameter = parameters.get(full_name.rsplit(".", 1)[0])
        states[full_name] = torch.zeros(shape)
        if parameter is not None and tuple(parameter.shape) == shape:
            states[full_name] = torch.zeros_like(parameter)  # sharded as the parameter is
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        load(own | states, storage_reader=HuggingFaceStorageReader(str(checkpoint.path)))
    load_optimizer_tensors(model, optimizer, states)
