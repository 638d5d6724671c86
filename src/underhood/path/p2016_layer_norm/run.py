"""He et al. 2015, Ba et al. 2016: a path on which gradients pass unchanged, and inputs of one size for every layer."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from underhood.core.figures import Series
from underhood.core.trial import Trial
from underhood.models.decoder import Decoder, DecoderSpec
from underhood.nn.attention import AttentionSpec
from underhood.nn.block import BlockSpec
from underhood.nn.feedforward import MLPSpec
from underhood.nn.norm import LayerNormSpec
from underhood.path.lib.many_seeds import train_many

DEPTH, WIDTH = 12, 32
LAYERS = tuple(range(1, DEPTH + 1))
WITH = (0.22169792, 0.20694105, 0.32896995, 0.26657325, 1.32585550)
WITHOUT = (0.00020174, 0.00012012, 0.00071520, 0.00139885, 0.00504995)
SYMBOLS, PERIOD, LENGTH = 16, 5, 24
HIGH_RATE, STEPS = 0.01, 120
NORMS = {"pre": "pre-norm: x + layer(norm(x))", "post": "post-norm: norm(x + layer(x))"}
ARMS = ("plain", "plain, layer norm", "shortcuts", "shortcuts, layer norm")


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    """Shifts and scales the features of each token to mean 0 and variance 1, then by what was learnt."""
    centred = x - x.mean(dim=-1, keepdim=True)
    variance = centred.square().mean(dim=-1, keepdim=True)  # divided by D, not D − 1
    return centred / (variance + eps).sqrt() * weight + bias


def run(trial: Trial) -> None:
    trial.measure("with_shortcuts", off_by(raschka(True), WITH))
    trial.measure("without_shortcuts", off_by(raschka(False), WITHOUT))
    trial.measure("invariant", norm_checks(trial))
    by_depth: dict[str, list[Tensor]] = {}
    seeds = list(trial.each_seed())
    for seed in seeds:
        for name in ARMS:
            shortcuts = "shortcuts" in name and not trial.ablated("shortcuts")
            by_depth.setdefault(name, []).append(gradient_by_layer(shortcuts, "norm" in name, seed))
        trial.measure("vanishing", float(by_depth["plain"][-1][0] / by_depth["plain"][-1][-1]))
        trial.measure("shortcut", float(by_depth["shortcuts"][-1][0] / by_depth["shortcuts"][-1][-1]))
    means = {name: torch.stack(runs).mean(dim=0).tolist() for name, runs in by_depth.items()}
    trial.plot(
        title=f"How much of the error reaches each of {DEPTH} layers, before training",
        x="layer",
        y="mean gradient of its input",
        log_y=True,
        series=[Series(name, LAYERS, tuple(gradients)) for name, gradients in means.items()],
    )
    if trial.wants("post_norm"):
        compare_norms(trial, seeds)


class FiveLayers(nn.Module):
    """Raschka's example: linear layers with GELU, each added to its input where the widths agree."""

    def __init__(self, widths: list[int], shortcuts: bool):
        super().__init__()
        self.shortcuts = shortcuts
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            y = F.gelu(layer(x), approximate="tanh")
            x = x + y if self.shortcuts and x.shape == y.shape else y
        return x


def raschka(shortcuts: bool) -> list[float]:
    """Mean absolute gradient of the weights of his five layers."""
    torch.manual_seed(123)
    model = FiveLayers([3, 3, 3, 3, 3, 1], shortcuts)
    nn.MSELoss()(model(torch.tensor([[1.0, 0.0, -1.0]])), torch.tensor([[0.0]])).backward()
    return [float(layer.weight.grad.abs().mean()) for layer in model.layers]  # type: ignore[union-attr]


def off_by(ours: list[float], theirs: tuple[float, ...]) -> float:
    return max(abs(mine / printed - 1) for mine, printed in zip(ours, theirs, strict=True))


def gradient_by_layer(shortcuts: bool, normed: bool, seed: int) -> Tensor:
    """Mean absolute gradient of each layer's input in a deep network with random weights and targets."""
    generator = torch.Generator().manual_seed(seed)
    x, target = (torch.randn(64, WIDTH, generator=generator) for _ in range(2))
    ones, zeros, inputs = torch.ones(WIDTH), torch.zeros(WIDTH), []
    x.requires_grad_()
    for _ in range(DEPTH):
        inputs.append(x)
        weight = torch.randn(WIDTH, WIDTH, generator=generator) * WIDTH**-0.5
        y = F.gelu((layer_norm(x, ones, zeros) if normed else x) @ weight)
        x = x + y if shortcuts else y
    gradients = torch.autograd.grad(F.mse_loss(x, target), inputs)
    return torch.stack([gradient.abs().mean() for gradient in gradients])


def norm_checks(trial: Trial) -> float:
    torch.manual_seed(0)
    x, module = torch.randn(5, WIDTH, dtype=torch.float64), nn.LayerNorm(WIDTH).double()
    nn.init.normal_(module.weight)
    nn.init.normal_(module.bias)
    gap = float((layer_norm(x, module.weight, module.bias) - module(x)).detach().abs().max())
    trial.oracle("torch.nn.LayerNorm gives the same", gap < 1e-12, f"largest difference {gap:.0e}")
    plain, moved = (layer_norm(y, torch.ones(WIDTH), torch.zeros(WIDTH), eps=0.0) for y in (x, 7 * x + 3))
    return float((plain - moved).abs().max())


def compare_norms(trial: Trial, seeds: list[int]) -> None:
    courses = {kind: losses_by_step(kind, seeds) for kind in trial.each(NORMS, "norm")}
    for gap in (courses["post"] - courses["pre"])[-10:].mean(dim=0).tolist():
        trial.measure("post_norm", gap)
    means = {NORMS[kind]: course.mean(dim=1).tolist() for kind, course in courses.items()}
    trial.plot(
        title=f"{DEPTH} blocks at a rate of {HIGH_RATE} from the first step",
        x="step",
        y="nats per token",
        series=[Series(name, tuple(range(STEPS)), tuple(losses)) for name, losses in means.items()],
    )


def losses_by_step(kind: str, seeds: list[int]) -> Tensor:
    """The training loss of each step and seed (STEPS, N)."""
    models, course = [stack(kind, seed) for seed in seeds], []
    watch = lambda _, losses_N: course.append(losses_N)  # noqa: E731
    train_many(models, lambda step: texts(step, len(models)), loss, steps=STEPS, lr=HIGH_RATE, watch=watch)
    return torch.stack(course)


def stack(kind: str, seed: int) -> Decoder:
    """A decoder of `DEPTH` blocks with weights of standard deviation 1 / √(fan-in)."""
    norm = LayerNormSpec()
    where = {"norm": norm, "stream_norm": None} if kind == "pre" else {"norm": None, "stream_norm": norm}
    block = BlockSpec(mixer=AttentionSpec(heads=2), feedforward=MLPSpec(d_ff=2 * WIDTH), **where)
    spec = DecoderSpec(
        vocab_size=SYMBOLS, context_length=LENGTH, d_model=WIDTH, layers=DEPTH, blocks=(block,), norm=norm
    )
    model = spec.build()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in (parameter for parameter in model.parameters() if parameter.ndim == 2):
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * parameter.shape[1] ** -0.5)
    return model


def texts(step: int, models: int, batch: int = 16) -> tuple[Tensor, Tensor]:
    """Random words of five symbols, each repeated to the end: everything after the first five can be known."""
    word = torch.randint(SYMBOLS, (models, batch, PERIOD), generator=torch.Generator().manual_seed(step))
    tokens = word[..., torch.arange(LENGTH + 1) % PERIOD]
    return tokens[..., :-1], tokens[..., 1:]


def loss(logits_BTV: Tensor, targets_BT: Tensor) -> Tensor:
    return F.cross_entropy(logits_BTV[:, PERIOD:].flatten(0, 1), targets_BT[:, PERIOD:].flatten())
