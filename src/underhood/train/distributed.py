"""Data-parallel training on several processes that `torchrun` started, replicated or sharded (FSDP2).

Every process reads its rows of each batch. Replicated ("ddp"), each holds the whole model and gradients are summed over
the processes. Sharded ("fsdp"), each holds a part of every parameter, gradient and optimiser state, and FSDP gathers
and sums them as they are needed (Zhao et al. 2023). Since the loss is a sum divided by the global target count, plain
sums of gradients are what one process would have computed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from underhood.core.checkpoint import newest
from underhood.core.errors import UserError

T = TypeVar("T")
DataParallel = Literal["ddp", "fsdp"]

PEER_LOST = ("closed by peer", "Connection reset", "Broken pipe", "Socket", "gloo/transport", "NCCL")
"""What the messages of a collective say when another process has ended."""


def rank_and_size() -> tuple[int, int]:
    """This process's number and how many there are; (0, 1) without a process group."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


@contextmanager
def process_group() -> Iterator[tuple[int, int]]:
    """Joins the processes that `torchrun` started, for the time of a ``with`` block; gives rank and size.

    Raises:
        UserError: another process ended early.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield rank_and_size()
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    with peers_alive("training", None):
        yield rank_and_size()
        dist.destroy_process_group()  # but after an error: that would wait for processes that are gone


def on_first_rank(work: Callable[[], object]) -> None:
    """The first process does `work`; the others wait for it."""
    rank, size = rank_and_size()
    if rank == 0:
        work()
    if size > 1:
        dist.barrier()


def first_rank_first(work: Callable[[], T]) -> T:
    """Every process does `work`, the first alone and before all others: it writes what they read."""
    results: list[T] = []
    on_first_rank(lambda: results.append(work()))
    return results[0] if results else work()


def shard_model(model: nn.Module, blocks: Iterable[nn.Module], kind: str = "cpu") -> None:
    """FSDP2: splits every parameter over the processes, each block's and the rest's gathered together.

    Optimisers must be built afterwards. `hidden_states` and `unembed` gather parameters as `forward` does.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    mesh = init_device_mesh(kind, (rank_and_size()[1],))
    for module in (*blocks, model):
        sharded = fully_shard(module, mesh=mesh)
        # Sums, not means: the loss is divided by the global target count. Gloo has no scaled sum.
        sharded.set_gradient_divide_factor(1.0)
        sharded.set_force_sum_reduction_for_comms(True)
    for method in ("hidden_states", "unembed"):
        if callable(getattr(model, method, None)) and not isinstance(getattr(model, method), nn.Module):
            register_fsdp_forward_method(model, method)


def sums(values: Sequence[float]) -> list[float]:
    """Each value summed over the processes."""
    if rank_and_size()[1] == 1:
        return list(values)
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    total = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(total)
    return total.tolist()


@torch.no_grad()
def sum_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Sums gradients over the processes in one message; FSDP has summed those of sharded parameters already."""
    if rank_and_size()[1] == 1:
        return
    grads: list[Tensor] = []
    for p in parameters:
        if not hasattr(p, "full_tensor"):
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad
            grads.append(p.grad)
    if grads:
        flat = torch.cat([grad.flatten() for grad in grads])
        dist.all_reduce(flat)
        for grad, summed in zip(grads, flat.split([grad.numel() for grad in grads]), strict=True):
            grad.copy_(summed.view_as(grad))


def clip_gradients(parameters: Sequence[nn.Parameter], max_norm: float) -> float:
    """Scales gradients down to a global norm of `max_norm`; returns the norm before."""
    norm = nn.utils.clip_grad_norm_(parameters, max_norm)
    return float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)  # type: ignore[operator]


@contextmanager
def peers_alive(stage: str, checkpoints: Path | None) -> Iterator[None]:
    """Turns the error of a collective whose other process has died into one line.

    Raises:
        UserError: another process ended; the last checkpoint is named.
    """
    try:
        yield
    except RuntimeError as error:
        if rank_and_size()[1] == 1 or not any(words in str(error) for words in PEER_LOST):
            raise
        last = newest(checkpoints) if checkpoints is not None else None
        raise UserError(
            f"{stage}: another process of this job has died",
            fix=f"The checkpoint {last} is intact: start the same command again" if last else "Start the job again",
        ) from error
