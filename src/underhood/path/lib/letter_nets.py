"""Networks that predict the next letter, several at a time, with the backward pass written by hand.

The networks of Karpathy's makemore lectures are one family: vectors of the letters, then layers that join neighbours,
multiply, normalise the batch and take tanh, then scores. A layer that joins all letters at once makes the MLP; three
layers that each join two make the tree of WaveNet. Steps this small cost more in calls than in arithmetic, so N
networks (seeds, or starts to compare) go through one call of `torch.bmm`: every tensor here begins with N.

Source: A. Karpathy, "Neural networks: zero to hero", makemore parts 2 to 5 (2022).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from underhood.kernels.jit import uses_kernels

LETTERS = 27
EPSILON = 1e-5
SHARE = 500
"""Steps that one call of the compiled loop takes."""


@dataclass(frozen=True, kw_only=True)
class LetterNetShape:
    """What the networks of one run have in common.

    Attributes:
        width: of a letter's vector.
        hidden: units of each layer.
        joins: how many neighbours each layer joins; their product is the context.
        norm: batch normalisation before tanh.
        bias: whether layers add a bias (which batch normalisation takes away again).
        per_position: batch statistics for each position of the tree apart: the bug of the fifth lecture.
    """

    width: int = 10
    hidden: int = 200
    joins: tuple[int, ...] = (3,)
    norm: bool = True
    bias: bool = False
    per_position: bool = False

    @property
    def context(self) -> int:
        return math.prod(self.joins)

    @property
    def positions(self) -> tuple[int, ...]:
        """How many outputs each layer has."""
        return tuple(self.context // math.prod(self.joins[: layer + 1]) for layer in range(len(self.joins)))

    def fan_in(self, layer: int) -> int:
        return self.joins[layer] * (self.hidden if layer else self.width)

    @property
    def parameters(self) -> int:
        """Of one network."""
        weights = sum(self.fan_in(layer) * self.hidden for layer in range(len(self.joins)))
        vectors = len(self.joins) * self.hidden * (2 * self.norm + self.bias)
        return LETTERS * (self.width + self.hidden + 1) + weights + vectors


Weights = dict[str, Tensor]
"""embed (N, 27, E); for layer i: weight_i (N, in, H), bias_i, gain_i, shift_i (N, 1, H); output (N, H, 27) and its
bias (N, 1, 27)."""


def initial(
    shape: LetterNetShape,
    seeds: list[int],
    *,
    gain: float | list[float] = 1.0,
    output_scale: float | list[float] = 1.0,
    output_bias: float | list[float] = 0.0,
    bias_scale: float | list[float] = 0.01,
) -> Weights:
    """Normal weights, one network for each seed: layers have deviation gain / sqrt(inputs), the others the scale given.

    Lists give a number for each network. The same seed gives the same numbers before they are scaled.
    """

    def per_net(number: float | list[float]) -> Tensor:
        return torch.tensor(number if isinstance(number, list) else [number] * len(seeds))[:, None, None]

    def draw(kind: int, *size: int) -> Tensor:
        return torch.stack(
            [torch.randn(size, generator=torch.Generator().manual_seed(seed * 100 + kind)) for seed in seeds]
        )

    weights = {"embed": draw(0, LETTERS, shape.width)}
    for layer in range(len(shape.joins)):
        inputs, ones = shape.fan_in(layer), torch.ones(len(seeds), 1, shape.hidden)
        weights[f"weight_{layer}"] = draw(2 * layer + 3, inputs, shape.hidden) * per_net(gain) / inputs**0.5
        if shape.bias:
            weights[f"bias_{layer}"] = draw(2 * layer + 4, 1, shape.hidden) * per_net(bias_scale)
        if shape.norm:
            weights |= {f"gain_{layer}": ones, f"shift_{layer}": torch.zeros_like(ones)}
    weights["output"] = draw(1, shape.hidden, LETTERS) * per_net(output_scale)
    weights["output_bias"] = draw(2, 1, LETTERS) * per_net(output_bias)
    return weights


def forward(shape: LetterNetShape, weights: Weights, x_NBT: Tensor, statistics: Weights | None = None) -> Weights:
    """Every tensor on the way to the scores (N, B, 27), under "scores"; see `backward` for what needs them.

    Args:
        statistics: mean_i and variance_i to normalise with, in place of the batch's own.
    """
    nets, batch, count = x_NBT.shape
    row_NBT = x_NBT + LETTERS * torch.arange(nets)[:, None, None]
    h = weights["embed"].reshape(nets * LETTERS, -1).index_select(0, row_NBT.flatten())
    kept = {"rows": row_NBT.flatten()}
    for layer, joined in enumerate(shape.joins):
        count //= joined
        x = h.reshape(nets, batch * count, -1)  # neighbours side by side
        z = torch.bmm(x, weights[f"weight_{layer}"])
        kept[f"input_{layer}"] = x
        if shape.bias:
            z += weights[f"bias_{layer}"]
        if shape.norm:
            # Statistics are over dimension 1: all rows, or with the bug the batch alone.
            z = z.view(nets, batch, count, -1) if shape.per_position else z[:, :, None]
            mean = z.mean(1, keepdim=True) if statistics is None else statistics[f"mean_{layer}"]
            z -= mean
            rows = z.shape[1]
            variance = z.square().sum(1, keepdim=True) / (rows - 1) if statistics is None else None
            variance = statistics[f"variance_{layer}"] if variance is None and statistics is not None else variance
            assert variance is not None
            inverse = (variance + EPSILON).rsqrt()
            kept |= {f"mean_{layer}": mean, f"variance_{layer}": variance, f"inverse_{layer}": inverse}
            z *= inverse
            kept[f"normalized_{layer}"] = z
            z = torch.addcmul(weights[f"shift_{layer}"][:, :, None], z, weights[f"gain_{layer}"][:, :, None])
        # tanh z = 2σ(2z) − 1: torch's sigmoid is three times as quick as its tanh.
        h = z.mul_(2).sigmoid_().mul_(2).sub_(1).view(nets, batch * count, -1)
        kept[f"hidden_{layer}"] = h
    kept["scores"] = torch.baddbmm(weights["output_bias"], h.view(nets, batch, -1), weights["output"])
    return kept


def losses(scores_NBV: Tensor, y_NB: Tensor) -> Tensor:
    """Cross-entropy of each network (N,), nats per letter."""
    return scores_NBV.logsumexp(2).sub(scores_NBV.gather(2, y_NB[..., None])[..., 0]).mean(1)


def backward(shape: LetterNetShape, weights: Weights, kept: Weights, y_NB: Tensor) -> Weights:
    """The gradients of each network's loss with respect to its weights, from what `forward` kept; no autograd."""
    nets, batch = y_NB.shape
    d_scores = kept["scores"].softmax(2)
    d_scores.scatter_add_(2, y_NB[..., None], torch.full_like(d_scores[..., :1], -1.0))
    d_scores /= batch
    last = len(shape.joins) - 1
    gradients = {
        "output": torch.bmm(kept[f"hidden_{last}"].view(nets, batch, -1).mT, d_scores),
        "output_bias": d_scores.sum(1, keepdim=True),
    }
    d = torch.bmm(d_scores, weights["output"].mT)
    for layer in range(last, -1, -1):
        h = kept[f"hidden_{layer}"]
        d = torch.addcmul(d.view(h.shape), d.view(h.shape) * h, h, value=-1)  # (1 − h²) d
        if shape.norm:
            normalized = kept[f"normalized_{layer}"]
            d = batch_norm_backward(d.view(normalized.shape), weights, kept, layer, gradients).view(h.shape)
        if shape.bias:
            gradients[f"bias_{layer}"] = d.sum(1, keepdim=True)
        gradients[f"weight_{layer}"] = torch.bmm(kept[f"input_{layer}"].mT, d)
        d = torch.bmm(d, weights[f"weight_{layer}"].mT)
    embed = torch.zeros(nets * LETTERS, shape.width, dtype=d.dtype)
    gradients["embed"] = embed.index_add_(0, kept["rows"], d.reshape(-1, shape.width)).view(nets, LETTERS, -1)
    return gradients


def batch_norm_backward(d: Tensor, weights: Weights, kept: Weights, layer: int, gradients: Weights) -> Tensor:
    """The gradient before batch normalisation, from the one after it, `d` (N, rows, positions, H).

    All rows share the mean and the variance, so each row's gradient loses its part along both (Bessel's n − 1)::

        (gain / std) · (d − mean(d) − n / (n − 1) · x̂ · mean(d x̂))
    """
    normalized, rows = kept[f"normalized_{layer}"], d.shape[1]
    along = (d * normalized).sum(1, keepdim=True)
    total = d.sum(1, keepdim=True)
    gradients[f"gain_{layer}"] = along.sum(2)
    gradients[f"shift_{layer}"] = total.sum(2)
    scale = weights[f"gain_{layer}"][:, :, None] * kept[f"inverse_{layer}"]
    return torch.addcmul(d - total / rows, normalized, along, value=-1 / (rows - 1)).mul_(scale)


def train(
    shape: LetterNetShape,
    weights: Weights,
    x_MT: Tensor,
    y_M: Tensor,
    *,
    steps: int,
    seeds: list[int],
    momentum: float = 0.1,
    drop_at: float = 0.5,
    batch: int = 32,
    compiled: bool = False,
    progress: Callable[[float], None] = lambda share: None,
) -> tuple[Weights, Tensor]:
    """Gradient descent in place, at 0.1 and from the share `drop_at` of the steps on at 0.01.

    Networks of the same seed see the same examples.

    Args:
        compiled: run the same steps as compiled code, where that is possible; it pays for tens of thousands.

    Returns:
        The running statistics of batch normalisation, and the losses before each step (steps, N).
    """
    distinct = sorted(set(seeds))
    generator = torch.Generator().manual_seed(distinct[0] + 1)
    which = [distinct.index(seed) for seed in seeds]
    statistics: Weights = {}
    if shape.norm:
        for layer, positions in enumerate(shape.positions):
            size = (len(seeds), 1, positions if shape.per_position else 1, shape.hidden)
            statistics |= {f"mean_{layer}": torch.zeros(size), f"variance_{layer}": torch.ones(size)}
    curves = []
    for start in range(0, steps, SHARE):
        ids_SNB = torch.randint(len(x_MT), (min(SHARE, steps - start), len(distinct), batch), generator=generator)
        rate = 0.1 if start < drop_at * steps else 0.01
        run = _compiled_steps if compiled and uses_kernels() else _plain_steps
        curves.append(run(shape, weights, statistics, x_MT, y_M, ids_SNB[:, which], rate, momentum))
        progress(start / steps)
    return statistics, torch.cat(curves)


def _plain_steps(
    shape: LetterNetShape,
    weights: Weights,
    statistics: Weights,
    x_MT: Tensor,
    y_M: Tensor,
    ids_SNB: Tensor,
    rate: float,
    momentum: float,
) -> Tensor:
    curve = torch.empty(ids_SNB.shape[:2])
    for step, ids_NB in enumerate(ids_SNB):
        y_NB = y_M[ids_NB]
        kept = forward(shape, weights, x_MT[ids_NB])
        curve[step] = losses(kept["scores"], y_NB)
        gradients = backward(shape, weights, kept, y_NB)
        for name, weight in weights.items():
            weight.add_(gradients[name], alpha=-rate)
        for name, running in statistics.items():
            running.lerp_(kept[name], momentum)
    return curve


def _compiled_steps(
    shape: LetterNetShape,
    weights: Weights,
    statistics: Weights,
    x_MT: Tensor,
    y_M: Tensor,
    ids_SNB: Tensor,
    rate: float,
    momentum: float,
) -> Tensor:
    """`_plain_steps` through `letter_net_kernel`, a network after the other on as many threads as torch has."""
    from underhood.path.lib.letter_net_kernel import descend  # compiling is only for those who need it

    curve, layers = torch.empty(*ids_SNB.shape[:2]), range(len(shape.joins))
    unused = np.zeros(shape.hidden, np.float32)

    def arrays(net: int, name: str) -> tuple[np.ndarray, ...]:
        tensors = [weights.get(f"{name}_{layer}") for layer in layers]
        return tuple(unused if tensor is None else tensor[net].squeeze(0).numpy() for tensor in tensors)

    def descend_one(net: int) -> None:
        running = {
            name: tuple(
                statistics[f"{name}_{layer}"][net, 0].numpy() if shape.norm else np.zeros((1, shape.hidden), np.float32)
                for layer in layers
            )
            for name in ("mean", "variance")
        }
        losses_S = np.empty(len(ids_SNB), np.float32)
        descend(
            x_MT.numpy(),
            y_M.numpy(),
            ids_SNB[:, net].contiguous().numpy(),
            np.array(shape.joins),
            shape.norm,
            shape.bias,
            weights["embed"][net].numpy(),
            arrays(net, "weight"),
            arrays(net, "bias"),
            arrays(net, "gain"),
            arrays(net, "shift"),
            weights["output"][net].numpy(),
            weights["output_bias"][net, 0].numpy(),
            running["mean"],
            running["variance"],
            np.float32(rate),
            np.float32(momentum),
            losses_S,
        )
        curve[:, net] = torch.from_numpy(losses_S)

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        list(pool.map(descend_one, range(curve.shape[1])))
    return curve


def evaluate(
    shape: LetterNetShape, weights: Weights, statistics: Weights, x_MT: Tensor, y_M: Tensor, share: int = 4096
) -> list[float]:
    """The mean loss of each network over all examples."""
    nets = len(weights["embed"])
    total = torch.zeros(nets, dtype=torch.float64)
    for x, y in zip(x_MT.split(share), y_M.split(share), strict=True):
        scores = forward(shape, weights, x.expand(nets, *x.shape), statistics)["scores"]
        total += losses(scores, y.expand(nets, -1)).double() * len(x)
    return (total / len(x_MT)).tolist()
