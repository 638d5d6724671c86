"""LeCun et al. 1989: a network that reads digits from pixels, with shared weights."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from underhood.core.figures import Heat
from underhood.core.trial import Trial
from underhood.data.digits import Pictures, digits, framed, mnist
from underhood.models.lenet import PAPER, LeNet
from underhood.train.image_trainer import ImageTrainer, error

AS_IN_1989 = {"passes": 23, "batch": 1, "lr": 0.03}


def run(trial: Trial) -> None:
    torch.manual_seed(0)
    net = LeNet()
    layers = [sum(p.numel() for p in layer) for layer in ((net.h1, net.b1), (net.h2, net.b2), (net.h3, net.b3))]
    connections = 768 * (25 + 1) + 192 * (200 + 1) + 30 * (192 + 1) + 10 * (30 + 1)
    trial.measure("weights", connections if trial.ablated("sharing") else sum(p.numel() for p in net.parameters()))
    trial.measure("connections", connections)
    trial.oracle("the paper's count for H1, H2, H3", layers == [1068, 2592, 5790], str(layers))
    errors: dict[str, list[float]] = {"LeNet": [], "fully connected": []}
    for seed in trial.each_seed():
        torch.manual_seed(seed)
        trial.measure("moves", moved(LeNet(), digits(seed)[0], shared=not trial.ablated("sharing")))
        if not trial.wants("neighbours", "test"):
            continue
        train, test = (framed(half, 16) for half in digits(seed))
        dense = nn.Sequential(nn.Flatten(), nn.Linear(256, 36), nn.Tanh(), nn.Linear(36, 10))
        net = LeNet()
        how = ImageTrainer(passes=23, batch=4, lr=0.06, squared=True)
        for name, model in trial.each((("LeNet", net), ("fully connected", dense)), "net"):
            errors[name].append(error(how(model, train, trial.progress), *test))
        trial.measure("neighbours", errors["fully connected"][-1] - errors["LeNet"][-1])
        trial.measure("test", errors["LeNet"][-1])
    if trial.wants("mnist"):
        measure_mnist(trial)
    if errors["LeNet"]:
        show(trial, errors, net)


def moved(net: LeNet, pictures: Pictures, shared: bool) -> float:
    """How far the first map's features of a picture differ from those of the same picture two pixels to the right."""
    x, _ = framed(pictures.at(slice(0, 20)), 16)
    x = F.pad(x[..., 2:-4], (2, 4), value=PAPER)  # paper left and right, so that nothing leaves the picture
    weights = net.h1.detach().view(12, 25, 1) if shared else torch.randn(12, 25, 64)
    here, there = (
        (F.unfold(F.pad(picture, (2, 2, 2, 2), value=PAPER), 5, stride=2)[:, None] * weights).sum(2).view(-1, 12, 8, 8)
        for picture in (x, x.roll(2, dims=-1))
    )
    assert not shared or torch.allclose(
        here, F.conv2d(F.pad(x, (2, 2, 2, 2), value=PAPER), net.h1.detach(), stride=2), atol=1e-5
    )
    return float((here[..., :-1] - there[..., 1:]).abs().max())


def measure_mnist(trial: Trial) -> None:
    folder = trial.file("vision/mnist")
    if folder is None:
        trial.skip_claim("mnist", "needs MNIST: vision/mnist below --data")
        return
    train, test = mnist(folder)
    chosen = np.random.default_rng(0).permutation(len(train))[:7291]
    torch.manual_seed(0)
    net = ImageTrainer(**AS_IN_1989, squared=True)(LeNet(), framed(train.at(chosen), 16), trial.progress)
    trial.measure("mnist", round(error(net, *framed(test.at(slice(0, 2007)), 16)) * 2007))


def show(trial: Trial, errors: dict[str, list[float]], net: LeNet) -> None:
    table = tuple(
        (name, f"{np.mean(all_):.2%}", f"{min(all_):.2%} to {max(all_):.2%}") for name, all_ in errors.items()
    )
    trial.table(title="New digits wrong", head=("net", "mean", "over seeds"), rows=table)
    names = tuple(str(n + 1) for n in range(5))
    for number in (0, 1, 2):
        values = tuple(tuple(map(float, row)) for row in net.h1[number, 0].detach())
        title = f"A feature it learned: map {number + 1}"
        trial.figure(Heat(title=title, values=values, rows=names, columns=names, signed=True))
