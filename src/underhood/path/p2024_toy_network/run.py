"""Raschka 2024, appendix A: a neuron's gradient, a training loop with printed losses, and the same in two processes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from underhood.core.figures import Series
from underhood.core.trial import Trial
from underhood.grad.value import Value
from underhood.models.base import parameter_count
from underhood.path.lib.two_processes import Division, toy_network, train_together

X = torch.tensor([[-1.2, 3.1], [-0.9, 2.9], [-0.5, 2.6], [2.3, -1.1], [2.7, -1.5]])
Y = torch.tensor([0, 0, 0, 1, 1])
LOSSES = [0.75, 0.65, 0.44, 0.13, 0.03, 0.00]
OUTPUTS = [2.8569, -4.1618, 2.5382, -3.7548, 2.0944, -3.1820, -1.4814, 1.4816, -1.7176, 1.7342]
LOSS, SLOPES = 0.0852, (-0.0898, -0.0817)
ROWS, STEPS, RATE = 8, 20, 0.5


def run(trial: Trial) -> None:
    if trial.wants("text_count"):
        trial.measure("text_count", parameter_count(toy_network(50, 3)))
        trial.measure("exercise_count", parameter_count(toy_network(2, 2)))
        trial.measure("by_hand", neuron(trial))
    losses, model = train(cleared=not trial.ablated("zero_grad"))
    trial.measure("losses", max(abs(a - b) for a, b in zip(losses, LOSSES, strict=True)))
    with torch.no_grad():
        outputs = model(X)
    trial.measure("outputs", float((outputs.flatten() - torch.tensor(OUTPUTS)).abs().max()))
    if trial.wants("right"):
        trial.measure("right", int((outputs.argmax(dim=1) == Y).sum()))
    if trial.wants("halves"):
        for seed in trial.each_seed():
            together(trial, seed)
    steps = tuple(map(float, range(1, len(losses) + 1)))
    series = [Series("here", steps, tuple(losses)), Series("printed", steps, tuple(LOSSES))]
    trial.plot(title="Three epochs of two batches", x="step", y="loss, nats", series=series)


def neuron(trial: Trial) -> float:
    """Loss and gradients of one neuron by our scalar engine, against the printed numbers and PyTorch."""
    w, b = Value(2.2), Value(0.0)
    loss = (1.0 + (-(w * 1.1 + b)).exp()).log()  # −log σ(z)
    loss.backward()
    torch_w, torch_b = torch.tensor(2.2, requires_grad=True), torch.tensor(0.0, requires_grad=True)
    theirs = F.binary_cross_entropy_with_logits(torch_w * 1.1 + torch_b, torch.tensor(1.0))
    theirs.backward()
    loss_there = float(theirs.detach())
    assert torch_w.grad is not None
    assert torch_b.grad is not None
    apart = max(abs(w.grad - float(torch_w.grad)), abs(b.grad - float(torch_b.grad)), abs(loss.data - loss_there))
    trial.oracle(
        "torch.autograd gives the neuron's loss and gradients", apart < 1e-6, f"largest difference {apart:.1e}"
    )
    return max(abs(loss.data - LOSS), abs(w.grad - SLOPES[0]), abs(b.grad - SLOPES[1]))


def train(*, cleared: bool) -> tuple[list[float], nn.Module]:
    """The appendix's loop with its seed: every batch's loss, and the network."""
    losses = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(123)
        loader = DataLoader(TensorDataset(X, Y), batch_size=2, shuffle=True, drop_last=True)
        model = toy_network(2, 2)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        for _ in range(3):
            for features, labels in loader:
                loss = F.cross_entropy(model(features), labels)
                if cleared:
                    optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(float(loss.detach()))
    return losses, model


def together(trial: Trial, seed: int) -> None:
    """One process against two, with equal and with unequal shares of the rows."""
    generator = torch.Generator().manual_seed(seed)
    x_NI, y_N = torch.randn(ROWS, 2, generator=generator), torch.arange(ROWS) % 2
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        start = toy_network(2, 2).state_dict()
    alone = train_alone(start, x_NI, y_N)
    ways = {"halves": Division((4, 4), True), "uneven": Division((5, 3), True), "summed": Division((5, 3), False)}
    ends = train_together(start, x_NI, y_N, list(ways.values()), steps=STEPS, lr=RATE)
    for key, both in zip(ways, ends, strict=True):
        trial.measure(key, max(float((both[name] - alone[name]).abs().max()) for name in alone))


def train_alone(start: dict[str, Tensor], x_NI: Tensor, y_N: Tensor) -> dict[str, Tensor]:
    model = toy_network(2, 2)
    model.load_state_dict(start)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    for _ in range(STEPS):
        optimizer.zero_grad()
        F.cross_entropy(model(x_NI), y_N).backward()
        optimizer.step()
    return model.state_dict()
