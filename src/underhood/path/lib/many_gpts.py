"""Several GPTs of one shape trained at once: every weight has a leading dimension that numbers the models.

A step of a model of this size costs mostly the calls, so five seeds cost little more than one. The parts can be left
out one by one, which makes it the ladder of Karpathy's lecture as well; with all of them it computes what a `Decoder`
of GPT-2's shape does (a milestone's oracle compares them).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import AdamW

from underhood.models.decoder import Decoder, DecoderSpec
from underhood.nn.attention import AttentionSpec
from underhood.nn.block import BlockSpec
from underhood.nn.feedforward import MLPSpec
from underhood.nn.norm import LayerNormSpec
from underhood.nn.positions import LearnedPositionSpec
from underhood.train.optim import CombinedOptimizer, Muon, scale_lr
from underhood.train.schedule import ScheduleSpec

MATRICES = ("qkv", "output", "up", "down")
"""Ends of the names of the matrices in blocks, which Muon trains."""

READ = ("embed", "positions")
"""What the residual stream begins with; 0.02, as in GPT-2, would be drowned by the blocks of so narrow a model."""


@dataclass(frozen=True, kw_only=True)
class ManyGPTsSpec:
    """The shape, and which parts there are.

    Attributes:
        outputs: scores per position; the vocabulary, or 1 for regression.
        inputs: numbers per position that are read in place of a token; None reads tokens, of `outputs` kinds.
        heads: 0 leaves attention out.
        layers: 0 makes it a bigram model: no positions and no final norm either.
        feedforward, residual, norm: whether blocks have them.
    """

    outputs: int
    context: int
    width: int
    layers: int
    heads: int
    inputs: int | None = None
    feedforward: bool = True
    residual: bool = True
    norm: bool = True

    @property
    def parameters(self) -> int:
        """Of one of the models."""
        return sum(math.prod(shape) for shape in self.shapes().values())

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every weight's shape, by name, without the dimension of models."""
        d = self.width
        shapes: dict[str, tuple[int, ...]] = {"embed": (self.inputs or self.outputs, d), "unembed": (d, self.outputs)}
        if self.layers:
            shapes["positions"] = (self.context, d)
        for layer in range(self.layers):
            if self.heads:
                shapes |= {f"{layer}.qkv": (d, 3 * d), f"{layer}.output": (d, d)}
            if self.feedforward:
                shapes |= {f"{layer}.up": (d, 4 * d), f"{layer}.up_bias": (1, 4 * d), f"{layer}.down": (4 * d, d)}
                shapes |= {f"{layer}.down_bias": (1, d)}
        if self.norm and self.layers:
            names = [f"{layer}.norm{half}" for layer in range(self.layers) for half in (1, 2)]
            shapes |= {f"{name}_{kind}": (1, d) for name in [*names, "final"] for kind in ("scale", "shift")}
        return shapes


class ManyGPTs(nn.Module):
    """Models in a row: tokens (S, B, T), or vectors (S, B, T, inputs), to scores (S, B, T, outputs).

    Args:
        seeds: one per model; equal seeds give equal models.
    """

    def __init__(self, spec: ManyGPTsSpec, seeds: Sequence[int]):
        super().__init__()
        self.spec, self.count = spec, len(seeds)
        draws = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.weights = nn.ParameterDict()
        for name, shape in spec.shapes().items():
            if name.endswith(("bias", "shift")):
                values = torch.zeros(self.count, *shape)
            elif name.endswith("scale"):
                values = torch.ones(self.count, *shape)
            else:
                std = 0.02 if name == "unembed" else 0.5 if name in READ else 1 / math.sqrt(shape[0])
                values = torch.stack([std * torch.randn(shape, generator=draw) for draw in draws])
            self.weights[name.replace(".", "_")] = nn.Parameter(values)

    def forward(self, x: Tensor) -> Float[Tensor, "S B T outputs"]:
        spec, w = self.spec, self.weights
        if spec.inputs is None:
            offset_S11 = torch.arange(self.count)[:, None, None] * spec.outputs
            x = F.embedding(x + offset_S11, w["embed"].flatten(0, 1))
        else:
            x = torch.einsum("sbti,sid->sbtd", x, w["embed"])
        if spec.layers:
            x = x + w["positions"][:, None, : x.shape[2]]
        for layer in range(spec.layers):
            if spec.heads:
                branch = self._attention(self._norm(x, f"{layer}_norm1"), layer)
                x = x + branch if spec.residual else branch
            if spec.feedforward:
                branch = self._feedforward(self._norm(x, f"{layer}_norm2"), layer)
                x = x + branch if spec.residual else branch
        x = self._norm(x, "final") if spec.layers else x
        return self._linear(x, "unembed")

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return torch.bmm(x.flatten(1, 2), self.weights[name]).unflatten(1, x.shape[1:3])

    def _norm(self, x: Tensor, name: str) -> Tensor:
        if not self.spec.norm:
            return x
        normed = F.layer_norm(x, x.shape[-1:])
        return normed * self.weights[f"{name}_scale"][:, None] + self.weights[f"{name}_shift"][:, None]

    def _attention(self, x: Tensor, layer: int) -> Tensor:
        qkv = self._linear(x, f"{layer}_qkv").flatten(0, 1).unflatten(-1, (3, self.spec.heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (S·B, H, T, K) each
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self._linear(y.transpose(1, 2).flatten(2).unflatten(0, x.shape[:2]), f"{layer}_output")

    def _feedforward(self, x: Tensor, layer: int) -> Tensor:
        up = self._linear(x, f"{layer}_up") + self.weights[f"{layer}_up_bias"][:, None]
        return self._linear(F.gelu(up), f"{layer}_down") + self.weights[f"{layer}_down_bias"][:, None]


def train_many(
    model: ManyGPTs,
    loss: Callable[[int], Float[Tensor, "S"]],
    *,
    steps: int,
    lr: float,
    tell: Callable[[float], object],
    every: int = 0,
    watch: Callable[[int], object] = lambda step: None,
) -> ManyGPTs:
    """Muon and AdamW on the sum of the models' losses; each model's gradient is its own, and is clipped on its own.

    Args:
        loss: of each model at a step. tell: hears the share that is done.
        watch: called before every `every`-th step and at the end.
    """
    matrices = [p for name, p in model.weights.items() if name.endswith(MATRICES)]
    rest = [p for name, p in model.weights.items() if not name.endswith(MATRICES)]
    adam = AdamW([{"params": rest, "lr": lr}], betas=(0.9, 0.95), weight_decay=0.0)
    optimizer = CombinedOptimizer([Muon(matrices, lr=2 * lr), adam] if matrices else [adam])
    schedule = ScheduleSpec(warmup=0.05, decay=0.95, floor=0.05, shape="cosine")
    parameters = list(model.parameters())
    for step in range(steps):
        if every and step % every == 0:
            watch(step)
        optimizer.zero_grad()
        loss(step).sum().backward()
        norm_S = sum(p.grad.flatten(1).square().sum(1) for p in parameters if p.grad is not None) ** 0.5
        factor_S = (1.0 / norm_S).clamp(max=1.0)  # type: ignore[operator]
        for p in parameters:
            if p.grad is not None:
                p.grad *= factor_S.view(-1, *[1] * (p.ndim - 1))
        scale_lr(optimizer, schedule.lr_factor(step, steps))
        optimizer.step()
        tell(step / steps)
    if every:
        watch(steps)
    return model


def as_decoder(models: ManyGPTs, number: int) -> Decoder:
    """One of the models as a decoder of the library; it must read tokens and have all parts."""
    spec, weights = models.spec, {name: values[number] for name, values in models.weights.items()}
    attention = AttentionSpec(heads=spec.heads, rotary=None)
    block = BlockSpec(
        mixer=attention, feedforward=MLPSpec(d_ff=4 * spec.width, activation="gelu"), norm=LayerNormSpec()
    )
    decoder = DecoderSpec(
        vocab_size=spec.outputs,
        context_length=spec.context,
        d_model=spec.width,
        layers=spec.layers,
        blocks=(block,),
        norm=LayerNormSpec(),
        positions=LearnedPositionSpec(),
    ).build()
    state = {"embed.weight": weights["embed"], "position_embed.weight": weights["positions"]}
    state |= {"unembed.weight": weights["unembed"].T}
    norms = {"norm": "final"}
    for layer in range(spec.layers):
        names = ("mixer.query", "mixer.key", "mixer.value")
        for name, matrix in zip(names, weights[f"{layer}_qkv"].chunk(3, dim=1), strict=True):
            state[f"blocks.{layer}.{name}.weight"] = matrix.T
        for ours, theirs in (("mixer.output", "output"), ("feedforward.up", "up"), ("feedforward.down", "down")):
            state[f"blocks.{layer}.{ours}.weight"] = weights[f"{layer}_{theirs}"].T
        for name in ("up", "down"):
            state[f"blocks.{layer}.feedforward.{name}.bias"] = weights[f"{layer}_{name}_bias"][0]
        norms |= {f"blocks.{layer}.mixer_norm": f"{layer}_norm1", f"blocks.{layer}.feedforward_norm": f"{layer}_norm2"}
    for ours, theirs in norms.items():
        state |= {f"{ours}.weight": weights[f"{theirs}_scale"][0], f"{ours}.bias": weights[f"{theirs}_shift"][0]}
    decoder.load_state_dict(state)
    return decoder
