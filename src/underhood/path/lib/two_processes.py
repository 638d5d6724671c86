"""Two processes that train a small network together over gloo, on one machine (data parallelism)."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn, optim
from torch.multiprocessing.spawn import start_processes
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from underhood.train.distributed import sum_gradients


def toy_network(inputs: int, outputs: int) -> nn.Sequential:
    """Two hidden layers of 30 and 20 units with ReLU (Raschka 2024, appendix A)."""
    return nn.Sequential(
        nn.Linear(inputs, 30), nn.ReLU(), nn.Linear(30, 20), nn.ReLU(), nn.Linear(20, outputs)
    )  # fmt: skip


@dataclass(frozen=True)
class Division:
    """A way to train together.

    Attributes:
        rows: how many rows each process reads, in order.
        averaged: PyTorch's DistributedDataParallel, which averages the processes' mean gradients; otherwise the sum of
            the gradients of summed losses, divided by the count of all rows (`train.distributed`).
    """

    rows: tuple[int, int]
    averaged: bool


def train_together(
    start: dict[str, Tensor], x_NI: Tensor, y_N: Tensor, divisions: Sequence[Division], *, steps: int, lr: float
) -> list[dict[str, Tensor]]:
    """The network's weights after steps of SGD in two processes, for each division of the rows.

    Args:
        start: weights of a `toy_network`.
    """
    with tempfile.TemporaryDirectory() as folder:
        given = (folder, start, x_NI, y_N, tuple(divisions), steps, lr)
        start_processes(_work, args=given, nprocs=2, start_method="spawn")
        return torch.load(Path(folder) / "weights.pt", weights_only=True)


def _work(
    rank: int, folder: str, start: dict[str, Tensor], x_NI: Tensor, y_N: Tensor, divisions: tuple[Division, ...],
    steps: int, lr: float,
) -> None:  # fmt: skip
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    ends = [_train(rank, start, x_NI, y_N, division, steps, lr) for division in divisions]
    if rank == 0:
        torch.save(ends, Path(folder) / "weights.pt")
    dist.barrier()
    dist.destroy_process_group()


def _train(
    rank: int, start: dict[str, Tensor], x_NI: Tensor, y_N: Tensor, division: Division, steps: int, lr: float
) -> dict[str, Tensor]:
    model = toy_network(x_NI.shape[1], int(y_N.max()) + 1)
    model.load_state_dict(start)
    mine = slice(0, division.rows[0]) if rank == 0 else slice(division.rows[0], sum(division.rows))
    network = DistributedDataParallel(model) if division.averaged else model
    optimizer = optim.SGD(model.parameters(), lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        scores = network(x_NI[mine])
        if division.averaged:
            F.cross_entropy(scores, y_N[mine]).backward()
        else:
            (F.cross_entropy(scores, y_N[mine], reduction="sum") / len(y_N)).backward()
            sum_gradients(list(model.parameters()))
        optimizer.step()
    return model.state_dict()
